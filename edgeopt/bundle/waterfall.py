"""The part of the report that tells what each stage of a recipe brought and cost, from FP32 to what is made."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["WaterfallRow", "WaterfallSection"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WaterfallRow(_Frozen):
    """One stage.

    Attributes:
        name: ``FP32``; ``pruned``, ``finetuned``, … after a float step; ``int8``, … at the end.
        step: The recipe's step that made it; empty for the model as it came.
        candidate: The id of its engine, whose other figures are among the candidates.
        figures: ``accuracy_top1_pct``, ``drop_pp`` (``agreement_pct`` where there are no labels), ``latency_p50_ms``,
            ``latency_ratio`` to FP32, ``size_mib``; of the model ``macs`` per sample and ``parameters``; ``wall_s``, what
            making it took when it was made.
    """

    name: str
    step: str
    candidate: str
    figures: tuple[Measurement, ...]

    def figure(self, name: str) -> Measurement | None:
        """The measurement of that name, or None."""
        return next((m for m in self.figures if m.name == name), None)


class WaterfallSection(_Frozen):
    """The stages in order, all on one runtime: the one of what is shipped."""

    runtime: str
    rows: tuple[WaterfallRow, ...]
