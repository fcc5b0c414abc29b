"""The part of the report that tells a search for mixed precision."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["FrontRow", "GroupRow", "MixedSection"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupRow(_Frozen):
    """Layers that change precision together, and what each precision costs.

    Attributes:
        name: The member with the most MACs, and how many more there are.
        macs_share: Of all quantizable layers' MACs, in [0, 1].
        weight_kib: Of its weights in float32.
        figures: ``divergence``, ``sqnr_db``, ``agreement_pct`` and, with labels, ``loss``, on the tuning split. Conditions
            say its ``precision``, and whether the ``rest`` is float (only this group is quantized) or int8 (all but it).
        latency: ``latency_delta`` per runtime: the change of p50 when this group alone is float, as a share of all-int8's.
            Conditions: ``how`` it came about, ``counts`` what the search used (0 where no difference could be told).
        chosen: Its precision in the outcome, if there was a search.
    """

    name: str
    layers: tuple[str, ...]
    ops: tuple[str, ...]
    macs_share: float
    weight_kib: float
    figures: tuple[Measurement, ...]
    latency: tuple[Measurement, ...] = ()
    chosen: str | None = None

    def figure(self, name: str, precision: str, rest: str = "float") -> Measurement | None:
        """The measurement of that name in that precision, or None."""
        found = (m for m in self.figures if m.name == name and m.conditions.get("precision") == precision)
        return next((m for m in found if m.conditions.get("rest") == rest), None)


class FrontRow(_Frozen):
    """One assignment that the integer program gave for some budget, and how it did.

    Attributes:
        label: ``all int8``, ``all float``, or how many groups are float.
        groups_float: Their names.
        predicted_sensitivity: Sum over the groups.
        predicted_cost: Likewise; latency over all-int8's where it was timed, else the share of MACs in float.
        figures: Scored on the tuning split: ``divergence``, ``agreement_pct``, ``drop_pp`` where there are labels; and
            ``latency_ratio`` to FP32 where it was timed.
        holds: Whether it holds the budget.
        chosen: Whether it is the outcome.
    """

    label: str
    groups_float: tuple[str, ...]
    predicted_sensitivity: float
    predicted_cost: float
    figures: tuple[Measurement, ...]
    holds: bool
    chosen: bool = False

    def figure(self, name: str) -> Measurement | None:
        """The measurement of that name, or None."""
        return next((m for m in self.figures if m.name == name), None)


class MixedSection(_Frozen):
    """The search for mixed precision: what each group costs, and what was weighed.

    Attributes:
        budget: As the recipe has it; empty where only sensitivities were measured.
        metric: What a group's sensitivity is; ``split``: what it was measured on, and ``timed`` how time was, in words.
        everything: Figures with every group in each precision, as in ``GroupRow.figures``.
        front: From all int8 to all float.
        summary: The outcome in one sentence.
    """

    budget: dict[str, float]
    metric: str
    split: str
    timed: str
    groups: tuple[GroupRow, ...]
    everything: tuple[Measurement, ...]
    front: tuple[FrontRow, ...] = ()
    summary: str = ""
