"""How each runtime wants its Q/DQ written, one per file."""

from __future__ import annotations

from edgeopt.graph.dialects.base import Dialect, DialectResult, Rewrite
from edgeopt.graph.dialects.registry import DIALECTS, apply_dialect

__all__ = ["DIALECTS", "Dialect", "DialectResult", "Rewrite", "apply_dialect"]
