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
