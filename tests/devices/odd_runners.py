"""Runners that misbehave as native runtimes do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np


class Doubling:
    """Doubles its input. ``odd`` is called before each inference."""

    version = "1.2"
    fallbacks = ("op Foo left the accelerator",)

    def __init__(self, odd=lambda: None, dims=("n", 2)):
        self._odd = odd
        self.inputs = {"x": ("float32", list(dims))}
        self.outputs = {"y": ("float32", list(dims))}

    def infer(self, inputs):
        self._odd()
        return {"y": inputs["x"] * 2}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _shout():
    os.write(1, b"native noise on descriptor 1\n")
    print("and Python's own")  # noqa: T201 - the point


def _scream_and_die():
    os.write(2, b"last words of a native library\n")
    os.abort()


def doubling(path, options, threads):
    return Doubling()


def noisy(path, options, threads):
    _shout()
    return Doubling(_shout)


def crashing(path, options, threads):
    return Doubling(_scream_and_die)


def exiting(path, options, threads):
    return Doubling(lambda: os._exit(7))


def slow(path, options, threads):
    return Doubling(lambda: time.sleep(60))


def failing(path, options, threads):
    raise RuntimeError("unsupported op: Frobnicate")


def hoarding(path, options, threads):
    """Holds 64 MiB from load on."""
    runner = Doubling()
    runner.held = np.ones(64 * 2**20, np.uint8)
    return runner


def static_two(path, options, threads):
    return Doubling(dims=(2, 2))


class Resizable(Doubling):
    def __init__(self):
        super().__init__(dims=(2, 2))

    def resize(self, batch):
        if batch > 4:
            raise ValueError("at most 4")
        self.inputs = {"x": ("float32", [batch, 2])}

    def infer(self, inputs):
        assert inputs["x"].shape[0] == self.inputs["x"][1][0]
        return super().infer(inputs)


def resizable(path, options, threads):
    return Resizable()


def summing(path, options, threads):
    runner = Doubling()
    runner.infer = lambda inputs: {"y": inputs["x"].sum()}
    return runner


def environment(path, options, threads):
    """Writes what it was started with beside the entry."""
    import json

    facts = {"env": dict(os.environ), "cpus": sorted(os.sched_getaffinity(0)), "options": options, "threads": threads}
    Path(path).with_name("facts.json").write_text(json.dumps(facts))
    return Doubling()


def hungry(path, options, threads):
    """Reads standard input, as an interactive prompt of a library would."""
    got = os.read(0, 100)
    assert got == b"", got
    return Doubling()
