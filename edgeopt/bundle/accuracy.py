"""Accuracy told whole: parts of the test split, samples that changed sides, confidence."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["FlipRow", "ReliabilityRow", "SliceRow", "drop_name"]


def drop_name(metric: str) -> str:
    """What a metric's drop is called: ``drop_f1_macro_pct``; that of top-1 accuracy is simply ``drop_pp``."""
    return "drop_pp" if metric == "accuracy_top1_pct" else f"drop_{metric}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SliceRow(_Frozen):
    """A part of the test split, FP32 and this candidate on the same samples of it.

    Attributes:
        column: By which property the samples were told apart: ``class``, or a column of the data's manifest.
        figure: The task's primary metric, of the candidate.
        drop: Against FP32, paired.
        p_adjusted: Of "no drop", adjusted for the number of slices (Holm); not measured where the slice is too small.
    """

    column: str
    value: str
    samples: int
    figure: Measurement
    drop: Measurement
    p_adjusted: Measurement


class ReliabilityRow(_Frozen):
    """One bin of a reliability diagram: samples whose highest probability is in (low, high].

    Attributes:
        confidence: Mean of that probability; ``accuracy``: share that is right; both 0 where there is no sample.
    """

    low: float
    high: float
    samples: int
    confidence: float
    accuracy: float


class FlipRow(_Frozen):
    """A test sample that FP32 and the candidate judge differently.

    Attributes:
        index: Its place in the data's source.
        label: What is right; empty without labels.
        reference: What FP32 says; ``candidate``: what the candidate says.
        margin: How sure FP32 was: its highest score less its second highest, after softmax, in [0, 1].
        picture: A small PNG as a data URI, of image data.
    """

    index: int
    label: str
    reference: str
    candidate: str
    margin: float
    picture: str | None = None
