"""One runtime per file, imported on use."""
