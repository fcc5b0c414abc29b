"""Fixtures of this room."""

from graph_nets import case, run

__all__ = ["case", "run"]
