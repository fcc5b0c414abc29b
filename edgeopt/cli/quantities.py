"""Quantities as people write them: ``30m``, ``5%``."""

import math
import re

from edgeopt.core.errors import EdgeOptError

__all__ = ["duration_s", "share"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """A time in seconds.

    >>> duration_s("30m"), duration_s("1.5h"), duration_s("45s")
    (1800.0, 5400.0, 45.0)

    Raises:
        EdgeOptError: It is no time above zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise EdgeOptError("That is no length of time.", got=repr(text), fix="Write it as 45s, 30m or 2h.")
    return seconds


def share(text: str) -> float:
    """A share between 0 and 1.

    >>> share("5%"), share("0.05")
    (0.05, 0.05)

    Raises:
        EdgeOptError: It is no share above 0 and below 1.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    value = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < value < 1:
        raise EdgeOptError("That is no share between 0 and 1.", got=repr(text), fix="Write it as 5% or 0.05.")
    return value
