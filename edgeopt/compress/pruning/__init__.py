"""Structured pruning: which channels hang together, which matter least, and the graph without them."""
