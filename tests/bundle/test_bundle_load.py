"""A bundle that was damaged, or made by someone hostile, is one clear error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from sample_bundle import images, sample_bundle, sample_manifest

from edgeopt.bundle.layout import MANIFEST, REPORT_JSON, read_reference, write_json, write_reference
from edgeopt.bundle.load import load_bundle, verify_files
from edgeopt.bundle.manifest import EngineRecord, Manifest
from edgeopt.core.errors import BundleError


@pytest.fixture
def bundle(tmp_path) -> Path:
    return sample_bundle(tmp_path / "linear")


def edit(bundle: Path, name: str = MANIFEST, **changes) -> None:
    document = json.loads((bundle / name).read_text())
    (bundle / name).write_text(json.dumps(document | changes))


def test_a_bundle_comes_back_as_it_was_written(bundle, sample_report):
    loaded = load_bundle(str(bundle))
    assert loaded.manifest.model_copy(update={"files": {}}) == sample_manifest()
    assert loaded.engine.path == bundle / "engine" / "model.onnx"
    assert loaded.engine.inputs == sample_manifest().engine.inputs
    assert loaded.report == sample_report
    assert loaded.report is loaded.report


@pytest.mark.parametrize("batch", [None, 4])
def test_an_engine_comes_back_as_its_backend_made_it(tmp_path, batch):
    engine = load_bundle(sample_bundle(tmp_path / "linear", batch, engine={"options": {"threads": 1}})).engine
    record = EngineRecord.of(engine)
    assert record.batch == batch
    assert record.options == {"threads": 1}
    assert (record.inputs, record.outputs, record.entry) == (engine.inputs, engine.outputs, "model.onnx")


def test_the_report_is_read_on_first_use_only(bundle):
    (bundle / REPORT_JSON).write_text("{")
    loaded = load_bundle(bundle)
    with pytest.raises(BundleError, match="report is truncated"):
        _ = loaded.report


@pytest.mark.parametrize("what", ["nothing", "file", "folder"])
def test_what_is_no_bundle_is_said_to_be_none(tmp_path, what):
    path = tmp_path / "thing"
    if what == "file":
        path.write_text("")
    elif what == "folder":
        path.mkdir()
    with pytest.raises(BundleError, match=r"not an edgeopt bundle.*thing.*edgeopt compile"):
        load_bundle(path)


def test_another_programs_manifest_is_no_bundle(tmp_path):
    (tmp_path / MANIFEST).write_text('{"manifest_version": 3}')
    with pytest.raises(BundleError, match="another kind of manifest"):
        load_bundle(tmp_path)


def test_a_truncated_manifest_is_said_to_be_truncated(bundle):
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text[: len(text) // 2])
    with pytest.raises(BundleError, match="manifest is truncated or not JSON"):
        load_bundle(bundle)


@pytest.mark.parametrize("text", ["[" * 100_000, "\x00", '"text"', "[1]"])
def test_json_of_another_kind_is_one_clear_error(bundle, text):
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=r"not JSON|not a JSON object"):
        load_bundle(bundle)


def test_a_manifest_of_a_newer_edgeopt_says_so(bundle):
    edit(bundle, schema_version=2, edgeopt_version="9.0", something_new=1)
    with pytest.raises(BundleError, match=r"made by a newer edgeopt.*version 2.*up to 1.*edgeopt 9\.0.*pip install"):
        load_bundle(bundle)


def test_a_report_of_a_newer_edgeopt_says_so(bundle):
    edit(bundle, REPORT_JSON, schema_version=2)
    with pytest.raises(BundleError, match=r"newer edgeopt: report\.json"):
        _ = load_bundle(bundle).report


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": "many"}, "malformed.*seed"),
        ({"surprise": 1}, "malformed.*surprise"),
        ({"engine": None}, "malformed.*engine"),
        ({"schema_version": 0}, "malformed.*schema_version"),
    ],
)
def test_a_malformed_manifest_names_the_field(bundle, changes, match):
    edit(bundle, **changes)
    with pytest.raises(BundleError, match=match):
        load_bundle(bundle)


def test_a_manifest_with_an_impossible_tensor_is_malformed(bundle):
    document = json.loads((bundle / MANIFEST).read_text())
    document["engine"]["inputs"][0]["dtype"] = "complex64"
    (bundle / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"malformed.*complex64"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "engine/../../outside", "a\\..\\b", "C:x", "", ".", "./a", "a//b", "a\x00b"],
)
def test_a_path_that_could_leave_the_bundle_is_refused(bundle, name):
    document = json.loads((bundle / MANIFEST).read_text())
    edit(bundle, files=document["files"] | {name: {"sha256": "0" * 64, "bytes": 0}})
    with pytest.raises(BundleError, match=r"malformed.*could leave the bundle"):
        load_bundle(bundle)


@pytest.mark.parametrize("entry", ["../model.onnx", "/bin/sh"])
def test_an_engine_entry_that_could_leave_the_bundle_is_refused(bundle, entry):
    document = json.loads((bundle / MANIFEST).read_text())
    edit(bundle, engine=document["engine"] | {"entry": entry})
    with pytest.raises(BundleError, match="could leave the bundle"):
        load_bundle(bundle)


def test_an_engine_that_is_not_among_the_files_is_refused(bundle):
    document = json.loads((bundle / MANIFEST).read_text())
    edit(bundle, engine=document["engine"] | {"entry": "other.onnx"})
    with pytest.raises(BundleError, match=r"not among its files.*engine/other\.onnx"):
        load_bundle(bundle)


@pytest.mark.parametrize("complete", [True, False])
def test_a_link_that_leads_out_of_the_bundle_is_refused(bundle, complete):
    (bundle / "recipe.yaml").unlink()
    (bundle / "recipe.yaml").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match=r"link that leads out of it.*recipe\.yaml"):
        load_bundle(bundle, complete=complete)


def test_a_folder_link_that_leads_out_of_the_bundle_is_refused(bundle, tmp_path):
    (bundle / "engine").rename(tmp_path / "elsewhere")
    (bundle / "engine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="link that leads out of it"):
        load_bundle(bundle)


def test_a_link_loop_is_refused(bundle):
    (bundle / "recipe.yaml").unlink()
    (bundle / "recipe.yaml").symlink_to("recipe.yaml")
    with pytest.raises(BundleError, match=r"leads out of it|is missing"):
        load_bundle(bundle)


def test_a_bundle_may_itself_be_reached_through_a_link(bundle, tmp_path):
    (tmp_path / "latest").symlink_to(bundle)
    assert verify_files(load_bundle(tmp_path / "latest")) == []


@pytest.mark.parametrize("how", ["missing", "a fifo"])
def test_a_missing_file_is_named(bundle, how):
    (bundle / "target.yaml").unlink()
    if how == "a fifo":
        os.mkfifo(bundle / "target.yaml")
    with pytest.raises(BundleError, match=r"file of the bundle is missing.*target\.yaml"):
        load_bundle(bundle)


def test_every_file_that_is_not_as_written_is_listed(bundle):
    (bundle / "target.yaml").unlink()
    (bundle / "recipe.yaml").write_bytes((bundle / "recipe.yaml").read_bytes().replace(b"fp32", b"fp16"))
    (bundle / "calibration.json").write_text("{}")
    (bundle / "engine" / "extra.so").write_text("")
    problems = verify_files(load_bundle(bundle, complete=False))
    assert [(p.path, p.kind) for p in problems] == [
        ("calibration.json", "changed"),
        ("engine/extra.so", "unexpected"),
        ("recipe.yaml", "changed"),
        ("target.yaml", "missing"),
    ]
    assert "sha256" in str(problems[2])
    assert "2 bytes" in str(problems[0])


def test_a_manifest_is_never_made_with_an_unsafe_path():
    with pytest.raises(ValidationError, match="could leave the bundle"):
        Manifest.model_validate(sample_manifest().model_dump() | {"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}})


def test_a_figure_that_is_not_finite_is_never_written(tmp_path):
    with pytest.raises(BundleError, match=r"NaN or infinite.*ranges\.x\[1\] = inf"):
        write_json(tmp_path / "calibration.json", {"ranges": {"x": [0.0, float("inf")]}})


def test_reference_arrays_come_back_as_they_were(tmp_path):
    inputs, outputs = {"x": images(3)}, {"y": np.arange(3, dtype=np.int64)}
    write_reference(tmp_path, inputs, outputs)
    read_inputs, read_outputs = read_reference(tmp_path)
    np.testing.assert_array_equal(read_inputs["x"], inputs["x"])
    np.testing.assert_array_equal(read_outputs["y"], outputs["y"])
    assert read_outputs["y"].dtype == np.int64


@pytest.mark.parametrize(("n_in", "n_out"), [(17, 17), (0, 0), (3, 2)])
def test_reference_arrays_of_odd_lengths_are_refused(tmp_path, n_in, n_out):
    with pytest.raises(BundleError, match="between 1 and 16 samples"):
        write_reference(tmp_path, {"x": images(n_in)}, {"y": np.zeros(n_out)})


def test_a_bundle_without_reference_arrays_has_none(tmp_path):
    assert read_reference(tmp_path) is None


def test_reference_arrays_that_would_run_code_are_refused(tmp_path):
    write_reference(tmp_path, {"x": images(1)}, {"y": np.zeros(1)})
    np.savez(tmp_path / "reference_inputs.npz", x=np.array([print], dtype=object))
    with pytest.raises(BundleError, match="reference samples cannot be read"):
        read_reference(tmp_path)


def test_what_a_device_builds_into_an_unbuilt_bundle_is_expected(tmp_path):
    engine = {"status": "not_built", "entry": "model.plan", "next_command": "python3 build_engine.py"}
    bundle = sample_bundle(tmp_path / "linear", engine=engine)
    assert load_bundle(bundle).engine.status == "not_built"
    for name in ("model.plan", "layers.json", "timing.cache"):
        (bundle / "engine" / name).write_bytes(b"built here")
    loaded = load_bundle(bundle)
    assert loaded.engine.status == "built"
    assert verify_files(loaded) == []
    (bundle / "engine" / "other.plan").write_bytes(b"not this one")
    assert [problem.kind for problem in verify_files(loaded)] == ["unexpected"]
