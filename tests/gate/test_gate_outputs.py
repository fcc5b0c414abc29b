"""What other programs read of a gate: JUnit, SARIF, Markdown, JSON; and the command line around them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from click.testing import CliRunner
from gate_bundles import drop, gate_bundle_at, plain_figure
from junitparser import Error, Failure, JUnitXml, Skipped

from edgeopt.bundle import gate_schemas
from edgeopt.bundle.baseline import read_recorded
from edgeopt.bundle.gate import GateResult
from edgeopt.bundle.gate_schemas import GATE_SCHEMAS, gate_schema_text
from edgeopt.cli.gate import gate
from edgeopt.pipeline.diff import diff_bundles
from edgeopt.pipeline.gate import gate_bundle
from edgeopt.report.gate_junit import gate_junit
from edgeopt.report.gate_markdown import gate_markdown
from edgeopt.report.gate_sarif import gate_sarif

# From npm's @microsoft/sarif-multitool-linux 5.7.0 (MIT licence, Microsoft), unchanged: the schema that OASIS
# publishes for SARIF 2.1.0, written in JSON Schema 2020-12.
SARIF = json.loads((Path(__file__).parent / "sarif-2.1.0.schema.json").read_text(encoding="utf-8"))
FIGURES = (drop(0.8, 0.1, 1.5), plain_figure("latency_p99_ms", 9.0, "ms"), plain_figure("size_mib", 1.0, "MiB"))
LIMITS = {"drop_pp": 1.0, "latency_p99_ms": 5.0, "size_mib": 2.0}


@pytest.fixture
def result(tmp_path) -> GateResult:
    """One limit of each verdict."""
    return gate_bundle(gate_bundle_at(tmp_path / "b", figures=FIGURES, limits=LIMITS))


def let_pass(result):
    rows = tuple(row for row in result.rows if row.status != "FAIL")
    return result.model_copy(update={"rows": rows, "status": "INCONCLUSIVE", "on_inconclusive": "pass", "exit_code": 0})


def sarif_problems(text):
    validator = jsonschema.Draft202012Validator(SARIF, format_checker=jsonschema.FormatChecker())
    return [error.message for error in validator.iter_errors(json.loads(text))]


class TestSarif:
    def test_it_is_valid_by_the_official_schema(self, result):
        assert sarif_problems(gate_sarif(result)) == []
        assert sarif_problems(gate_sarif(let_pass(result))) == []

    def test_the_check_can_fail(self, result):
        spoilt = json.loads(gate_sarif(result))
        spoilt["runs"][0]["results"][0]["level"] = "fatal"
        assert sarif_problems(json.dumps(spoilt))

    def test_a_rule_per_limit_and_a_result_per_limit_that_does_not_hold(self, result):
        (run,) = json.loads(gate_sarif(result))["runs"]
        rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert rules == [row.id for row in result.rows]
        found = {rules[one["ruleIndex"]]: one["level"] for one in run["results"]}
        assert found == {"limits.drop_pp": "warning", "limits.latency_p99_ms": "error"}
        assert all(one["ruleId"] == rules[one["ruleIndex"]] for one in run["results"])

    def test_an_inconclusive_limit_that_passes_is_a_note(self, result):
        (run,) = json.loads(gate_sarif(let_pass(result)))["runs"]
        assert [one["level"] for one in run["results"]] == ["note"]

    @pytest.mark.parametrize(
        ("path", "uri", "base"),
        [
            ("dist/my model", "dist/my%20model/report.json", "%SRCROOT%"),
            ("/srv/b", "file:///srv/b/report.json", None),
            ("../b", "../b/report.json", None),
        ],
    )
    def test_the_place_is_a_uri(self, result, path, uri, base):
        moved = result.model_copy(update={"bundle": result.bundle.model_copy(update={"path": path})})
        document = gate_sarif(moved)
        assert sarif_problems(document) == []
        place = json.loads(document)["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
        assert (place["uri"], place.get("uriBaseId")) == (uri, base)


class TestJunit:
    def test_a_case_per_limit_by_another_parser(self, result, tmp_path):
        path = tmp_path / "gate.xml"
        path.write_text(gate_junit(result), encoding="utf-8")
        (suite,) = JUnitXml.fromfile(str(path))
        cases = {case.name: [type(outcome) for outcome in case.result] for case in suite}
        assert cases == {
            "limits.drop_pp": [Error],
            "limits.latency_p99_ms": [Failure],
            "limits.size_mib": [],
        }
        assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 1, 0)
        counted = (suite.tests, suite.failures, suite.errors, suite.skipped)
        suite.update_statistics()
        assert (suite.tests, suite.failures, suite.errors, suite.skipped) == counted

    def test_an_inconclusive_limit_that_passes_is_skipped(self, result, tmp_path):
        path = tmp_path / "gate.xml"
        path.write_text(gate_junit(let_pass(result)), encoding="utf-8")
        (suite,) = JUnitXml.fromfile(str(path))
        assert [type(o) for case in suite for o in case.result] == [Skipped]

    def test_what_xml_forbids_is_written_out(self, result):
        row = result.rows[0].model_copy(update={"text": "a\x00b <&> \x1b[31m", "message": "\u202e"})
        text = gate_junit(result.model_copy(update={"rows": (row,)}))
        assert "\x1b" not in text
        assert ET.fromstring(text).find(".//error").get("message") == "a\\u0000b <&> \\u001b[31m"


class TestMarkdown:
    def test_a_row_per_limit(self, result):
        text = gate_markdown(result)
        assert text.startswith("## ❌ b: FAIL (1 of 3 limits)")
        for mark in ("✅ PASS", "❌ FAIL", "❔ INCONCLUSIVE"):
            assert mark in text

    def test_nothing_from_outside_is_markup(self, result):
        subject = result.bundle.model_copy(update={"recipe": "<img src=x> | [a](b)"})
        text = gate_markdown(result.model_copy(update={"bundle": subject}))
        assert re.search(r"(?<!\\)[<\[]", text) is None
        assert "\\| \\[a\\]" in text


def test_json_reads_back_to_the_same_result(result):
    assert GateResult.model_validate_json(result.model_dump_json()) == result


class TestTheCommand:
    def invoke(self, *arguments):
        return CliRunner().invoke(gate, [str(a) for a in arguments], standalone_mode=False)

    @pytest.mark.parametrize(("figure", "code"), [(drop(0, -1, 0.5), 0), (drop(3, 2, 4), 4), (drop(0.8, 0.1, 1.5), 5)])
    def test_the_exit_code_is_the_verdict(self, tmp_path, figure, code):
        bundle = gate_bundle_at(tmp_path / "b", figures=[figure], limits={"drop_pp": 1.0})
        done = self.invoke(bundle)
        assert done.return_value == code
        assert "limits.drop_pp ≤ 1 pp" in done.output

    def test_several_forms_at_once_each_in_its_file(self, tmp_path):
        bundle = gate_bundle_at(tmp_path / "b", figures=FIGURES, limits=LIMITS)
        forms = ("json", "junit", "sarif", "markdown", "text")
        arguments = [a for form in forms for a in ("--format", form, "-o", tmp_path / "out" / form)]
        assert self.invoke(bundle, *arguments).return_value == 4
        texts = {form: (tmp_path / "out" / form).read_text(encoding="utf-8") for form in forms}
        assert GateResult.model_validate_json(texts["json"]).exit_code == 4
        assert texts["junit"].startswith("<?xml")
        assert sarif_problems(texts["sarif"]) == []
        assert texts["markdown"].startswith("## ❌")
        assert "FAIL (1 of 3 limits)" in texts["text"]

    def test_two_forms_cannot_both_be_printed(self, tmp_path):
        with pytest.raises(Exception, match="Only one format can be printed"):
            CliRunner().invoke(gate, ["x", "-f", "json", "-f", "sarif"], standalone_mode=False, catch_exceptions=False)


class TestTheSchemas:
    @pytest.mark.parametrize("name", list(GATE_SCHEMAS))
    def test_the_committed_schema_is_the_models(self, name):
        committed = Path(gate_schemas.__file__).with_name(f"{name}.schema.json").read_text(encoding="utf-8")
        assert committed == gate_schema_text(name), "run python -m edgeopt.bundle.gate_schemas"

    def test_real_documents_fit(self, result, tmp_path):
        bundle = gate_bundle_at(tmp_path / "again", figures=FIGURES)
        documents = {
            "gate": result,
            "diff": diff_bundles(bundle, bundle),
            "baseline": read_recorded(bundle).document,
        }
        for name, document in documents.items():
            jsonschema.validate(json.loads(document.model_dump_json()), json.loads(gate_schema_text(name)))
