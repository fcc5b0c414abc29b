"""One engine in one browser: requests of ``agent/protocol.py``, answered by a page instead of an agent."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgeopt.agent.protocol import PROTOCOL_VERSION
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.devices.browser.driver import Driver
from edgeopt.devices.browser.processes import BrowserProcesses
from edgeopt.devices.browser.server import PageServer
from edgeopt.devices.browser.wire import pack, unpack

__all__ = ["BrowserSession"]

_SHOWN = ("browser", "onnxruntime_web", "clock_resolution_us", "cross_origin_isolated", "load_average")


class BrowserSession:
    """A session (``devices/base.py``) with a page. Arrays are checked here, so that the page only runs them.

    Args:
        driver: Starts the browser.
        server: Where the page and everything it fetches lies.
        number: Of this session, unique in the run.
        engine: What ``load`` opens; its folder's other files are its external data.
        graph: The address of a graph of one node, which makes the page compile the runtime.
        timeout_s: The longest that any one request may take.
        machine: Gives the reply to ``hello``.
        where: What the page calls the machine.
        picture: Where a picture of the page goes when a session ends in which inferences were timed.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        server: PageServer,
        number: int,
        engine: Engine,
        graph: str,
        timeout_s: float,
        machine: Callable[[], Mapping[str, Any]],
        where: str,
        picture: Path | None,
    ) -> None:
        self._server, self._prefix = server, f"session-{number}/"
        self._engine, self._graph, self._timeout_s, self._machine = engine, graph, timeout_s, machine
        self._picture, self._where = picture, where
        self._directory = TemporaryDirectory(prefix="edgeopt-browser-", ignore_cleanup_errors=True)
        self._title = f"{engine.runtime} engine {engine.entry} in the browser"
        self._inputs: dict[str, tuple[str, list[int | str]]] = {}
        self._sample: dict[str, np.ndarray] = {}
        self._numbers = self._count = 0
        self._timed = False
        try:
            self._page = driver.open(f"{server.url}page/index.html")
        except BaseException:
            self._directory.cleanup()
            raise
        self._processes = BrowserProcesses(self._page.pid)

    @property
    def entry(self) -> str:
        """The engine's entry file."""
        return self._engine.entry

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its reply.

        Raises:
            DeviceError: The page answered with an error, or was lost, or did not answer in time.
        """
        answers: Mapping[str, Callable[..., dict[str, Any]]] = {
            "hello": self._hello,
            "state": self._processes.state,
            "energy": lambda seconds: {"unavailable": "a browser has no energy counter"},  # noqa: ARG005
            "layers": lambda n, warmup: {"unavailable": "onnxruntime-web has no profile of its layers"},  # noqa: ARG005
            "memory": self._processes.memory,
            "load": self._load,
            "infer": self._infer,
            "first": lambda inputs: self._chosen("first", self._read("first", inputs)),
            "inputs": self._inputs_of,
        }
        if do in answers:
            return answers[do](**arguments)
        reply = self._ask(do, arguments)
        if do == "time":
            self._timed = True
            reply["rss_mib"] = self._processes.resident_mib()
        return reply

    def _hello(self) -> dict[str, Any]:
        """Python's part of a session is this process's."""
        return {
            "protocol": PROTOCOL_VERSION,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pid": self._page.pid,
            "machine": dict(self._machine()),
        }

    def put(self, file: Path) -> str:
        """The host's files are read here: nothing is copied."""
        return str(file.absolute())

    def get(self, name: str, file: Path) -> None:
        """Copy a file that came of the page's outputs."""
        shutil.copyfile(Path(self._directory.name) / name, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._picture is not None and self._timed and self._engine.runtime != "null":
                self._show(self._picture)
        finally:
            self._page.close()
            self._server.forget(self._prefix)
            self._directory.cleanup()

    def _load(
        self,
        runtime: str,
        entry: str,  # noqa: ARG002 - the engine that this session was opened for
        options: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> dict[str, Any]:
        """Start the runtime, then open the engine; the two are timed apart."""
        options = options or {}
        started = self._ask(
            "start", {"runtime": f"{self._server.url}runtime/", "graph": self._graph, "threads": threads}
        )
        self._processes.started()
        engine = self._server.give(f"{self._prefix}engine", self._engine.path)
        external = {
            name: self._server.give(f"{self._prefix}external-{number}", self._engine.directory / name)
            for number, name in enumerate(_external_files(self._engine.path))
        }
        loaded = self._ask(
            "load",
            {
                "engine": engine,
                "external": external,
                "options": {key: options[key] for key in ("graph_optimization_level", "config") if key in options},
                "nothing": runtime == "null",
                "title": f"{self._engine.entry}, {runtime} engine",
            },
        )
        self._processes.loaded()
        self._inputs = {name: (str(port["dtype"]), list(port["shape"])) for name, port in loaded["inputs"].items()}
        return {**started, **loaded, "fallbacks": _left_out(options)}

    def _inputs_of(self, inputs: str, batch: int) -> dict[str, Any]:
        """Choose what inferences are timed on: the first ``batch`` samples of the file."""
        arrays = self._read("inputs", inputs)
        count = _samples(arrays)
        if count < batch:
            raise self._error(
                "inputs", f"The file holds {count} samples, fewer than the batch of {batch}.", "InputError"
            )
        return self._chosen("inputs", {name: array[:batch] for name, array in arrays.items()}, batch=batch)

    def _chosen(self, do: str, arrays: dict[str, np.ndarray], **arguments: Any) -> dict[str, Any]:
        self._check_batch(do, _samples(arrays))
        self._sample = arrays
        return self._ask(do, {**arguments, "inputs": self._given(arrays)})

    def _infer(self, inputs: str, outputs: str, batch: int) -> dict[str, Any]:
        """Run every sample of a file in batches, and write the outputs to another."""
        arrays = self._read("infer", inputs)
        found = self._run(arrays, batch)
        with (Path(self._directory.name) / outputs).open("wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]  # its stub takes the names for options
        return {"samples": _samples(arrays)}

    def _run(self, arrays: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """Outputs of all samples; the last batch is padded with its last sample, and the padding cut off again."""
        self._check_batch("infer", batch)
        count = _samples(arrays)
        rows = np.minimum(np.arange(-(-count // batch) * batch), count - 1)
        whole = arrays if len(rows) == count else {name: array[rows] for name, array in arrays.items()}
        name = f"{self._prefix}outputs"
        self._ask("infer", {"inputs": self._given(whole), "outputs": self._server.expect(name), "batch": batch})
        message = self._server.taken(name)
        if message is None:
            raise DeviceError(f"The {self._title} sent no outputs.")
        return {key: array[:count] for key, array in unpack(message).items()}

    def _given(self, arrays: Mapping[str, np.ndarray]) -> str:
        """The address of arrays; those before are no longer to be had."""
        self._server.forget(f"{self._prefix}arrays-")
        self._numbers += 1
        return self._server.give(f"{self._prefix}arrays-{self._numbers}", pack(arrays))

    def _read(self, do: str, file: str) -> dict[str, np.ndarray]:
        """A file's arrays, held to the engine's inputs: names, dtypes, equal sample counts, at least one."""
        expected = self._inputs
        if not expected:
            raise self._error(do, "No engine is loaded yet.", "OrderError")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        wrong = ""
        if set(arrays) != set(expected):
            wrong = f"The engine's inputs are {sorted(expected)}; received {sorted(arrays)}."
        elif odd := [name for name, array in arrays.items() if array.dtype != np.dtype(expected[name][0])]:
            wrong = f"Input {odd[0]!r} is {expected[odd[0]][0]}; received {arrays[odd[0]].dtype}."
        elif len({len(array) if array.ndim else 0 for array in arrays.values()}) != 1 or not _samples(arrays):
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            wrong = f"All inputs must hold the same number of samples, at least one; received {shapes}."
        if wrong:
            raise self._error(do, wrong, "InputError")
        return arrays

    def _check_batch(self, do: str, batch: int) -> None:
        fixed = {shape[0] for _, shape in self._inputs.values() if shape and isinstance(shape[0], int)}
        if fixed and fixed != {batch}:
            compiled = ", ".join(str(n) for n in sorted(fixed))
            what = f"The engine is compiled for a batch of {compiled} and cannot take {batch}."
            raise self._error(do, what, "BatchError")

    def _show(self, picture: Path) -> None:
        """Draw the latencies, and the outputs of one sample; save the picture."""
        outputs = self._run(self._sample, _samples(self._sample)) if self._sample else {}
        first = {name: np.nan_to_num(array[0].astype(np.float64)).ravel().tolist() for name, array in outputs.items()}
        conditions = self._machine()["conditions"]
        facts = {name: str(conditions[name]) for name in _SHOWN if name in conditions}
        self._ask("show", {"where": self._where, "facts": facts, "outputs": first})
        self._page.screenshot(picture)

    def _ask(self, do: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        reply = self._page.ask({"do": do, **arguments}, self._timeout_s)
        if "error" in reply:
            raise self._error(do, str(reply["error"]), str(reply.get("kind", "")))
        return reply

    def _error(self, do: str, what: str, kind: str) -> DeviceError:
        return DeviceError(f"The {self._title} failed at {do!r}: {what}", kind=kind)


def _samples(arrays: Mapping[str, np.ndarray]) -> int:
    first = next(iter(arrays.values()))
    return len(first) if first.ndim else 0


def _external_files(path: Path) -> list[str]:
    """The files that hold an ONNX file's weights, as it names them; none where the page is to find it malformed."""
    if path.suffix != ".onnx":
        return []
    import onnx  # noqa: PLC0415
    from onnx.external_data_helper import uses_external_data  # noqa: PLC0415

    try:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
    except Exception:  # noqa: BLE001 - whatever a malformed file makes it raise
        return []
    entries = (entry for tensor in tensors if uses_external_data(tensor) for entry in tensor.external_data)
    names = {entry.value for entry in entries if entry.key == "location"}
    folder = path.parent.resolve()
    return sorted(name for name in names if (folder / name).resolve().is_relative_to(folder))


def _left_out(options: Mapping[str, Any]) -> list[str]:
    """What an engine asks for that onnxruntime-web has no option for, as sentences."""
    asked = {
        "provider": [name for name in options.get("providers", []) if name != "CPUExecutionProvider"],
        "disabled optimizer": list(options.get("disabled_optimizers", [])),
    }
    return [
        f"The engine's {what} {name} means nothing to onnxruntime-web; it ran without."
        for what, names in asked.items()
        for name in names
    ]
