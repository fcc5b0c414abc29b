"""What is measured, and its statistics."""
