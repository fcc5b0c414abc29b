"""The order of things, and the public `compile`."""
