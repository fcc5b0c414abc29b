"""What to tell a user whose model `torch.export` cannot take."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from edgeopt.core.errors import ModelError

__all__ = ["export_failure", "first_line", "user_line"]

_TWO_WAYS = (
    "Two ways out: rewrite that line so that it does not branch on, or build Python values from, a tensor's content "
    "(torch.where, torch.cond, torch.clamp, shapes instead of .item()); or export the model yourself with "
    "torch.onnx.export or torch.jit.trace and pass that file."
)
_TRACED = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \w+\s*\n\s*(?P<code>[^\n]+)')
_LIBRARIES = (str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]))


def export_failure(error: BaseException, what: str = "torch.export cannot take this model.") -> ModelError:
    """The error of a failed export, with the user's own line where one is to blame."""
    where = user_line(error)
    at = f" The line to blame: {where}." if where else ""
    return ModelError(f"{what}{at}", got=f"{type(error).__name__}: {first_line(error)}", fix=_TWO_WAYS)


def user_line(error: BaseException) -> str | None:
    """``file:line: code`` of the innermost frame outside torch, the standard library and edgeopt; None without one."""
    for cause in _causes(error):
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if _is_users(frame.filename):
                return f"{frame.filename}:{frame.lineno}: {frame.line}"
    # A program that was exported before carries its lines as text in the message.
    for match in reversed(list(_TRACED.finditer(str(error)))):
        if _is_users(match["file"]):
            return f"{match['file']}:{match['line']}: {match['code'].strip()}"
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__).rstrip(".")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_users(file: str) -> bool:
    return not file.startswith(("<", *_LIBRARIES)) and "site-packages" not in file
