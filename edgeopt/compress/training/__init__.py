"""The one training loop, and what it feeds on."""
