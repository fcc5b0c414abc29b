"""What layers are called: as the user's own modules are, so that a pattern in a recipe can name them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch.fx import Node

from edgeopt.compress.attributes import source_name
from edgeopt.core.errors import RecipeError, nearest_first

__all__ = ["check_patterns", "name_all"]

_WEIGHTED = ("conv", "conv_transpose", "linear")


def name_all(found: Sequence[tuple[Node, str]]) -> list[str]:
    """One name per node and op, each once: a number is appended to one that is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for node, op in found:
        name, number = _name(node, op), 2
        stem = name
        while name in taken:
            name, number = f"{stem}.{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _name(node: Node, op: str) -> str:
    """The path of the module that owns the weight; else of the module that computes, and the op; else the node."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = (str(stack[-1][0]), str(stack[-1][1]).rpartition(".")[2]) if stack else ("", "")
    weight = node.args[1] if op in _WEIGHTED and len(node.args) > 1 else None
    if isinstance(weight, Node) and weight.op == "get_attr":
        owner = source_name(weight).partition(".parametrizations.")[0].removesuffix("weight").rstrip("._")
        # A tied weight is owned elsewhere: then the computing module names the layer.
        if owner and (not path or owner == path or owner.startswith(f"{path}.")):
            return owner
    if not path:
        return node.name
    is_leaf = kind.startswith(("Conv", "Linear", "GRU", "LSTM", "RNN", "Embedding"))
    return path if is_leaf else f"{path}.{op}"


def check_patterns(where: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a pattern that matches none of ``names``.

    Args:
        where: Whose patterns they are, as the error says it: ``the quantize step's skip``.

    Raises:
        RecipeError: With the nearest names.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            nearest = ", ".join(nearest_first(pattern, names)[:8])
            raise RecipeError(
                f"A pattern in {where} matches no layer.",
                got=repr(pattern),
                fix=f"Layers with the nearest names: {nearest}." if names else "The model has no such layers.",
            )
