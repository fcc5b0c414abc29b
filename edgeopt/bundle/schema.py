"""The report's JSON Schema, made from its model: ``python -m edgeopt.bundle.schema`` updates the committed file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgeopt.bundle.document import SCHEMA_VERSION, Report

__all__ = ["SCHEMA_FILE", "report_schema", "schema_text"]

SCHEMA_FILE = Path(__file__).with_name("report.schema.json")


def report_schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json``, draft 2020-12."""
    schema = Report.model_json_schema(mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edgeopt:report:{SCHEMA_VERSION}",
    }
    return head | schema


def schema_text() -> str:
    """What ``report.schema.json`` must hold."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    sys.stdout.write(f"{SCHEMA_FILE}: schema version {SCHEMA_VERSION}\n")
