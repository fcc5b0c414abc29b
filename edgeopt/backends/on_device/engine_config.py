# ruff: noqa: T201
"""The build's configuration: profiles, memory, a DLA, the timing cache.

Lies beside ``build_engine.py`` in every bundle. Standard library only, Python 3.8.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path
from typing import Any

from engine_failures import BuildError, from_os_error  # type: ignore[import-not-found, unused-ignore]
from engine_passport import refusal, write_passport  # type: ignore[import-not-found, unused-ignore]

__all__ = ["load_plugin", "make_config", "timing_cache", "use_dla", "write_atomically"]


def make_config(trt: Any, builder: Any, network: Any, args: argparse.Namespace) -> Any:
    """The build configuration: a profile where the batch is dynamic, detailed layer names, scratch memory."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, args.workspace_mib << 20)
    if args.sparse_weights:
        # TensorRT looks at the weights itself, and takes a sparse kernel only where it is the faster one.
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if args.dla is not None:
        use_dla(trt, builder, config, args.dla)
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = list(tensor.shape)
        if -1 in shape[1:]:
            raise BuildError(f"Input {tensor.name} varies beyond its batch ({shape}): export it with fixed sizes.")
        if shape and shape[0] == -1:
            dynamic = True
            sizes = [(batch, *shape[1:]) for batch in (args.min_batch, args.opt_batch, args.max_batch)]
            profile.set_shape(tensor.name, *sizes)
    if dynamic:
        config.add_optimization_profile(profile)
    if args.ahead_of_time:
        known = getattr(trt, "ComputeCapability", None)
        member = getattr(known, f"SM{args.ahead_of_time.replace('.', '')}", None)
        if member is None:
            names = [name for name in getattr(known, "__members__", {}) if name.startswith("SM")]
            raise BuildError(
                f"{trt.__name__} cannot build for SM {args.ahead_of_time} without that GPU. "
                f"It can for: {', '.join(names) or 'none (only tensorrt_rtx can)'}.",
                "wrong_compute_capability",
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(member, 0)
    return config


def use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    """Everything that the DLA takes on it, the rest on the GPU; ``layers.json`` tells afterwards which is which.

    Raises:
        BuildError: This device has no such core, or this TensorRT builds for none.
    """
    cores = int(getattr(builder, "num_DLA_cores", 0) or 0)
    if core >= cores:
        raise BuildError(
            f"There is no DLA core {core} here: TensorRT {trt.__version__} sees {cores or 'none'}. Between 10.7 and "
            "11.4.1 no TensorRT builds for a DLA, and Orin Nano and Thor have none. --no-dla builds for the GPU.",
            "dla",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def load_plugin(library: str) -> None:
    """Load a library of plug-ins, which registers them.

    Raises:
        BuildError: It cannot be loaded.
    """
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise BuildError(f"The plug-in library cannot be loaded: {error}.", "plugin_missing") from error


def timing_cache(trt: Any, config: Any, args: argparse.Namespace, here: Any) -> Any:
    """Attach the timing cache; one of another version or device is left out, and written anew at the end.

    None where there is none: TensorRT-RTX times nothing.
    """
    if trt.__name__ != "tensorrt":
        return None
    file = Path(args.timing_cache)
    foreign = refusal(file, here) if file.is_file() else ""
    data = file.read_bytes() if file.is_file() and not foreign else b""
    cache = config.create_timing_cache(data)
    if not foreign and (cache is None or not config.set_timing_cache(cache, ignore_mismatch=False)):
        foreign = "TensorRT says that it is from another version or device."
    if not foreign:
        return cache
    print(f"The timing cache is not used, and is made anew: {foreign}", file=sys.stderr)
    cache = config.create_timing_cache(b"")
    return cache if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False) else None


def write_atomically(path: Path, data: bytes, passport: Any = None) -> None:
    """Write beside, then rename: a half-written file never has the final name. With a passport: where it was made."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
        if passport is not None:
            write_passport(path, passport)
    except OSError as error:
        raise from_os_error(path, error) from error
    finally:
        if part.exists():
            part.unlink()
