"""How host and agent talk: one JSON object per line, request on the agent's stdin, reply on its stdout.

Arrays travel as ``.npz`` files whose names are the model's input or output names (an SSH device sends the file
first). One agent process serves one engine, so every measured engine has a fresh process of its own.

| request | reply |
|---|---|
| ``{"do": "hello"}`` | ``{"protocol": 1, "python": …, "machine": {cpu, arch, cores, memory_mib, system, conditions}}`` |
| ``{"do": "load", "runtime", "entry", "options", "threads"}`` | ``{"load_ms", "runtime_version", "inputs": {name: {dtype, shape}}, "outputs": {…}, "fallbacks": [...]}`` |
| ``{"do": "first", "inputs": FILE}`` | ``{"cold_start_ms"}``: load + first inference; only right after ``load`` |
| ``{"do": "warm", "n"}`` | ``{}`` |
| ``{"do": "time", "n"}`` | ``{"latency_ns": [n ints]}``: ``n`` inferences on the current inputs, each timed |
| ``{"do": "infer", "inputs": FILE, "outputs": FILE, "batch": B}`` | ``{"samples": N}``: all samples, in batches of B; the last is padded by repeating its last sample and the padding cut off |
| ``{"do": "inputs", "inputs": FILE, "batch": B}`` | ``{}``: what ``warm`` and ``time`` use from now on; reshapes the engine where it can, else error ``batch`` |
| ``{"do": "memory"}`` | ``{"baseline_mib", "load_peak_mib", "run_peak_mib", "how"}`` or ``{"unavailable": why}`` |
| ``{"do": "bye"}`` | ``{}``, then the process ends |

A failed request is answered ``{"error": message, "kind": class name}``; the process goes on.
"""

from __future__ import annotations

__all__ = ["PROTOCOL_VERSION"]

PROTOCOL_VERSION = 1
