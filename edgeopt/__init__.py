"""From a trained PyTorch model to an artifact an edge device can run, with proof of what it costs.

>>> import edgeopt
>>> bundle = edgeopt.compile("model.pt2", target="openvino-cpu", data="digits")  # doctest: +SKIP
>>> edgeopt.load(bundle).predict(x)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from edgeopt.version import __version__

if TYPE_CHECKING:
    from edgeopt.pipeline.compile import compile  # noqa: A004 - edgeopt.compile is the public name
    from edgeopt.pipeline.serve import load

__all__ = ["__version__", "compile", "load"]

# Imported on use: `import edgeopt` stays instant.
_PUBLIC = {"compile": "edgeopt.pipeline.compile", "load": "edgeopt.pipeline.serve"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgeopt' has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(_PUBLIC[name]), name)
