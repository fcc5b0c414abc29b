"""The data sets that ship with edgeopt, by bare name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped_sets"]

_PACKAGE = Path(__file__).parent / "shipped"
_CHECKOUT = Path(__file__).parents[2] / "calibration"


def shipped_sets() -> dict[str, Path]:
    """Name → manifest: of the installed package, or of the checkout that this file lies in.

    >>> shipped_sets()["digits"].name
    'digits.yaml'
    """
    is_checkout = (_CHECKOUT.parent / "pyproject.toml").is_file()
    folder = _PACKAGE if _PACKAGE.is_dir() or not is_checkout else _CHECKOUT
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
