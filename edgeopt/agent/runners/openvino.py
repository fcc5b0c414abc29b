"""OpenVINO: runs an IR (``model.xml`` beside ``model.bin``) or a compiled model (``model.blob``) at a static shape."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .contract import BatchError, Ports, RunnerError, check_inputs, first_useful_line
from .layers import openvino_layers
from .openvino_streams import StreamPool

__all__ = ["OpenVinoRunner", "compile_properties", "import_openvino", "open_runner"]

_TELEMETRY = "openvino_telemetry"


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> OpenVinoRunner:
    """Open an engine.

    Args:
        path: The IR's ``.xml`` file; or a compiled model, the IR beside it. Where OpenVINO refuses the compiled one
            (another version, another instruction set, damage), the IR is compiled anew, and that is said.
        options: ``device``, ``inputs`` and ``outputs`` (the ONNX graph's names in its order), ``dynamic_batch`` (the
            inputs whose first dimension was dynamic), ``properties`` (further compile properties).
        threads: Inference threads; None lets OpenVINO choose.

    Raises:
        RunnerError: OpenVINO is absent or refuses the file; its own words are in the message.
    """
    try:
        ov = import_openvino()
    except ImportError as error:
        raise RunnerError(f"openvino cannot be imported: {error}") from error
    blob = Path(path) if Path(path).suffix == ".blob" else None
    if blob is not None and not blob.is_file():
        raise RunnerError(f"OpenVINO cannot open {blob.name}: there is no such file.")
    try:
        # A blob that a Core with CACHE_DIR wrote does not open in another one: that property is never set.
        core = ov.Core()
        model = core.read_model(str(blob.with_suffix(".xml") if blob else path))
        return OpenVinoRunner(ov, core, model, options, threads, blob=blob)
    except RunnerError:
        raise
    except Exception as error:
        raise RunnerError(f"OpenVINO cannot open {Path(path).name}: {first_useful_line(error)}") from error


def import_openvino() -> Any:
    """Import openvino without its telemetry.

    ``import openvino`` alone imports ``openvino.tools.ovc``, which sends an event to Intel's statistics server unless
    the user opted out. Where the package ``openvino_telemetry`` cannot be imported, ovc uses its own silent stub.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        import openvino  # noqa: PLC0415

        return openvino
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        import openvino  # noqa: PLC0415
    finally:
        del sys.modules[_TELEMETRY]
    return openvino


