"""What a runtime makes of a graph's sparse weights, said in the report: without kernels for them they are as slow as dense."""

from __future__ import annotations

from pathlib import Path

from edgeopt.core.events import Event
from edgeopt.core.sparsity import Pattern
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["sparsity_events"]


def sparsity_events(onnx: Path, target: Target, rules: RuntimeRules, *, stage: str) -> list[Event]:
    """How many layers of ``onnx`` hold the pattern that they were given, and whether the runtime is faster for it.

    Args:
        onnx: As the runtime reads it, in its own dialect.
        target: Of that graph.
        rules: The runtime's.
        stage: Whose events they are.
    """
    from edgeopt.graph.sparsity import layers_beside_marked

    layers = layers_beside_marked(onnx)
    marked = [layer for layer in layers if layer.marked]
    if not marked:
        return []
    lost = [layer.name for layer in marked if layer.share is not None and layer.share < 1.0]
    patterns = sorted({layer.marked for layer in marked})
    message = f"{len(marked) - len(lost)} of {len(layers)} layers are {' or '.join(patterns)} sparse; {_use(patterns, target, rules)}."
    events = [Event(kind="note", stage=stage, message=message)]
    if lost:
        message = f"In {rules.name}'s form these are not: {', '.join(lost)}."
        events.append(Event(kind="warning", stage=stage, message=message))
    return events


def _use(patterns: list[str], target: Target, rules: RuntimeRules) -> str:
    if rules.name != "tensorrt":
        return f"not used: no faster on {rules.name}"
    if not any(Pattern.read(pattern).is_two_of_four for pattern in patterns):
        return "not used: sparse tensor cores take 2:4 only"
    if not target.has_sparse_tensor_cores:
        return f"not used: sparse tensor cores need compute capability 8.0, and {target.name} has less"
    return (
        f"TensorRT may run them on sparse tensor cores (compute capability {(target.compute_capability or 0) / 10:.1f}, "
        "builder flag SPARSE_WEIGHTS set), where it finds them faster"
    )
