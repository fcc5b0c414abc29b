"""A lint's outcome as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from edgeopt.backends.lint.document import LintResult, LintRow
from edgeopt.core.fingerprint import hash_bytes
from edgeopt.report.format import plain

__all__ = ["lint_sarif"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def lint_sarif(result: LintResult, *, strict: bool = False) -> str:
    """One rule per rule that was broken, one result per finding."""
    first = {row.rule: row for row in reversed(result.findings)}
    rules = sorted(first)
    run = {
        "tool": {
            "driver": {
                "name": "edgeopt lint",
                "semanticVersion": result.edgeopt_version,
                "rules": [_rule(first[rule]) for rule in rules],
            }
        },
        "automationDetails": {"id": f"edgeopt-lint/{quote(result.target)}/"},
        "invocations": [{"executionSuccessful": True, "exitCode": result.exit_code(strict=strict)}],
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "Where edgeopt lint was called."}}},
        "results": [_result(result, row, rules.index(row.rule)) for row in result.findings],
        "properties": {"target": result.target, "runtimes": list(result.runtimes), "opset": result.opset},
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(row: LintRow) -> dict[str, Any]:
    return {
        "id": row.rule,
        "shortDescription": {"text": plain(row.title)},
        "fullDescription": {"text": f"{plain(row.title)}. Source: {plain(row.source)}."},
        "help": {"text": plain(row.fix)},
        "defaultConfiguration": {"level": row.severity},
    }


def _result(result: LintResult, row: LintRow, index: int) -> dict[str, Any]:
    path = PurePath(result.model)
    outside = path.is_absolute()
    uri = path.as_uri() if outside else quote(path.as_posix())
    artifact: dict[str, Any] = {"uri": uri}
    if not outside and ".." not in path.parts:
        artifact["uriBaseId"] = "%SRCROOT%"
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}}
    if row.node is not None:
        location["logicalLocations"] = [{"name": plain(row.node), "kind": "element"}]
    return {
        "ruleId": row.rule,
        "ruleIndex": index,
        "level": row.severity,
        "message": {"text": plain(f"{row.runtime}: {row.message} {row.fix}".strip())},
        "locations": [location],
        # The same rule at the same node of the same graph is the same alert on the next run.
        "partialFingerprints": {
            "edgeoptLint/v1": hash_bytes("\n".join([path.name, row.runtime, row.rule, row.node or ""]).encode())
        },
    }
