"""Runners that fail where a measurement is in full swing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np


class Runner:
    version = "3.1"
    fallbacks = ("provider Foo was not there",)

    def __init__(self, path, die_after=None, load_s=0.0):
        time.sleep(load_s)
        ports = json.loads(Path(path).read_text())
        self.inputs, self.outputs = ports["inputs"], ports["outputs"]
        self.left = die_after

    def infer(self, inputs):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                os.abort()
        return {"y": np.zeros((len(inputs["x"]), 3), np.float32)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def open_fragile(path, options, threads):
    """Dies in the middle of the timing."""
    return Runner(path, die_after=20)


def open_never(path, options, threads):
    raise RuntimeError("int8 is not supported on this CPU")


def open_slowly(path, options, threads):
    return Runner(path, load_s=0.2)


class Timed(Runner):
    """Each inference takes what ``ms_of`` says of its number; by sleeping, which a busy machine disturbs least."""

    def __init__(self, path, ms_of):
        super().__init__(path)
        self.calls, self.ms_of = 0, ms_of

    def infer(self, inputs):
        time.sleep(self.ms_of(self.calls) / 1e3)
        self.calls += 1
        return super().infer(inputs)


def open_warming(path, options, threads):
    """Comes to its level after 40 inferences."""
    return Timed(path, lambda call: 4 - 3 * min(call, 40) / 40)


def open_restless(path, options, threads):
    """Never comes to a level."""
    return Timed(path, lambda call: 0.2 * 1.03 ** min(call, 120))


def open_throttling(path, options, threads):
    """Takes three times as long after 150 inferences."""
    return Timed(path, lambda call: 2 if call < 150 else 6)


def open_steady(path, options, threads):
    return Timed(path, lambda call: 2)


def open_half_again(path, options, threads):
    return Timed(path, lambda call: 3)
