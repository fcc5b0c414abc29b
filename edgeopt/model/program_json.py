"""The `models/model.json` of a `.pt2` archive: what in it would run, and a copy without what nobody needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from edgeopt.model.expressions import guard_complaint, size_complaint

__all__ = ["program_complaints", "sanitized_program"]

# Operators that torch itself registers, by overload; a dunder only where aten has an operator of that name.
_OVERLOAD = re.compile(
    r"torch\.ops\.(?P<space>aten|prims|quantized|quantized_decomposed|torchvision|torchao|symm_mem)"
    r"\.(?P<op>[A-Za-z]\w*|_[A-Za-z]\w*|__i?(?:and|or|xor|lshift|rshift)__)\.(?:[A-Za-z]\w*|_[A-Za-z]\w*)"
)
# These read or write files that their arguments name.
_FILES = frozenset({"from_file", "save", "load"})
_HIGHER_ORDER = frozenset(
    {
        f"torch.ops.higher_order.{name}"
        for name in [
            "cond",
            "while_loop",
            "scan",
            "map",
            "map_impl",
            "associative_scan",
            "wrap_with_set_grad_enabled",
            "wrap_with_autocast",
            "auto_functionalized",
            "auto_functionalized_v2",
            "out_dtype",
            "invoke_subgraph",
            "flex_attention",
            "strict_mode",
        ]
    }
)
_ARITHMETIC = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|lshift|rshift|"
    r"getitem|index)|math\.[a-z]\w*|torch\.(_sym_\w+|sym_\w+)"
)
# In FX's source an attribute is written as a name or inside double quotes.
_ATTRIBUTE = re.compile(r"[\w.\-/ :+@]*")
_ATTRIBUTE_KEYS = ("parameter_name", "buffer_name", "tensor_constant_name", "custom_obj_name", "user_input_name")
_RANGE_KEY = re.compile(r"[a-z]{1,4}\d{1,6}")
_TREE_TYPES = frozenset(
    {"builtins.tuple", "builtins.list", "builtins.dict", "collections.namedtuple", "collections.OrderedDict"}
    | {"collections.defaultdict", "collections.deque", "torch.Size"}
    | {f"torch.fx.immutable_collections.immutable_{kind}" for kind in ("list", "dict")}
)
_FACTORIES = frozenset({"list", "dict", "set", "tuple", "int", "float", "str"})
_METADATA = ("stack_trace", "nn_module_stack", "torch_fn")


def program_complaints(program: dict[str, Any]) -> list[str]:
    """Why loading, or then running, this program could execute more than tensor operations; empty where it couldn't.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: The document does not have torch's schema.
    """
    module = program["graph_module"]
    complaints = [
        *(f"guard {text!r}: {why}" for text in program.get("guards_code", []) if (why := guard_complaint(text))),
        *(f"the range of {_short(key)}, which is no size" for key in program["range_constraints"] if not _is_size(key)),
        *_module_call_complaints(module["module_call_graph"]),
        *_walk(module["graph"]),
        *_walk(module["signature"]),
    ]
    return list(dict.fromkeys(complaints))


def sanitized_program(program: dict[str, Any]) -> dict[str, Any]:
    """A copy without guards and remarks, and with every device the CPU.

    Guards only repeat, as code, what the shapes say; edgeopt checks shapes itself.
    """
    module = program["graph_module"]
    cleaned = {**module, "graph": _clean(module["graph"]), "metadata": {}}
    return {**program, "graph_module": cleaned, "guards_code": []}


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {}
    for key, item in value.items():
        if key == "metadata" and isinstance(item, dict):
            cleaned[key] = {k: v for k, v in item.items() if k in _METADATA}
        elif key in ("device", "as_device") and isinstance(item, dict) and "type" in item:
            cleaned[key] = {"type": "cpu", "index": None}
        else:
            cleaned[key] = _clean(item)
    return cleaned


def _walk(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _entry(key, item)
            if key != "metadata":
                yield from _walk(item)


def _entry(key: str, item: Any) -> Iterator[str]:
    if key == "expr_str" and (why := size_complaint(item)):
        yield f"symbolic size {_short(item)}: {why}"
    elif key in ("target", "as_operator") and (why := _target_complaint(item)):
        yield why
    elif key in ("name", "as_name") and not _is_name(item):
        yield f"the name {_short(item)} is no identifier, and torch would write it into Python source"
    elif key in _ATTRIBUTE_KEYS and not (isinstance(item, str) and _ATTRIBUTE.fullmatch(item)):
        yield f"the attribute {_short(item)} has characters that torch would write into Python source"


def _target_complaint(target: object) -> str | None:
    if not isinstance(target, str):
        return f"the target {_short(target)} is not text"
    match = _OVERLOAD.fullmatch(target)
    if match:
        return f"it calls {target}, which reads or writes files" if match["op"] in _FILES else None
    if target in _HIGHER_ORDER or _ARITHMETIC.fullmatch(target):
        return None
    if target.startswith("torch.ops.") and target.count(".") == 4 and "__" not in target:
        return f"it calls {target}, an operator that torch itself does not have"
    return f"it calls {_short(target)}, which is no tensor operator"


def _is_size(key: str) -> bool:
    # torch counts up to the number of an unbacked symbol (u0), so it must be a small one.
    return bool(_RANGE_KEY.fullmatch(key)) or (not key.startswith(("u", "z")) and size_complaint(key) is None)


def _is_name(item: object) -> bool:
    return item is None or (isinstance(item, str) and (item == "" or item.isidentifier()))


def _module_call_complaints(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        if not _ATTRIBUTE.fullmatch(str(entry["fqn"])):
            yield f"the module name {_short(entry['fqn'])} has characters that torch would write into Python source"
        signature = entry.get("signature")
        if not signature:
            continue
        yield from _walk([signature["inputs"], signature["outputs"]])
        for name in signature.get("forward_arg_names") or ():
            if not _is_name(name):
                yield f"the argument {_short(name)} is no identifier, and torch would write it into Python source"
        for key in ("in_spec", "out_spec"):
            yield from _tree_complaints(json.loads(signature[key]))


def _tree_complaints(value: Any) -> Iterator[str]:
    """Walk a pytree spec, and the JSON texts nested in it."""
    if isinstance(value, str):
        yield from _tree_text_complaints(value)
    elif isinstance(value, list):
        for item in value:
            yield from _tree_complaints(item)
    elif isinstance(value, dict):
        yield from _tree_node_complaints(value)
        for item in value.values():
            yield from _tree_complaints(item)


def _tree_text_complaints(text: str) -> Iterator[str]:
    try:
        nested = json.loads(text)
    except ValueError:
        nested = None
    if isinstance(nested, list | dict):
        yield from _tree_complaints(nested)
    elif not _ATTRIBUTE.fullmatch(text):
        yield f"the key {_short(text)} has characters that torch would write into Python source"


def _tree_node_complaints(node: dict[str, Any]) -> Iterator[str]:
    if "__enum__" in node:
        yield f"a tree spec would import {_short(node.get('fqn'))}"
    if "default_factory_module" in node:
        module, name = node["default_factory_module"], node.get("default_factory_name")
        if module != "builtins" or name not in _FACTORIES:
            yield f"a tree spec would import {_short(f'{module}.{name}')}"
    kind = node.get("type")
    if "children_spec" in node and kind is not None and kind not in _TREE_TYPES:
        yield f"a tree spec needs the class {_short(kind)}, whose own code would rebuild it"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
