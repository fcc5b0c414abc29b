"""What a gate holds a bundle to, as data: a limits file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeopt.core.documents import parse_yaml, read_text, validate
from edgeopt.core.errors import RecipeError
from edgeopt.recipes.settings import Limits

__all__ = ["BaselineLimits", "GateLimits", "OnInconclusive", "load_gate_limits"]

OnInconclusive = Literal["pass", "fail"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaselineLimits(_Frozen):
    """What may be lost against a baseline; null: no limit. Samples are paired, latencies measured in turns.

    Attributes:
        drop_pp: Drop in the data's primary metric, percentage points.
        drops: Largest drop in other metrics, by the metric's name, in its unit; worse is positive.
        worst_slice_drop_pp: Drop in the primary metric in every slice of the test split.
        agreement: Smallest share of samples predicted as the baseline predicts them.
        latency_ratio: p50 latency over the baseline's; ``latency_p99_ratio``: p99 likewise.
        peak_memory_ratio: Peak memory over the baseline's.
        size_ratio: Engine on disk over the baseline's.
    """

    drop_pp: float | None = None
    drops: dict[str, float] = Field(default_factory=dict)
    worst_slice_drop_pp: float | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    latency_ratio: Annotated[float, Field(gt=0)] | None = None
    latency_p99_ratio: Annotated[float, Field(gt=0)] | None = None
    peak_memory_ratio: Annotated[float, Field(gt=0)] | None = None
    size_ratio: Annotated[float, Field(gt=0)] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return not any(value is not None and value != {} for value in self.model_dump().values())

    @property
    def of_samples(self) -> bool:
        """Whether a limit needs the outcomes of single samples."""
        given = (self.drop_pp, self.worst_slice_drop_pp, self.agreement)
        return bool(self.drops) or any(limit is not None for limit in given)

    @property
    def of_latency(self) -> bool:
        """Whether a limit needs latencies."""
        return self.latency_ratio is not None or self.latency_p99_ratio is not None

    @classmethod
    def like(cls, limits: Limits) -> Self:
        """The limits on what the outputs may lose, taken from those against FP32."""
        return cls(
            drop_pp=limits.drop_pp,
            drops=limits.drops,
            worst_slice_drop_pp=limits.worst_slice_drop_pp,
            agreement=limits.agreement,
        )


class GateLimits(_Frozen):
    """A limits file.

    Attributes:
        limits: In absolute terms, or against FP32 as the bundle recorded it.
        baseline: Against a baseline.
        on_inconclusive: What becomes of a gate that cannot tell: exit 5 (``fail``), or 0 (``pass``).
    """

    schema_version: Literal[1]
    limits: Limits = Limits()
    baseline: BaselineLimits = BaselineLimits()
    on_inconclusive: OnInconclusive = "fail"

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.baseline.is_empty and self.limits == Limits():
            raise ValueError("no limit is set, so the gate could not fail; set one under limits or baseline")
        return self


def load_gate_limits(path: Path) -> GateLimits:
    """Read a limits file, strictly.

    Raises:
        RecipeError: There is no such file, it is not the YAML that edgeopt reads, has unknown keys or sets no limit.
    """
    where = f"The limits file {path}"
    return validate(
        GateLimits,
        parse_yaml(read_text(path, error=RecipeError), where=where, error=RecipeError),
        where=where,
        error=RecipeError,
    )
