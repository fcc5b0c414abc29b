"""Rules that say, before any runtime is asked, what it will refuse, misread or run in float; one file per runtime."""

from __future__ import annotations

from edgeopt.backends.lint.base import Rule
from edgeopt.backends.lint.registry import RUNTIMES, lint, predictions_left_out, rules_of

__all__ = ["RUNTIMES", "Rule", "lint", "predictions_left_out", "rules_of"]
