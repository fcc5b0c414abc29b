"""Which strings of a `.pt2` archive may be evaluated: symbolic sizes and shape guards, nothing else.

torch evaluates both on load or on first use: sizes with `sympy.sympify` (which is `eval` behind a tokenizer) and
guards with `exec`. Here they are parsed, never evaluated, against the little grammar that torch itself writes.
"""

from __future__ import annotations

import ast
import re

__all__ = ["guard_complaint", "size_complaint"]

_MAX_LENGTH = 20_000
_MAX_EXPONENT = 64
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,6}")
_NUMBER = re.compile(r"-?[\d.]+([eE][+-]?\d+)?")

# srepr of SymPy's own classes, and torch.utils._sympy.functions as torch's deserializer hands them to sympify.
_CALLS = frozenset(
    [
        "Symbol",
        "Dummy",
        "Integer",
        "Rational",
        "Float",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "Abs",
        "floor",
        "ceiling",
        "Eq",
        "Equality",
        "Ne",
        "Unequality",
        "Lt",
        "StrictLessThan",
        "Le",
        "LessThan",
        "Gt",
        "StrictGreaterThan",
        "Ge",
        "GreaterThan",
        "And",
        "Or",
        "Not",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "LShift",
        "RShift",
        "PowByNatural",
        "FloatPow",
        "FloatTrueDiv",
        "IntTrueDiv",
        "IsNonOverlappingAndDenseIndicator",
        "TruncToFloat",
        "TruncToInt",
        "RoundToInt",
        "RoundDecimal",
        "ToFloat",
        "Identity",
    ]
)
_POWERS = (ast.Pow, ast.LShift, ast.RShift)
_GROWING = frozenset({"Pow", "FloatPow", "LShift", "PowByNatural", "RShift"})
_CONSTANTS = frozenset({"true", "false", "oo", "int_oo", "Half", "One", "Zero", "NegativeOne", "Infinity"})
_TEXT_ARGUMENT = {"Symbol": re.compile(r"\w{1,64}"), "Dummy": re.compile(r"\w{1,64}"), "Float": _NUMBER}

_GUARD_NAMES = frozenset({"L", "math", "inf", "nan", "int", "float", "abs", "max", "min", "Max", "Min", "Mod"}) | _CALLS
_GUARD_ATTRIBUTES = frozenset(
    [
        "size",
        "stride",
        "storage_offset",
        "shape",
        "dim",
        "isnan",
        "isinf",
        "inf",
        "nan",
        "floor",
        "ceil",
        "trunc",
        "sqrt",
        "pow",
        "log2",
    ]
)
_GUARD_NODES = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Subscript, ast.Attribute,
    ast.Name, ast.Constant, ast.Load, ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.IfExp, ast.Tuple,
)  # fmt: skip


def size_complaint(text: object) -> str | None:
    """Why ``text`` is not a plain symbolic size (symbols, integers, arithmetic); None where it is.

    >>> size_complaint("Mul(Integer(20), Symbol('s77', positive=True, integer=True))")
    >>> size_complaint("__import__('os').system('true')")
    "it calls something other than arithmetic: __import__('os').system"
    """
    tree = _parse(text)
    return tree if isinstance(tree, str) else _size(tree.body)


def guard_complaint(text: object) -> str | None:
    """Why ``text`` is not a comparison of the inputs' sizes; None where it is.

    >>> guard_complaint("(20*L['x'].size()[0]) % (L['x'].size()[0] // 2) == 0")
    >>> guard_complaint("__import__('os').system('true') == 0")
    'it uses the attribute system'
    """
    tree = _parse(text)
    if isinstance(tree, str):
        return tree
    for node in ast.walk(tree):
        if not isinstance(node, _GUARD_NODES):
            return f"it holds {type(node).__name__}, which no comparison of sizes needs"
        if isinstance(node, ast.Name) and node.id not in _GUARD_NAMES and not _SYMBOL.fullmatch(node.id):
            return f"it uses the name {node.id}"
        if isinstance(node, ast.Attribute) and node.attr not in _GUARD_ATTRIBUTES:
            return f"it uses the attribute {node.attr}"
        # torch pastes the guard's text into an error message inside double quotes.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[\"'\\\n{}]", node.value):
            return "it holds a string that could leave its quotes"
    return None


def _parse(text: object) -> ast.Expression | str:
    if not isinstance(text, str):
        return f"it is {type(text).__name__}, not text"
    if len(text) > _MAX_LENGTH:
        return f"it is {len(text)} characters long"
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "it is no expression"


def _size(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Constant | ast.Name):
        return _leaf(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
        return _size(node.operand)
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare):
        if isinstance(node, ast.BinOp) and isinstance(node.op, _POWERS) and not _small(node.right):
            return "it raises to a power that is no small number"
        return next(filter(None, (_size(c) for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr))), None)
    return f"it holds {type(node).__name__}, which no size needs"


def _leaf(node: ast.Constant | ast.Name) -> str | None:
    if isinstance(node, ast.Name):
        return None if _SYMBOL.fullmatch(node.id) or node.id in _CONSTANTS else f"it uses the name {node.id}"
    plain = isinstance(node.value, int | float) and abs(node.value) <= 2**63
    return None if plain else f"it holds the constant {node.value!r}"


def _call(node: ast.Call) -> str | None:
    if not isinstance(node.func, ast.Name) or node.func.id not in _CALLS:
        return f"it calls something other than arithmetic: {ast.unparse(node.func)}"
    name, arguments = node.func.id, node.args
    if any(not isinstance(k.value, ast.Constant) or not isinstance(k.value.value, bool | int) for k in node.keywords):
        return f"it gives {name} an assumption that is neither true nor false"
    if name in _GROWING and not (len(arguments) == 2 and _small(arguments[1])):
        return "it raises to a power that is no small number"
    text = _TEXT_ARGUMENT.get(name)
    first = arguments[0] if arguments else None
    if text and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return (
            None if text.fullmatch(first.value) and len(arguments) == 1 else f"it gives {name} the text {first.value!r}"
        )
    return next(filter(None, map(_size, arguments)), None)


def _small(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _small(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Integer", "Rational"):
        return all(map(_small, node.args))
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) <= _MAX_EXPONENT
