"""Fixtures of this room."""

from compress_nets import nets

__all__ = ["nets"]
