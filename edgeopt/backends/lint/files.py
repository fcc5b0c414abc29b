"""What is wrong before any operator is looked at: data elsewhere, a graph that is not ONNX."""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_SPEC = "ONNX documentation, Open Neural Network Exchange Intermediate Representation Specification"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="GEN001",
        effect="refused",
        title="external data outside the model's folder, missing or too short",
        why="The weights are not where the file says.",
        fix="Put the data file beside the model and save it with a plain file name.",
        source=f"{_SPEC}, External Tensor Data",
    ),
    Rule(
        id="GEN002",
        effect="refused",
        title="an operator that the graph's opset does not have",
        why="No runtime knows an operator that ONNX does not have at this opset.",
        fix="Export at an opset that has it, or give it a domain of its own.",
        source="ONNX documentation, Operator Schemas",
    ),
    Rule(
        id="GEN003",
        effect="refused",
        title="a graph that is not valid ONNX: types or shapes contradict each other",
        why="ONNX's own checker refuses the graph.",
        fix="Repair the export; `onnx.checker.check_model(path, full_check=True)` says the same.",
        source="ONNX documentation, onnx.checker",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """External data first: nothing else is read while it may lead elsewhere."""
    found = list(_external(facts))
    if not found:
        found = list(_unknown(facts, rules))
    if not found and not _has_plugins(facts, rules):
        found = list(_invalid(facts))
    return iter(found)


def _external(facts: Facts) -> Iterator[Finding]:
    folder = facts.graph.path.parent.resolve()
    for name, tensor in facts.tensors.items():
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location")
        if location is None:
            continue
        place = PurePosixPath(location)
        file = (folder / place).resolve()
        if place.is_absolute() or not file.is_relative_to(folder):
            yield RULES["GEN001"].at(name, f"Its data lies outside the model's folder: {location!r}.")
            continue
        end = _number(entries.get("offset")) + _number(entries.get("length"))
        if not file.is_file() or file.stat().st_size < end:
            yield RULES["GEN001"].at(name, f"Its data file is missing or too short: {location!r}.")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _unknown(facts: Facts, rules: RuntimeRules) -> Iterator[Finding]:
    import onnx  # noqa: PLC0415

    opset = facts.graph.opset
    newest = min(opset, onnx.defs.onnx_opset_version())
    local = {function.name for function in facts.graph.model.functions if function.domain in ONNX_DOMAINS}
    for node in facts.nodes:
        if node.domain not in ONNX_DOMAINS or node.op_type in local or _is_plugin(node, rules):
            continue
        if onnx.defs.has(node.op_type) and _since(node, newest):
            continue
        known = (
            f"has it from opset {_first(node.op_type)} on" if onnx.defs.has(node.op_type) else "has no such operator"
        )
        yield RULES["GEN002"].at(node, f"The graph has opset {opset}, and ONNX {known}: {node.op_type}.")


def _since(node: onnx.NodeProto, opset: int) -> bool:
    import onnx  # noqa: PLC0415

    try:
        onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return False
    return True


def _first(kind: str) -> int:
    import onnx  # noqa: PLC0415

    schemas = onnx.defs.get_all_schemas_with_history()
    return min(schema.since_version for schema in schemas if schema.name == kind and schema.domain == "")


def _is_plugin(node: onnx.NodeProto, rules: RuntimeRules) -> bool:
    """TensorRT's plug-ins stand in ONNX's own domain, under names that end so."""
    return rules.name == "tensorrt" and node.op_type.endswith("_TRT")


def _has_plugins(facts: Facts, rules: RuntimeRules) -> bool:
    return any(_is_plugin(node, rules) for node in facts.nodes)


def _invalid(facts: Facts) -> Iterator[Finding]:
    import onnx  # noqa: PLC0415

    if facts.graph.opset > onnx.defs.onnx_opset_version():
        return  # the checker of another ONNX would know; the runtime's own rule on opsets speaks
    said = _checked(lambda: onnx.checker.check_model(str(facts.graph.path), full_check=True))
    if said is not None and "of 'type' is required but missing" in said:
        # An output without a shape: the specification wants one, and no runtime does. Types are still looked at.
        said = _checked(lambda: onnx.shape_inference.infer_shapes(facts.graph.model, check_type=True, strict_mode=True))
    if said is not None and "external tensor" in said:
        return  # a shape that is kept outside the file: the checker does not read it, runtimes do
    if said is not None:
        yield RULES["GEN003"].at(None, f"ONNX's own checker refuses the graph: {said.rstrip('.')[:300]}.")


def _checked(look: Callable[[], object]) -> str | None:
    """The first line that says what is wrong, or None."""
    try:
        look()
    except Exception as error:  # noqa: BLE001 - the checker raises its own, shape inference another, C++ a third
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return next((line for line in lines if "error" in line.lower()), lines[0] if lines else type(error).__name__)
    return None
