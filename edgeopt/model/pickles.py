"""What a pickle would import, found by reading its opcodes; nothing is executed."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterable
from typing import IO, Any

__all__ = ["is_plain", "pickle_globals", "torch_save_globals"]

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization's magic number, pickled
_MAX_PICKLE = 256 << 20
UNKNOWN = "(a name computed while unpickling)"

# What torch.save writes for tensors, parameters and dicts of them. Narrower than torch's own weights-only list on
# purpose: a name that is not here makes the file a pickled object.
_PLAIN = frozenset(
    {
        "builtins.bytearray",
        "builtins.complex",
        "builtins.int",
        "builtins.set",
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.UntypedStorage",
    }
)
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped")
_DTYPES = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")
_PLAIN_MEMBERS = frozenset({f"torch.{s}Storage" for s in _STORAGES} | {f"torch.{d}" for d in _DTYPES})

_TEXT = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "SHORT_BINSTRING", "BINSTRING")


def is_plain(names: Iterable[str]) -> bool:
    """Whether these globals are those of tensors and dicts alone."""
    return all(name in _PLAIN or name in _PLAIN_MEMBERS for name in names)


def pickle_globals(stream: IO[bytes]) -> set[str]:
    """The ``module.name`` of everything that one pickle in ``stream`` would import.

    ``stream`` is left behind the pickle's STOP. A name that the pickle computes appears as a remark in parentheses.

    Raises:
        ValueError: The bytes are no pickle, or it is cut short.
    """
    found: set[str] = set()
    stack: list[str | None] = []  # what the last opcodes pushed, where it was text
    memo: dict[int, str | None] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _TEXT:
            stack.append(str(argument))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(int(argument)))
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1] if stack else None
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1] if stack else None
        elif name in ("GLOBAL", "INST"):
            found.add(".".join(str(argument).split(" ", 1)))
            stack.append(None)
        elif name == "STACK_GLOBAL":
            pair = stack[-2:]
            found.add(".".join(map(str, pair)) if len(pair) == 2 and None not in pair else UNKNOWN)
            stack.append(None)
        elif name.startswith("EXT"):
            found.add(UNKNOWN)
            stack.append(None)
        elif name not in ("PROTO", "FRAME"):
            stack.append(None)
    return {_python3_name(name) for name in found}


def torch_save_globals(content: bytes) -> set[str]:
    """The globals of what ``torch.save`` wrote, be it a zip with a ``data.pkl`` or the older run of pickles.

    Raises:
        ValueError: ``content`` is neither.
    """
    stream = io.BytesIO(content)
    if not content.startswith(b"PK"):
        return legacy_globals(stream)
    try:
        with zipfile.ZipFile(stream) as file:
            pickles = [name for name in file.namelist() if name.endswith(".pkl")]
            if not pickles:
                raise ValueError("the zip holds no pickle")
            if sum(file.getinfo(name).file_size for name in pickles) > _MAX_PICKLE:
                raise ValueError("its pickle is far larger than one of tensors' names")
            return set().union(*(pickle_globals(io.BytesIO(file.read(name))) for name in pickles))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise ValueError(str(error)) from error


def legacy_globals(stream: IO[bytes]) -> set[str]:
    """The globals of a pickle, or of the five pickles in a row that torch wrote before 1.6.

    Raises:
        ValueError: One of them is no whole pickle.
    """
    start = stream.read(len(_LEGACY))
    stream.seek(-len(start), io.SEEK_CUR)
    # Magic number, protocol, machine, the object, its storages' keys; behind them come raw values.
    return set().union(*(pickle_globals(stream) for _ in range(5 if start == _LEGACY else 1)))


def _python3_name(name: str) -> str:
    return name.replace("__builtin__.", "builtins.", 1) if name.startswith("__builtin__.") else name
