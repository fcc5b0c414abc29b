"""The report and ``edgeopt inspect`` say what the data's targets are, and what else is known of its samples."""

from __future__ import annotations

import io

from rich.console import Console
from sample_bundle import sample_bundle

from edgeopt.bundle.load import load_bundle
from edgeopt.bundle.manifest import DataRecord
from edgeopt.report.inspect import render_bundle
from edgeopt.report.markdown import to_markdown

COLUMNS = ("lighting", "device_id")


def shown(tmp_path, **more) -> str:
    record = DataRecord(name="road", fingerprint="cd" * 32, splits=(), **more)
    console = Console(file=io.StringIO(), width=200)
    render_bundle(load_bundle(sample_bundle(tmp_path / "bundle", data=record)), console)
    return console.file.getvalue()


def test_inspect_names_task_and_columns(tmp_path):
    assert "road, segmentation, columns lighting, device_id, fingerprint cdcd" in shown(
        tmp_path, task="segmentation", columns=COLUMNS
    )


def test_inspect_leaves_out_what_an_older_bundle_does_not_say(tmp_path):
    assert "road, fingerprint cdcd" in shown(tmp_path)


def test_the_report_names_task_and_columns(sample_report):
    assert sample_report.data.task in to_markdown(sample_report)
    assert "told apart by" not in to_markdown(sample_report)
    data = sample_report.data.model_copy(update={"task": "detection", "columns": COLUMNS})
    text = to_markdown(sample_report.model_copy(update={"data": data}))
    assert ", detection, fingerprint" in text
    assert "told apart by lighting, device" in text
