"""The part of the report that tells what an engine really runs in int8."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from edgeopt.core.coverage import INT8

__all__ = ["CoverageRow", "CoverageSection"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CoverageRow(_Frozen):
    """One operation that multiplies.

    Attributes:
        node: Its name in the ONNX graph that was compiled.
        layer: As the user knows it: the module's path; empty where there is none.
        macs: Multiply-accumulates for one sample; 0 where they cannot be counted.
        runs_in: ``int8``, ``float32``, ``float16``, …; empty where the runtime does not tell.
        where: The provider or accelerator; empty where there is only one.
        cause: Why it is outside of int8; ``fix``: what would bring it inside, where that is known.
    """

    node: str
    layer: str = ""
    op: str
    macs: int = Field(ge=0)
    runs_in: str
    where: str = ""
    cause: str = ""
    fix: str = ""

    @property
    def name(self) -> str:
        """The layer, or the node where there is none."""
        return self.layer or self.node


class CoverageSection(_Frozen):
    """Every convolution, matrix product and recurrent cell of an engine.

    Attributes:
        how: Where this was read.
        proxy: It was read from another runtime or machine than the one that will run the artifact.
        ops: In the graph's order.
    """

    how: str
    proxy: bool
    ops: tuple[CoverageRow, ...]

    @property
    def macs(self) -> int:
        """Of all operations."""
        return sum(row.macs for row in self.ops)

    @property
    def outside(self) -> tuple[CoverageRow, ...]:
        """What does not run in int8, or of what that is not told; the largest first."""
        return tuple(sorted((row for row in self.ops if row.runs_in != INT8), key=lambda row: -row.macs))

    def share_pct(self, row: CoverageRow) -> float | None:
        """A row's percent of all multiply-accumulates; None where they cannot be counted."""
        return 100 * row.macs / self.macs if self.macs and row.macs else None
