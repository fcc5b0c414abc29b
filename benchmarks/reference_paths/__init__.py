"""Each runtime's own documented road from a torch module to a file; imported where that runtime is installed."""
