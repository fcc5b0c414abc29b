"""Qualcomm's Hexagon processor through ONNX Runtime's QNN provider: runs ``.onnx`` files with a context binary.

On a Snapdragon the binary runs on the processor; on x86-64 the same libraries simulate it: its numbers, not its speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .contract import RunnerError, first_useful_line
from .onnxruntime import OrtRunner, import_onnxruntime, session_options

__all__ = ["PROVIDER", "import_qnn", "open_runner", "open_session"]

PROVIDER = "QNNExecutionProvider"


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> OrtRunner:
    """Open an engine.

    Args:
        path: The ``.onnx`` file; its context binary lies beside it.
        options: ``provider`` (the provider's options) and ``config`` (session configuration entries).
        threads: For the nodes that the CPU runs.

    Raises:
        RunnerError: onnxruntime-qnn is absent, or refuses the file; its own words are in the message.
    """
    try:
        ort = import_qnn()
    except ImportError as error:
        raise RunnerError(f"onnxruntime-qnn cannot be imported: {error}") from error
    try:
        session = open_session(ort, path, options, threads)
    except Exception as error:
        raise RunnerError(f"QNN cannot open {Path(path).name}: {first_useful_line(error)}") from error
    return OrtRunner(session, ort.__version__, [PROVIDER])


def import_qnn() -> Any:
    """Onnxruntime with the QNN provider registered, once per process."""
    ort = import_onnxruntime()
    import onnxruntime_qnn  # noqa: PLC0415

    if not any(device.ep_name == PROVIDER for device in ort.get_ep_devices()):
        ort.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    return ort


def open_session(
    ort: Any, path: Path, options: Mapping[str, Any], threads: int | None, extra: Mapping[str, str] | None = None
) -> Any:
    """A session on the Hexagon libraries (HTP) of the package. ``extra``: further configuration entries."""
    import onnxruntime_qnn  # noqa: PLC0415

    made = session_options(ort, options, threads)
    for key, value in (extra or {}).items():
        made.add_session_config_entry(key, value)
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    provider = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
    provider.update({key: str(value) for key, value in options.get("provider", {}).items()})
    made.add_provider_for_devices(devices[:1], provider)
    return ort.InferenceSession(str(path), sess_options=made)
