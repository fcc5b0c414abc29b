"""One optimization per file; imports torch."""
