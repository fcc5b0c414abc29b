"""What every runner promises, and the checks that keep a wrong array from becoming a wrong answer.

Standard library and NumPy only, Python 3.8: these files travel to devices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Dict, List, Tuple, Union

import numpy as np

__all__ = ["BatchError", "Port", "Ports", "RunnerError", "check_inputs", "first_useful_line"]

# NumPy's dtype name, and one entry per dimension: an int, or a name where it may vary.
Port = Tuple[str, List[Union[int, str]]]
Ports = Dict[str, Port]

_LONGEST = 500
# Frames, source locations, and what OpenVINO says before it comes to the point.
_NOISE = re.compile(
    r"Exception from |Traceback|File \"|Check '.*' failed at .*:\d+:$|FrontEnd API failed with \w+:$"
    r"|Model wasn't fully converted\.$|Summary:$"
)


class RunnerError(ValueError):
    """An engine cannot be opened, or was given inputs that it does not take."""


class BatchError(RunnerError):
    """The engine cannot be run at the batch asked for."""


def check_inputs(inputs: Mapping[str, np.ndarray], ports: Ports) -> None:
    """Check names, dtypes and shapes of ``inputs`` against ``ports``. Nothing is converted.

    Raises:
        RunnerError: What was given, and what the engine takes.
    """
    if inputs.keys() != ports.keys():
        raise RunnerError(f"The engine takes the inputs {_names(ports)}; received {_names(inputs)}.")
    for name, (dtype, shape) in ports.items():
        array = inputs[name]
        if not isinstance(array, np.ndarray):
            raise RunnerError(f"Input {name!r} must be a NumPy array; received {type(array).__name__}.")
        if array.dtype != dtype:
            raise RunnerError(f"Input {name!r} is {dtype}; received {array.dtype}.")
        if array.ndim != len(shape) or any(
            isinstance(want, int) and want != got for want, got in zip(shape, array.shape)
        ):
            raise RunnerError(f"Input {name!r} has shape {_shape(shape)}; received {_shape(array.shape)}.")


def first_useful_line(error: object) -> str:
    r"""The first line of a runtime's message that says what is wrong, not where in its source.

    >>> first_useful_line("Exception from src/core.cpp:85:\nCheck 'x' failed at src/a.cpp:3:\nno such file\n")
    'no such file'
    """
    lines = [line.strip(" \t*=-") for line in str(error).splitlines()]
    useful = [line for line in lines if line and not _NOISE.match(line)]
    if not useful:
        return next(filter(None, lines), type(error).__name__)[:_LONGEST]
    # ONNX Runtime puts its own name and a code before what it says.
    head = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", useful[0])
    if head.endswith(":") and len(useful) > 1:
        head = f"{head} {useful[1]}"
    return head[:_LONGEST]


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in sorted(mapping)) or "none"


def _shape(dims: Sequence[object]) -> str:
    return "[" + ",".join(str(dim) for dim in dims) + "]"
