"""How each runtime wants its Q/DQ written, one per file."""
