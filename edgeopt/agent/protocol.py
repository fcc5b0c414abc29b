"""How host and agent talk: one JSON object per line, request on the agent's stdin, reply on its stdout.

Arrays travel as ``.npz`` files whose names are the model's input or output names (an SSH device sends the file
first). A relative file name is relative to the agent's working directory. The host streams a large split as a
sequence of ``infer`` requests, each with a file of a few MiB, so neither side ever holds more than one of them.
One agent process serves one engine, so every measured engine has a fresh process of its own.

| request | reply |
|---|---|
| ``{"do": "hello"}`` | ``{"protocol": 2, "python": …, "numpy": …, "pid": …, "machine": {cpu, arch, flags, cores, memory_mib, system, conditions}}`` |
| ``{"do": "load", "runtime", "entry", "options", "threads"}`` | ``{"import_ms", "load_ms", "runtime_version", "inputs": {name: {dtype, shape}}, "outputs": {…}, "fallbacks": [...]}`` |
| ``{"do": "first", "inputs": FILE}`` | ``{"cold_start_ms", "load_ms", "first_ms"}``: load + first inference; only right after ``load`` |
| ``{"do": "warm", "n", "within_pct"?, "most"?, "limit_s"?}`` | ``{"n", "seconds", "converged": bool or null}``: untimed; with ``within_pct``, ``n`` or more, until it is steady |
| ``{"do": "time", "n", "per"?}`` | ``{"latency_ns": [n ints], "runtime_ns": [n ints] or null, "preemptions": int or null, "rss_mib": float or null}``: ``n`` queries of ``per`` (1) inferences on the current inputs, each query timed |
| ``{"do": "layers", "n", "warmup"}`` | ``{"layers": [{"names", "op", "kernel", "us", "bytes", "weights"}]}`` or ``{"unavailable": why}``: each layer's median time over ``n`` inferences under the runtime's profiler, and what it reads and writes, weights among that or not |
| ``{"do": "serve", "schedule_ns": [ints]}`` | ``{"latency_ns": […], "service_ns": […], "seconds"}``: one inference per arrival; latency counts from the scheduled arrival |
| ``{"do": "energy", "seconds": S}`` | ``{"n", "seconds", "joules", "counter"}`` or ``{"unavailable": why}``: inferences for so long between two readings |
| ``{"do": "state"}`` | what ``state.py`` can read now: frequency, temperature, throttling, load, CPU times, resident memory |
| ``{"do": "infer", "inputs": FILE, "outputs": FILE, "batch": B}`` | ``{"samples": N}``: all samples, in batches of B; the last is padded by repeating its last sample and the padding cut off |
| ``{"do": "inputs", "inputs": FILE, "batch": B}`` | ``{"batch": B}``: the file's first B samples are what ``warm``, ``time``, ``serve`` and ``energy`` use from now on; reshapes the engine where it can, else an error of kind ``BatchError`` |
| ``{"do": "memory"}`` | ``{"baseline_mib", "load_peak_mib", "run_peak_mib", "how"}`` or ``{"unavailable": why}`` |
| ``{"do": "bye"}`` | ``{}``, then the process ends |

- ``import_ms`` is the runtime's own import, before ``load_ms`` begins; ``cold_start_ms`` = ``load_ms`` + ``first_ms``.
- The three figures of ``memory`` are resident sizes of the whole process: before ``load``, the peak during ``load``,
  the peak since. What the engine costs is a peak minus the baseline.
- ``runtime_ns``: the same inferences by the runtime's own clock, where it has one: without what Python adds.
- ``preemptions``: how often the kernel took the CPU away during the block; null where it does not count them.
- ``fallbacks``: sentences about what the runtime did on its own.

A failed request is answered ``{"error": message, "kind": class name}``; the process goes on. It ends at ``bye`` and
when its standard input ends, so it never outlives its host.
"""

from __future__ import annotations

__all__ = ["PROTOCOL_VERSION"]

PROTOCOL_VERSION = 2
