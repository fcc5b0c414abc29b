"""The folder that a team ships."""
