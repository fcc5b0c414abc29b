"""This machine's browser as a device: every engine in a headless Chromium of its own, on onnxruntime-web."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.machine import describe_machine
from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.devices.base import demand_built
from edgeopt.devices.browser.chromium import find_chromium
from edgeopt.devices.browser.driver import Driver, Page
from edgeopt.devices.browser.runtime import PACKAGE, find_runtime, runtime_folder
from edgeopt.devices.browser.server import PageServer
from edgeopt.devices.browser.session import BrowserSession
from edgeopt.devices.facts import device_info
from edgeopt.targets.host import Host

__all__ = ["RUNS", "BrowserDevice"]

RUNS = ("onnxruntime", "ort-mobile", "null")
"""Runtimes whose engines a browser runs: ``.onnx`` and ``.ort`` files, through onnxruntime-web."""

_PAGE = Path(__file__).parent / "page"


class BrowserDevice:
    """A browser without a window; ``close`` (or the interpreter's end) ends whatever of it is left.

    Args:
        timeout_s: The longest that any one request may take.
        runtime: The folder of onnxruntime-web; None: where ``edgeopt devices setup browser`` puts it.

    Raises:
        DeviceError: There is no Chromium, or onnxruntime-web is not set up; what to do is in the message.
    """

    numerics_only = ""

    def __init__(self, *, timeout_s: float = 600.0, runtime: Path | None = None) -> None:
        self._timeout_s = timeout_s
        self._chromium = find_chromium()
        folder = runtime or runtime_folder()
        self._runtime = find_runtime(folder)
        self._driver = Driver(self._chromium.path)
        self._server = PageServer({"page": _PAGE, "runtime": folder})
        self._finalizer = weakref.finalize(self, _end, self._driver, self._server)
        self._graph = self._server.give("one-node.onnx", _one_node())
        self._numbers = itertools.count(1)
        self._probed: Mapping[str, Any] | None = None
        self._here = device_info(describe_machine())
        self.picture: Path | None = None
        """Where a picture of the page goes when a session ends in which inferences were timed."""

    @property
    def name(self) -> str:
        """E.g. ``Chromium 156 headless on AMD EPYC, 2 cores (x86_64)``."""
        return f"{self._chromium.name} headless on {self._here.name}"

    def info(self) -> DeviceInfo:
        """The browser, and the machine below it with its load and clock as they are now."""
        here = device_info(describe_machine())
        probed = self._probe()
        return here.model_copy(
            update={
                "name": self.name,
                # Figures are kept under what a machine is: another version is another machine.
                "system": f"{PACKAGE} {self._runtime.version}, {self._chromium.version}, {here.system}",
                "arch": "wasm32",
                "isa": tuple(probed["features"]),
                "conditions": {**here.conditions, **self._conditions(probed)},
            }
        )

    def machine(self) -> Mapping[str, Any]:
        """The reply to ``hello``: this machine as a page sees it."""
        probed = self._probe()
        told = describe_machine()
        return {
            **told,
            "arch": "wasm32",
            "flags": list(probed["features"]),
            "conditions": {**told["conditions"], **self._conditions(probed)},
        }

    def host(self) -> Host:
        """What the browser is to the question which targets it may stand for."""
        probed = self._probe()
        return Host(
            cpu=f"{self._chromium.name} on {self._here.cpu}",
            arch="wasm32",
            features=frozenset(probed["features"]),
            cores=int(probed["threads"]),
            memory_mib=self._here.memory_mib,
            model=self._chromium.name,
        )

    def demand(self, runtime: str, versions: str = "", module: str = "") -> str:  # noqa: ARG002 - as devices have it
        """The version of onnxruntime-web.

        Args:
            versions: Which will do, as a PEP 440 specifier; empty: any.

        Raises:
            DeviceError: A browser runs no engines of that runtime, or onnxruntime-web has another version.
        """
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415

        if runtime not in RUNS:
            raise DeviceError(
                "A browser does not run engines of this runtime.",
                got=repr(runtime),
                fix=f"It runs those of {', '.join(RUNS[:2])}; compile for the target browser-wasm.",
            )
        if not SpecifierSet(versions).contains(self._runtime.version):
            raise DeviceError(
                f"{PACKAGE} has another version than the target asks for.",
                got=f"{self._runtime.version}, wanted {versions}",
                fix="Run edgeopt devices setup browser.",
            )
        return self._runtime.version

    def open(self, engine: Engine, *, threads: int | None = None) -> BrowserSession:  # noqa: ARG002 - `load` has them
        """Start a fresh browser for ``engine``.

        Raises:
            DeviceError: The engine was not built, its files are missing, no browser can run it, or the browser does
                not start.
        """
        demand_built(engine)
        self.demand(engine.runtime)
        return BrowserSession(
            driver=self._driver,
            server=self._server,
            number=next(self._numbers),
            engine=engine,
            graph=self._graph,
            timeout_s=self._timeout_s,
            machine=self.machine,
            where=self.name,
            picture=self.picture,
        )

    def close(self) -> None:
        """End every browser, the driver and the server."""
        self._finalizer()

    def _probe(self) -> Mapping[str, Any]:
        """What the browser says of itself, asked once."""
        if self._probed is None:
            with Page(self._driver, f"{self._server.url}page/index.html") as page:
                self._probed = page.ask({"do": "probe"}, self._timeout_s)
        return self._probed

    def _conditions(self, probed: Mapping[str, Any]) -> dict[str, str]:
        return {
            "browser": f"{self._chromium.version}, headless",
            "onnxruntime_web": self._runtime.version,
            "clock_resolution_us": str(probed["clock_us"]),
            "cross_origin_isolated": "yes" if probed["isolated"] else "no: one thread, a coarse clock",
        }


def _end(driver: Driver, server: PageServer) -> None:
    driver.close()
    server.close()


def _one_node() -> bytes:
    """A graph that does nothing; opening it makes a page fetch and compile the runtime."""
    from onnx import TensorProto, helper  # noqa: PLC0415

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "one-node", ports[:1], ports[1:])
    opset = helper.make_opsetid("", 13)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())
