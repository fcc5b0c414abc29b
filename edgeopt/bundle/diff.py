"""What changed between two bundles, as a document: what ``edgeopt diff --json`` prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeopt.bundle.gate import GateSubject
from edgeopt.core.measurement import Measurement

__all__ = ["DIFF_VERSION", "BundleDiff", "FigureChange", "LayerChange", "SampleChange", "SamplesSection", "TextChange"]

DIFF_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FigureChange(_Frozen):
    """A figure of both.

    Attributes:
        key: Its name, with the batch where there are several.
        change: ``after`` less ``before``, or their ratio; with an interval where samples or blocks allow one.
        paired: Whether the interval rests on the same samples, one by one.
    """

    key: str
    before: Measurement | None
    after: Measurement | None
    change: Measurement | None
    paired: bool = False


class LayerChange(_Frozen):
    """A layer that computes in another precision, or is in one of them only (then the other is None)."""

    name: str
    op: str
    before: str | None
    after: str | None
    reason: str


class SampleChange(_Frozen):
    """A test sample that they judge differently. ``margin``: how sure the first was, in [0, 1]."""

    index: int
    label: str
    before: str
    after: str
    margin: float | None


class SamplesSection(_Frozen):
    """Samples that changed sides.

    Attributes:
        reason: Why samples could not be compared; else empty.
        only_before: How many only the first has right; ``only_after``: only the second.
        changed: How many are predicted differently, right or wrong.
        first: The surest of the first's decisions that changed, at most 20.
    """

    reason: str = ""
    samples: int = 0
    only_before: int = 0
    only_after: int = 0
    changed: int = 0
    first: tuple[SampleChange, ...] = ()


class TextChange(_Frozen):
    """A version, a setting of the recipe, a fact: as text, None where it is not there."""

    name: str
    before: str | None
    after: str | None


class BundleDiff(_Frozen):
    """The whole comparison, from the first bundle to the second."""

    kind: Literal["edgeopt-diff"] = "edgeopt-diff"
    schema_version: Literal[1] = DIFF_VERSION
    before: GateSubject
    after: GateSubject
    figures: tuple[FigureChange, ...]
    layers: tuple[LayerChange, ...]
    ops: tuple[TextChange, ...]
    samples: SamplesSection
    facts: tuple[TextChange, ...]
    recipe: tuple[TextChange, ...]
    versions: tuple[TextChange, ...]
