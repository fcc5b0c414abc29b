"""From a trained PyTorch model to an artifact an edge device can run, with proof of what it costs."""

from edgeopt.version import __version__

__all__ = ["__version__"]
