"""A gate's outcome as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from edgeopt.bundle.gate import GateResult, GateRow
from edgeopt.bundle.layout import REPORT_JSON
from edgeopt.core.fingerprint import hash_bytes
from edgeopt.report.format import plain
from edgeopt.report.gate_words import limit_words

__all__ = ["gate_sarif"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HELP = {
    "fp32": "Held against FP32 on the same runtime and samples, as the bundle recorded it.",
    "baseline": "Held against the baseline: samples paired, latencies in turns where both engines run here.",
    "absolute": "An absolute limit on a recorded figure.",
}


def gate_sarif(result: GateResult) -> str:
    """One rule per limit, one result per limit that does not hold.

    FAIL has the level ``error``; INCONCLUSIVE ``warning``, or ``note`` where it is let pass. What holds gives no
    result: code scanning shows every result as an alert, whatever its kind.
    """
    rules = [_rule(row) for row in result.rows]
    results = [_result(result, index, row) for index, row in enumerate(result.rows) if row.status != "PASS"]
    run = {
        "tool": {
            "driver": {
                "name": "edgeopt gate",
                "semanticVersion": result.edgeopt_version,
                "rules": rules,
            }
        },
        "automationDetails": {"id": f"edgeopt-gate/{quote(result.bundle.name)}/"},
        "invocations": [
            {"executionSuccessful": True, "exitCode": result.exit_code, "endTimeUtc": _utc(result.created)}
        ],
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "Where edgeopt gate was called."}}},
        "results": results,
        "properties": {"verdict": result.status, "notes": [plain(note) for note in result.notes]},
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(row: GateRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": "".join(part.capitalize() for part in row.id.replace(".", "_").split("_")),
        "shortDescription": {"text": limit_words(row)},
        "fullDescription": {"text": f"{limit_words(row)}. {_HELP[row.against]}"},
        "help": {"text": _HELP[row.against]},
        "defaultConfiguration": {"level": "error"},
    }


def _result(result: GateResult, index: int, row: GateRow) -> dict[str, Any]:
    uncertain = "warning" if result.on_inconclusive == "fail" else "note"
    uri, relative = _uri(result.bundle.path)
    place: dict[str, Any] = {"uri": uri} | ({"uriBaseId": "%SRCROOT%"} if relative else {})
    return {
        "ruleId": row.id,
        "ruleIndex": index,
        "level": "error" if row.status == "FAIL" else uncertain,
        "message": {"text": plain(row.text)},
        "locations": [{"physicalLocation": {"artifactLocation": place, "region": {"startLine": 1}}}],
        # The same limit of the same bundle is the same alert on the next run.
        "partialFingerprints": {"edgeoptLimit/v1": hash_bytes(f"{result.bundle.name}\0{row.id}".encode())},
        "properties": {"status": row.status, "value": row.figure.value, "limit": row.limit},
    }


def _uri(bundle: str) -> tuple[str, bool]:
    """The report's URI, and whether it is relative; outside of where the gate was called it is a ``file:`` URI."""
    path = PurePath(bundle) / REPORT_JSON
    if path.is_absolute():
        return path.as_uri(), False
    return quote(path.as_posix()), ".." not in path.parts


def _utc(created: str) -> str:
    return created.replace("+00:00", "Z")