def compile_properties(options: Mapping[str, Any], threads: int | None) -> dict[str, Any]:
    """What the model is compiled with: latency, one stream, and float32 where the graph says float32."""
    made: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Without it, CPUs with native bfloat16 run a float32 graph in bfloat16.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if options.get("device", "CPU") == "CPU":
        # A product with a quantized weight and a float input is computed in float. OpenVINO's own default (32) quantizes
        # the input to int8 on the fly, in groups of 32, which the graph does not say.
        made["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        # Two engines that are measured in turns must not be pinned to one core.
        made["ENABLE_CPU_PINNING"] = False
        if threads is not None:
            made["INFERENCE_NUM_THREADS"] = threads
    made.update(options.get("properties", {}))
    return made


class OpenVinoRunner:
    """A compiled model in memory."""

    def __init__(
        self,
        ov: Any,
        core: Any,
        model: Any,
        options: Mapping[str, Any],
        threads: int | None,
        *,
        blob: Path | None = None,
    ) -> None:
        self._core, self._model = core, model
        self._tensor = partial(ov.Tensor, shared_memory=True)
        self._held: list[np.ndarray] = []
        self._bound: dict[str, np.ndarray] | None = None
        self._device = options.get("device", "CPU")
        self._properties = compile_properties(options, threads)
        self._dynamic = list(options.get("dynamic_batch", []))
        self._input_names = list(options.get("inputs") or [port.get_any_name() for port in model.inputs])
        self._output_names = list(options.get("outputs") or [port.get_any_name() for port in model.outputs])
        self.version = ov.get_version().split("-")[0]
        self.fallbacks: list[str] = []
        self._streams: StreamPool | None = None
        self._batch = 0
        self._compile(blob)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            RunnerError: The inputs are not the engine's, or the run failed.
        """
        if self._request is None:
            raise RunnerError("The engine is closed.")
        try:
            if self._streams is not None:
                check_inputs(inputs, self.inputs)
                return self._streams.infer(inputs, self._batch, self._output_names)
            # The same arrays as before are bound already, as a C++ application binds its buffers once: what Python does
            # between two inferences finds the caches emptied, and costs several times what it costs alone.
            if not self._has_bound(inputs):
                self._bind(inputs)
            results = self._request.infer()  # its own handling of arguments would add 0.1 ms
            return dict(zip(self._output_names, results.to_tuple()))
        except RunnerError:
            raise
        except Exception as error:
            raise RunnerError(f"OpenVINO failed while running: {first_useful_line(error)}") from error

    def bound(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """One inference on these arrays, bound once; the outputs stay in OpenVINO, as in an application in C++.

        Raises:
            RunnerError: The inputs are not the engine's, or the run failed.
        """
        self.infer(inputs)
        # The class below Python's wrapper, which turns arguments into tensors and copies every output.
        below: Any = next((c for c in type(self._request).__mro__ if c.__module__ == "openvino._pyopenvino"), None)
        if self._streams is not None or below is None:
            return partial(self.infer, inputs)
        run = partial(below.infer, self._request, {}, share_outputs=True, decode_strings=False)
        try:
            run()
        except TypeError:  # a version with other arguments
            return partial(self.infer, inputs)
        return run

    def last_ns(self) -> int:
        """How long the last inference took by OpenVINO's own clock, which a C++ application's agrees with."""
        return int(self._request.latency * 1e6)

    def layers(self, inputs: Mapping[str, np.ndarray], n: int, warmup: int) -> list[dict[str, Any]]:
        """Time each layer, in a second compilation of the same engine; see ``layers.openvino_layers``.

        Raises:
            RunnerError: The engine cannot be compiled or run with performance counters.
        """
        check_inputs(inputs, self.inputs)
        arrays = [np.require(inputs[name], requirements="C") for name in self._input_names]
        try:
            compiled = self._core.compile_model(self._model, self._device, {**self._properties, "PERF_COUNT": True})
            tensors = {index: self._tensor(array) for index, array in enumerate(arrays)}
            return openvino_layers(compiled, tensors, n, warmup)
        except Exception as error:
            raise RunnerError(f"OpenVINO failed with its counters on: {first_useful_line(error)}") from error

    def _has_bound(self, inputs: Mapping[str, np.ndarray]) -> bool:
        bound = self._bound
        return bound is not None and len(inputs) == len(bound) and all(inputs.get(n) is bound[n] for n in bound)

    def _bind(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Make the request read these arrays. It keeps bare pointers, so the arrays are held until the next are bound."""
        self._bound = None
        check_inputs(inputs, self.inputs)
        arrays = [np.require(inputs[name], requirements="C") for name in self._input_names]
        for index, array in enumerate(arrays):
            self._request.set_input_tensor(index, self._tensor(array))
        self._held = arrays
        if all(inputs[name] is array for name, array in zip(self._input_names, arrays)):
            self._bound = dict(inputs)

    def resize(self, batch: int) -> None:
        """Reshape to another batch and compile again.

        Raises:
            BatchError: The graph's own batch was fixed, or OpenVINO cannot reshape it.
        """
        if self._streams is not None and self._spread(batch):
            return
        moving = self._dynamic or [name for name in self._input_names if self.inputs[name][1]]
        if all(self.inputs[name][1][0] == batch for name in moving):
            return
        if not self._dynamic:
            raise BatchError(f"The graph has a fixed batch; it cannot run at {batch}.")
        shapes = {
            index: [batch, *self.inputs[name][1][1:]] if name in self._dynamic else self.inputs[name][1]
            for index, name in enumerate(self._input_names)
        }
        try:
            self._model.reshape(shapes)
            self._compile()
        except Exception as error:
            raise BatchError(f"OpenVINO cannot reshape to batch {batch}: {first_useful_line(error)}") from error

    def _spread(self, batch: int) -> bool:
        """Whether ``batch`` is a multiple of what was compiled: its pieces then run on the streams side by side."""
        if not self._dynamic or batch % self._size:
            return False
        for ports, varying in ((self.inputs, self._dynamic), (self.outputs, self._output_names)):
            for name in varying:
                ports[name][1][0] = batch
        self._batch = batch
        return True

    def _compile(self, blob: Path | None = None) -> None:
        self._compiled: Any = self._opened(blob) or self._core.compile_model(
            self._model, self._device, self._properties
        )
        self._request: Any = self._compiled.create_infer_request()
        self._bound = None
        self.inputs: Ports = {name: _port(port) for name, port in zip(self._input_names, self._compiled.inputs)}
        self.outputs: Ports = {name: _port(port) for name, port in zip(self._output_names, self._compiled.outputs)}
        ran_on = list(self._compiled.get_property("EXECUTION_DEVICES"))
        self.fallbacks += [
            f"{self._device} was asked for; {device} runs instead."
            for device in ran_on
            if device.partition(".")[0] != self._device.partition(".")[0]
        ]
        streams = int(self._properties.get("NUM_STREAMS", 1))
        if streams > 1 and self._dynamic and self._is_per_sample():
            self._size = self._batch = int(self.inputs[self._dynamic[0]][1][0])
            requests = [self._compiled.create_infer_request() for _ in range(streams)]
            self._streams = StreamPool(requests, self._tensor, self._size, self._input_names, self._dynamic)

    def _is_per_sample(self) -> bool:
        """Whether every output has the batch as its first dimension, so that pieces can be put together."""
        size = self.inputs[self._dynamic[0]][1][0]
        return all(shape and shape[0] == size for _, shape in self.outputs.values())

    def _opened(self, blob: Path | None) -> Any:
        """The compiled model as it was written; None where there is none, or OpenVINO refuses it."""
        if blob is None:
            return None
        try:
            return self._core.import_model(blob.read_bytes(), self._device, self._properties)
        except Exception as error:  # noqa: BLE001 (whatever it is, the IR is there)
            why = first_useful_line(error)
            self.fallbacks = [
                f"{blob.name} is damaged, or made with another OpenVINO or instruction set; model.xml was compiled instead ({why})."
            ]
            return None

    def __enter__(self) -> OpenVinoRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request = self._compiled = self._model = self._core = self._streams = None
        self._held, self._bound = [], None


def _port(port: Any) -> Any:
    shape = [dim.get_length() if dim.is_static else "?" for dim in port.get_partial_shape()]
    return str(np.dtype(port.get_element_type().to_dtype())), shape
