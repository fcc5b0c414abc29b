"""What a runtime really did with each operation of a graph, read from the runtime itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INT8", "Coverage", "ExecutedOp"]

INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedOp:
    """One node of the compiled graph, as the runtime runs it.

    Attributes:
        node: Its name in the ONNX graph that was compiled (its first output's where it has none).
        op: Its ONNX operator.
        macs: Multiply-accumulates for one sample; 0 where it does not multiply.
        runs_in: ``int8``, ``float32``, ``float16``, ``bfloat16``, ``float`` where it does not say which; empty where the
            runtime does not tell at all.
        where: The provider, delegate or accelerator that runs it; empty where there is only one.
        cause: Why it is outside; empty where it runs in int8.
        fix: What would bring it inside, where that is known.
    """

    node: str
    op: str
    macs: int
    runs_in: str
    where: str = ""
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Every convolution and matrix product of a compiled graph (and whatever else the runtime tells of).

    Attributes:
        ops: In the graph's order.
        how: Where this was read, e.g. ``the optimized graph of ONNX Runtime 1.32.0 on this machine``.
        proxy: It was read from another runtime than the one that will run the artifact.
    """

    ops: tuple[ExecutedOp, ...]
    how: str
    proxy: bool = False

    @property
    def outside(self) -> tuple[ExecutedOp, ...]:
        """The operations that multiply and do not run in int8, or of which the runtime does not tell; the largest first."""
        return tuple(sorted((op for op in self.ops if op.macs and op.runs_in != INT8), key=lambda op: -op.macs))

    @property
    def int8_macs_pct(self) -> float | None:
        """Percent of the multiply-accumulates that surely run in int8; None where nothing multiplies."""
        total = sum(op.macs for op in self.ops)
        return 100 * sum(op.macs for op in self.ops if op.runs_in == INT8) / total if total else None

    @property
    def int8_ops_pct(self) -> float | None:
        """Percent of the multiplying operations that surely run in int8; None where nothing multiplies."""
        multiplying = [op for op in self.ops if op.macs]
        return 100 * sum(op.runs_in == INT8 for op in multiplying) / len(multiplying) if multiplying else None
