"""Runs a TensorRT (or TensorRT-RTX) engine on an NVIDIA GPU with nothing but NumPy and the CUDA runtime library.

Self-contained on purpose: edgeopt's runner uses it, and every TensorRT bundle carries a copy beside
``build_engine.py``. Standard library and NumPy only, Python 3.8.

Honesty: edgeopt's authors had no NVIDIA GPU. This file was exercised against a stand-in for TensorRT and for the CUDA
runtime, which shows that its bookkeeping (shapes, copies, frees, errors) is right, not that a GPU agrees.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# In the agent's package, or beside build_engine.py.
_passport: Any = importlib.import_module(f"{__package__}.engine_passport" if __package__ else "engine_passport")

__all__ = ["CudaError", "Execution", "load_cudart", "refuse_foreign"]

_TO_DEVICE, _TO_HOST = 1, 2
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class CudaError(RuntimeError):
    """The CUDA runtime, or TensorRT on top of it, reported a failure."""


class Execution:
    """A deserialized engine with an execution context and device buffers; a context manager.

    Attributes:
        inputs: Name → (NumPy dtype, shape); a dimension that may vary is -1.
        outputs: Likewise.
        batch_range: Smallest and largest first dimension that the engine's profile takes; None where it is fixed.
    """

    def __init__(self, plan: str, module: str = "tensorrt") -> None:
        """Deserialize ``plan``.

        Raises:
            CudaError: The file is no engine for this version and GPU, or there is no GPU.
            ImportError: ``module`` or the CUDA runtime is not installed.
        """
        self._trt: Any = importlib.import_module(module)
        self.version = str(self._trt.__version__)
        refuse_foreign(Path(plan), module, self.version)
        self._cuda: Any = load_cudart()
        self._buffers: dict[str, tuple[int, int]] = {}
        self._stream = ctypes.c_void_p()
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self.inputs: dict[str, tuple[str, list[int]]] = {}
        self.outputs: dict[str, tuple[str, list[int]]] = {}
        self.batch_range: tuple[int, int] | None = None
        try:
            self._open(plan)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once and wait for the results. ``inputs`` must be of the engine's dtypes and shapes.

        Raises:
            CudaError: TensorRT or CUDA reported a failure.
        """
        alive = []  # copies are asynchronous: their arrays must outlive them
        for name, array in inputs.items():
            if not self._context.set_input_shape(name, tuple(array.shape)):
                raise CudaError(f"The engine's profile does not take input {name!r} at shape {list(array.shape)}.")
            data = np.ascontiguousarray(array)
            pointer = self._buffer(name, data.nbytes)
            self._call("cudaMemcpyAsync", pointer, data.ctypes.data, data.nbytes, _TO_DEVICE, self._stream)
            alive.append(data)
            self._context.set_tensor_address(name, pointer)
        results = {}
        for name, (dtype, _) in self.outputs.items():
            results[name] = np.empty(tuple(self._context.get_tensor_shape(name)), dtype)
            self._context.set_tensor_address(name, self._buffer(name, results[name].nbytes))
        if not self._context.execute_async_v3(self._stream.value or 0):
            raise CudaError("TensorRT could not start the inference.")
        for name, array in results.items():
            pointer = self._buffers[name][0]
            self._call("cudaMemcpyAsync", array.ctypes.data, pointer, array.nbytes, _TO_HOST, self._stream)
        self._call("cudaStreamSynchronize", self._stream)
        del alive
        return results

    def close(self) -> None:
        """Free the device's memory. Safe to call twice."""
        for pointer, _ in self._buffers.values():
            self._cuda.cudaFree(ctypes.c_void_p(pointer))
        self._buffers.clear()
        if self._stream:
            self._cuda.cudaStreamDestroy(self._stream)
            self._stream = ctypes.c_void_p()
        self._context = self._engine = self._runtime = None

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, plan: str) -> None:
        self._call("cudaStreamCreate", ctypes.byref(self._stream))
        self._logger = self._trt.Logger(self._trt.Logger.WARNING)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(Path(plan).read_bytes())
        if self._engine is None:
            raise CudaError(
                f"{self._trt.__name__} {self.version} cannot read {Path(plan).name}: an engine runs only with "
                "the version and on the GPU that it was built for. Build it again here with build_engine.py."
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise CudaError("The engine needs more GPU memory than is free.")
        self._describe()

    def _describe(self) -> None:
        engine, mode = self._engine, self._trt.TensorIOMode
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name)
            dtype = _DTYPES.get(getattr(kind, "name", str(kind)).rsplit(".", 1)[-1])
            if dtype is None:
                raise CudaError(f"Tensor {name!r} has type {kind}, which NumPy does not have.")
            is_input = engine.get_tensor_mode(name) == mode.INPUT
            shape = [int(dim) for dim in engine.get_tensor_shape(name)]
            (self.inputs if is_input else self.outputs)[name] = (dtype, shape)
            if is_input and shape and shape[0] == -1:
                low, _, high = engine.get_tensor_profile_shape(name, 0)
                self.batch_range = (int(low[0]), int(high[0]))

    def _buffer(self, name: str, size: int) -> int:
        """A device buffer of at least ``size`` bytes, kept from run to run."""
        pointer, there = self._buffers.get(name, (0, 0))
        if there < size:
            if pointer:
                del self._buffers[name]
                self._call("cudaFree", ctypes.c_void_p(pointer))
            new = ctypes.c_void_p()
            self._call("cudaMalloc", ctypes.byref(new), ctypes.c_size_t(max(size, 1)))
            pointer = int(new.value or 0)
            self._buffers[name] = (pointer, size)
        return pointer

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._cuda, function)(*arguments)
        if status != 0:
            said = self._cuda.cudaGetErrorString(status)
            raise CudaError(f"{function} failed with error {status}: {(said or b'').decode()}.")


def refuse_foreign(plan: Path, module: str, version: str) -> None:
    """Name an engine of another version or GPU, or a truncated one, before TensorRT sees it.

    Raises:
        CudaError: Its passport says that it is one.
    """
    if _passport.read_passport(plan) is None:
        return
    foreign = _passport.refusal(plan, _passport.passport_of(module, version))
    if foreign:
        raise CudaError(f"{foreign} An engine runs only where it was built: build it again here.")


def load_cudart() -> Any:
    """The CUDA runtime library: the system's, or the one that pip's NVIDIA packages bring.

    Raises:
        ImportError: There is none.
    """
    found = ctypes.util.find_library("cudart")
    names = [found] if found else []
    names += ["libcudart.so", *(f"libcudart.so.{major}" for major in ("13", "12", "11.0"))]
    for folder in map(Path, sys.path):
        for pattern in ("nvidia/cuda_runtime/lib/libcudart.so.*", "nvidia/cu*/lib/libcudart.so.*"):
            names += sorted(map(str, folder.glob(pattern)))
    names += sorted(map(str, Path("/usr/local").glob("cuda*/lib64/libcudart.so")))
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return _declare(library)
    raise ImportError("The CUDA runtime (libcudart) is not here: install CUDA, or pip's nvidia-cuda-runtime package.")


def _declare(library: Any) -> Any:
    pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.cudaStreamCreate.argtypes = [ctypes.POINTER(pointer)]
    library.cudaStreamDestroy.argtypes = [pointer]
    library.cudaStreamSynchronize.argtypes = [pointer]
    library.cudaMalloc.argtypes = [ctypes.POINTER(pointer), size]
    library.cudaFree.argtypes = [pointer]
    library.cudaMemcpyAsync.argtypes = [pointer, pointer, size, integer, pointer]
    library.cudaGetErrorString.argtypes = [integer]
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library
