"""A gate's outcome as JUnit XML, the form that CI services show as tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from edgeopt.bundle.gate import GateResult, GateRow
from edgeopt.report.format import plain
from edgeopt.report.gate_words import subject_words

__all__ = ["gate_junit"]


def gate_junit(result: GateResult) -> str:
    """One test case per limit.

    FAIL is a ``failure``. INCONCLUSIVE is an ``error``, since no assertion was decided and JUnit keeps that word for
    tests that could not come to a result; where it is let pass it is ``skipped``, so that the suite is green.
    """
    outcomes = [_outcome(result, row) for row in result.rows]
    counts = {
        "tests": str(len(result.rows)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
        "time": "0",
    }
    suites = ET.Element("testsuites", {"name": "edgeopt gate", **counts})
    name = plain(f"edgeopt gate {result.bundle.name}")
    stamp = result.created.partition("+")[0]
    suite = ET.SubElement(suites, "testsuite", {"name": name, **counts, "timestamp": stamp, "hostname": "localhost"})
    properties = ET.SubElement(suite, "properties")
    for key, text in _properties(result).items():
        ET.SubElement(properties, "property", {"name": key, "value": plain(text)})
    for row, outcome in zip(result.rows, outcomes, strict=True):
        case = ET.SubElement(
            suite, "testcase", {"name": plain(row.id), "classname": f"edgeopt.gate.{row.against}", "time": "0"}
        )
        if outcome == "skipped":
            ET.SubElement(case, "skipped", {"message": plain(row.text)})
        elif outcome:
            found = ET.SubElement(case, outcome, {"message": plain(row.text), "type": row.status})
            found.text = plain(f"{row.text} {row.message}")
        else:
            ET.SubElement(case, "system-out").text = plain(row.text)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _outcome(result: GateResult, row: GateRow) -> str:
    if row.status == "INCONCLUSIVE":
        return "error" if result.on_inconclusive == "fail" else "skipped"
    return "failure" if row.status == "FAIL" else ""


def _properties(result: GateResult) -> dict[str, str]:
    found = {"edgeopt": result.edgeopt_version, "verdict": result.status, "bundle": subject_words(result.bundle)}
    if result.baseline is not None:
        found["baseline"] = subject_words(result.baseline)
    return found | {f"note.{index}": note for index, note in enumerate(result.notes, 1)}
