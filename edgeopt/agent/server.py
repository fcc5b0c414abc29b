"""The request loop: one line in, one line out, until ``bye`` or the end of the input."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np

from .engine_room import EngineRoom
from .machine import describe_machine
from .protocol import PROTOCOL_VERSION
from .state import read_state

__all__ = ["serve"]

logger = logging.getLogger(__name__)


class RequestError(ValueError):
    """The request is not one of ``protocol.py``."""


def serve(requests: TextIO, replies: TextIO, runners: Mapping[str, str]) -> None:
    """Answer requests until ``bye``, the end of ``requests``, or a host that no longer reads.

    Args:
        runners: Runtime name → ``module:function`` (see ``runners/__init__.py``).
    """
    room = EngineRoom(runners)
    try:
        for line in requests:
            request, reply = _answer(room, line)
            try:
                replies.write(json.dumps(reply) + "\n")
                replies.flush()
            except BrokenPipeError:
                return
            if request == "bye":
                return
    finally:
        room.close()


def _answer(room: EngineRoom, line: str) -> tuple[str, dict[str, Any]]:
    """What was asked for, and the reply; every failure becomes an error reply."""
    do = ""
    try:
        request = _parse(line)
        do = request.pop("do")
        return do, _dispatch(room, do, request)
    except Exception as error:  # the agent's edge: the host hears of it and decides
        logger.debug("request failed", exc_info=True)
        failed = "" if do == "bye" else do
        return failed, {"error": str(error) or repr(error), "kind": type(error).__name__}


def _parse(line: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise RequestError(f"The request is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise RequestError('A request is an object with a text "do".')
    return request


def _dispatch(room: EngineRoom, do: str, arguments: dict[str, Any]) -> dict[str, Any]:
    actions: Mapping[str, Callable[..., dict[str, Any]]] = {
        "hello": _hello,
        "load": room.load,
        "first": room.first,
        "warm": room.warm,
        "time": room.time,
        "layers": room.layers,
        "serve": room.serve,
        "energy": room.energy,
        "infer": room.infer,
        "inputs": room.inputs,
        "memory": room.memory,
        "state": _state,
        "bye": _bye,
    }
    if do not in actions:
        raise RequestError(f"There is no request {do!r}. Known: {', '.join(actions)}.")
    try:
        return actions[do](**arguments)
    except TypeError as error:
        if f"{actions[do].__name__}()" not in str(error):
            raise
        raise RequestError(f"The request {do!r} has wrong arguments: {error}") from error


def _hello() -> dict[str, Any]:
    return {
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pid": os.getpid(),
        "machine": describe_machine(),
    }


def _state() -> dict[str, Any]:
    return read_state()


def _bye() -> dict[str, Any]:
    return {}
