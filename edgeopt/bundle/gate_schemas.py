"""JSON Schemas of what the gate writes: ``python -m edgeopt.bundle.gate_schemas`` updates the committed files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from edgeopt.bundle.baseline import BASELINE_VERSION, Baseline
from edgeopt.bundle.diff import DIFF_VERSION, BundleDiff
from edgeopt.bundle.gate import GATE_VERSION, GateResult

__all__ = ["GATE_SCHEMAS", "gate_schema_text"]

GATE_SCHEMAS: dict[str, tuple[type[BaseModel], int]] = {
    "gate": (GateResult, GATE_VERSION),
    "diff": (BundleDiff, DIFF_VERSION),
    "baseline": (Baseline, BASELINE_VERSION),
}
"""Name → model and schema version; the file is ``<name>.schema.json`` beside this one."""


def gate_schema_text(name: str) -> str:
    """What the file must hold: JSON Schema, draft 2020-12."""
    model, version = GATE_SCHEMAS[name]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:edgeopt:{name}:{version}"}
    return json.dumps(head | model.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for schema in GATE_SCHEMAS:
        file = Path(__file__).with_name(f"{schema}.schema.json")
        file.write_text(gate_schema_text(schema), encoding="utf-8")
        sys.stdout.write(f"{file}\n")
