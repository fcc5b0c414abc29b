"""``report.json`` is what its committed schema says."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest

from edgeopt.bundle.document import SCHEMA_VERSION, Report
from edgeopt.bundle.layout import read_report, report_json
from edgeopt.bundle.schema import SCHEMA_FILE, report_schema, schema_text
from edgeopt.core.errors import BundleError
from edgeopt.core.measurement import Measurement


def test_the_committed_schema_is_the_models():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run python -m edgeopt.bundle.schema"


def test_the_command_writes_the_schema(tmp_path):
    script = (
        "import pathlib, runpy, sys; import edgeopt.bundle; "
        "pathlib.Path.write_text = lambda self, text, encoding: print(len(text)); "
        "runpy.run_module('edgeopt.bundle.schema', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == str(len(schema_text()))
    assert f"schema version {SCHEMA_VERSION}" in done.stdout


def test_the_schema_is_a_schema_and_a_real_document_fits_it(sample_report):
    jsonschema.Draft202012Validator.check_schema(report_schema())
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(report_json(sample_report)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("verdict"),
        lambda d: d.update(surprise=1),
        lambda d: d["candidates"][0].update(status="perhaps"),
        lambda d: d["candidates"][0]["measurements"][0].update(value="fast"),
        lambda d: d["candidates"][0]["measurements"][0].pop("unit"),
        lambda d: d.update(schema_version=2),
    ],
)
def test_a_document_of_another_form_does_not_fit_the_schema(sample_report, spoil):
    document = json.loads(report_json(sample_report))
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(report_schema()).validate(document)


def test_a_document_comes_back_equal(sample_report, tmp_path):
    (tmp_path / "report.json").write_text(report_json(sample_report), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == sample_report


def test_a_report_with_a_nan_is_not_written(sample_report):
    bad = Measurement(name="wall_s", value=float("nan"), unit="s")
    stage = sample_report.stages[0].model_copy(update={"wall": bad})
    report = sample_report.model_copy(update={"stages": (stage,)})
    with pytest.raises(BundleError, match=r"report holds a figure that is NaN.*stages\[0\]\.wall\.value = nan"):
        report_json(report)


def test_a_report_that_is_none_is_one_clear_error(tmp_path):
    with pytest.raises(BundleError, match="has no report"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text('{"schema_version": 1}')
    with pytest.raises(BundleError, match="report is malformed"):
        read_report(tmp_path / "report.json")


def test_a_measurement_with_neither_value_nor_reason_is_malformed(sample_report, tmp_path):
    document = json.loads(report_json(sample_report))
    document["stages"][0]["wall"]["value"] = None
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="either a value or a reason"):
        read_report(tmp_path / "report.json")


def test_the_shipped_candidate_is_the_one_that_is_marked(sample_report):
    assert isinstance(sample_report, Report)
    assert sample_report.shipped.id == "openvino-int8"
