"""Fixtures of this room."""

from backend_nets import empty, save

__all__ = ["empty", "save"]
