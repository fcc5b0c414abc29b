"""What Core ML allows as names and types of a package's inputs and outputs, and the systems a package can be for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgeopt.core.spec import TensorSpec
from edgeopt.targets.schema import RuntimeRules

__all__ = ["DEFAULT_TARGET", "PORT_TYPES", "TARGETS", "deployment_target", "feature_names", "takes_quantization"]

TARGETS: Mapping[str, int] = {
    "iOS16": 16,
    "macOS13": 16,
    "iOS17": 17,
    "macOS14": 17,
    "iOS18": 18,
    "macOS15": 18,
    "iOS26": 26,
    "macOS26": 26,
}
"""Name, as ``coremltools.target`` spells it → the generation of Core ML, named after its iOS."""
DEFAULT_TARGET = "iOS17"
PORT_TYPES: Mapping[str, str] = {"float32": "float32", "float16": "float16", "int32": "int32", "int64": "int32"}
"""An input's or output's type → what it is in the package."""
_QUANTIZE_SINCE = 17


def deployment_target(rules: RuntimeRules) -> str:
    """The option ``minimum_deployment_target``, or its default."""
    return str(rules.options.get("minimum_deployment_target", DEFAULT_TARGET))


def takes_quantization(name: str) -> bool:
    """Whether that system's MIL has ``quantize`` and ``dequantize``; an unknown name is refused elsewhere."""
    return TARGETS.get(name, _QUANTIZE_SINCE) >= _QUANTIZE_SINCE


def feature_names(specs: Sequence[TensorSpec]) -> dict[str, str]:
    """The graph's names as Core ML can write them: letters, digits and ``_``, no digit first, no two alike.

    >>> feature_names([TensorSpec(name=n, dtype="float32", shape=(1,)) for n in ("x", "a.b", "a:b", "0")])
    {'x': 'x', 'a.b': 'a_b', 'a:b': 'a_b_1', '0': '_0'}
    """
    made: dict[str, str] = {}
    for name in dict.fromkeys(spec.name for spec in specs):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        chosen, number = plain, 0
        while chosen in made.values():
            number += 1
            chosen = f"{plain}_{number}"
        made[name] = chosen
    return made
