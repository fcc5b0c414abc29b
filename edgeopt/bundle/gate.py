"""A gate's outcome as a document: what ``edgeopt gate --format json`` prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["GATE_VERSION", "GateResult", "GateRow", "GateSubject"]

GATE_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateSubject(_Frozen):
    """What was judged, or what it was held against.

    Attributes:
        name: A baseline's name, or the bundle's folder.
        path: As it was given.
        kind: A bundle can be run again; a baseline is what was recorded of one.
        samples: Of the test split; None where there was no data.
    """

    name: str
    path: str
    kind: Literal["bundle", "baseline"]
    model: str
    model_sha256: str
    target: str
    recipe: str
    runtime: str
    runtime_version: str
    precision: str
    device: str
    created: str
    samples: int | None


class GateRow(_Frozen):
    """One limit.

    Attributes:
        id: Its key in a limits file: ``limits.drop_pp``, ``baseline.drops.f1_macro_pct``.
        against: ``fp32``: as the bundle recorded it; ``baseline``; ``absolute``.
        name: Of the figure.
        at_most: Whether the limit is the largest value, or else the smallest.
        text: The row in one sentence that stands alone.
    """

    id: str
    against: Literal["absolute", "fp32", "baseline"]
    name: str
    limit: float
    at_most: bool
    figure: Measurement
    status: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    message: str
    text: str


class GateResult(_Frozen):
    """The verdict and all that it rests on.

    Attributes:
        status: The worst of the rows: FAIL before INCONCLUSIVE before PASS.
        on_inconclusive: What becomes of INCONCLUSIVE.
        exit_code: 0, 4 (FAIL) or 5 (INCONCLUSIVE, unless that passes).
        notes: What a reader must know beside the rows.
    """

    kind: Literal["edgeopt-gate"] = "edgeopt-gate"
    schema_version: Literal[1] = GATE_VERSION
    edgeopt_version: str
    created: str
    bundle: GateSubject
    baseline: GateSubject | None
    status: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    summary: str
    on_inconclusive: Literal["pass", "fail"]
    exit_code: Literal[0, 4, 5]
    rows: tuple[GateRow, ...]
    notes: tuple[str, ...] = ()
