# ruff: noqa: T201, PLC0415, BLE001 (a script whose every failure is one sentence)
"""Compiles the OpenVINO IR beside this script on the device that will run it.

    python3 build_blob.py                  # writes model.blob for the device in build.json
    python3 build_blob.py --device GPU.1   # another of the same kind

Needs Python 3.8 and ``openvino`` with the device's driver (GPU: Intel's compute runtime; NPU: Intel's NPU driver).
The blob belongs to this version of OpenVINO, this driver and this device; the IR beside it stays portable.

Exit codes: 0 built; 1 not built.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ADVICE = {
    "GPU": "Install Intel's compute runtime (intel-opencl-icd, level-zero) and give this user the group 'render'.",
    "NPU": "Install Intel's NPU driver (intel-level-zero-npu, firmware) and give this user the group 'render'.",
    "CPU": "The CPU is always there: this installation of OpenVINO is broken.",
}


def main(arguments: list[str] | None = None) -> int:
    """Compile and export; every failure is one sentence on stderr."""
    settings = json.loads((HERE / "build.json").read_text())
    parser = argparse.ArgumentParser(description="Compile the OpenVINO IR beside this script.")
    parser.add_argument("--device", default=settings["device"], help="OpenVINO's name (default: %(default)s)")
    device = parser.parse_args(arguments).device
    try:
        import openvino
    except ImportError as error:
        print(f"OpenVINO cannot be imported ({error}): pip install openvino", file=sys.stderr)
        return 1
    core = openvino.Core()
    there = list(core.available_devices)
    kind = device.partition(".")[0]
    if not any(found.partition(".")[0] == kind for found in there):
        print(f"OpenVINO sees no {kind} here, only {', '.join(there)}. {ADVICE.get(kind, '')}", file=sys.stderr)
        return 1
    try:
        compiled = core.compile_model(core.read_model(str(HERE / "model.xml")), device, settings["properties"])
        blob = exported(compiled)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        print(f"OpenVINO cannot compile the model for {device}: {' '.join(lines[-2:])}", file=sys.stderr)
        return 1
    partial = HERE / "model.blob.partial"
    partial.write_bytes(blob)
    partial.replace(HERE / "model.blob")
    print(f"Wrote model.blob ({len(blob):,} bytes) for {core.get_property(device, 'FULL_DEVICE_NAME')}.")
    print(f"OpenVINO {openvino.get_version().split('-')[0]}.")
    return 0


def exported(compiled: Any) -> bytes:
    """The compiled model's bytes: a stream in newer versions, bytes in older ones."""
    made = compiled.export_model()
    return bytes(made if isinstance(made, (bytes, bytearray)) else made.getvalue())


if __name__ == "__main__":
    sys.exit(main())
