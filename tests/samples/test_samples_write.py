"""What a sample application holds, and which bundles it is refused for."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from sample_bundle import images
from sample_inputs import phone_bundle

from edgeopt.bundle.layout import REFERENCE_INPUTS, read_reference
from edgeopt.bundle.manifest import ModelRecord
from edgeopt.cli.main import cli
from edgeopt.core.errors import BundleError, EdgeOptError
from edgeopt.core.spec import TensorSpec
from edgeopt.samples.write import PLATFORMS, write_sample

ANDROID = {
    "README.md",
    "settings.gradle.kts",
    "build.gradle.kts",
    "gradle.properties",
    "app/build.gradle.kts",
    "app/src/main/AndroidManifest.xml",
    *(
        f"app/src/main/kotlin/dev/edgeopt/sample/{name}.kt"
        for name in ("Contract", "Engine", "MainActivity", "Preprocess", "Runs", "SelfTest")
    ),
}
IOS = {
    "README.md",
    "project.yml",
    *(f"Sources/{name}.swift" for name in ("ContentView", "Contract", "Engine", "Preprocess", "SampleApp", "SelfTest")),
}
CARRIED = {"manifest.json", "model.onnx", "selftest.json", "input0.bin", "output0.bin"}


@pytest.mark.parametrize(("platform", "sources"), [("android", ANDROID), ("ios", IOS)])
def test_a_sample_holds_sources_engine_manifest_and_reference_samples(tmp_path, platform, sources):
    bundle = phone_bundle(tmp_path / "bundle")
    made = write_sample(bundle, platform, tmp_path / "app")
    place = PLATFORMS[platform]
    assert set(made.files) == sources | {f"{place}/{name}" for name in CARRIED}
    carried = made.directory / place
    assert (carried / "model.onnx").read_bytes() == (bundle / "engine" / "model.onnx").read_bytes()
    assert (carried / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    assert not any("{{" in p.read_text() or "{%" in p.read_text() for p in made.directory.rglob("*.*") if is_text(p))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".edgeopt")] == []


def is_text(path):
    return path.is_file() and path.suffix in {".kt", ".kts", ".swift", ".md", ".yml", ".xml", ".properties"}


def test_the_self_test_is_the_bundles_reference_samples_in_raw_numbers(tmp_path):
    bundle = phone_bundle(tmp_path / "bundle")
    folder = write_sample(bundle, "ios", tmp_path / "app").directory / "bundle"
    document = json.loads((folder / "selftest.json").read_text())
    inputs, outputs = read_reference(bundle)
    assert (document["samples"], document["share"]) == (4, 1e-4)
    for record, wanted in ((document["inputs"][0], inputs["x"]), (document["outputs"][0], outputs["logits"])):
        read = np.frombuffer((folder / record["file"]).read_bytes(), f"<{np.dtype(record['dtype']).str[1:]}")
        np.testing.assert_array_equal(read.reshape(record["shape"]), wanted[:4])
    np.testing.assert_array_equal(inputs["x"], images(8))


def test_gradle_gets_the_runtimes_version_and_the_targets_abi_and_xml_and_yaml_parse(tmp_path):
    bundle = phone_bundle(tmp_path / "bundle", runtime_version="1.31.1.dev20260101")
    android = write_sample(bundle, "android", tmp_path / "a").directory
    gradle = (android / "app/build.gradle.kts").read_text()
    assert 'com.microsoft.onnxruntime:onnxruntime-android:1.31.1"' in gradle
    assert 'abiFilters += listOf("arm64-v8a")' in gradle
    assert ET.parse(android / "app/src/main/AndroidManifest.xml").getroot().tag == "manifest"
    project = yaml.safe_load((write_sample(bundle, "ios", tmp_path / "i").directory / "project.yml").read_text())
    assert project["packages"]["onnxruntime"]["from"] == "1.31.1"
    assert project["targets"]["linear"]["dependencies"] == [{"package": "onnxruntime", "product": "onnxruntime"}]


def test_a_name_from_outside_stays_a_name(tmp_path):
    model = ModelRecord(name='x" /><evil a="$(rm)`\n', format="onnx", sha256="ab" * 32)
    bundle = phone_bundle(tmp_path / "bundle", model=model, target="`t`\n# more")
    android = write_sample(bundle, "android", tmp_path / "a").directory
    assert 'rootProject.name = "x-evil-a-rm"' in (android / "settings.gradle.kts").read_text()
    label = "{http://schemas.android.com/apk/res/android}label"
    application = ET.parse(android / "app/src/main/AndroidManifest.xml").getroot().find("application")
    assert application.get(label) == "x-evil-a-rm"
    assert "\n# more" not in (android / "README.md").read_text()


def test_the_readme_states_tolerance_preprocessing_and_what_was_not_run(tmp_path):
    readme = (write_sample(phone_bundle(tmp_path / "b"), "ios", tmp_path / "a").directory / "README.md").read_text()
    assert "1e-4 of each output's range" in readme
    assert "resize to 4 x 6 (bilinear); multiply by 1/255" in readme
    assert "`session.enable_saved_runtime_optimizations=1`" in readme
    assert "not run on a phone" in readme


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": "openvino"}, r"open engines of ONNX Runtime\. Received: an engine for openvino\. Compile"),
        ({"precision": "int3"}, r"precision that edgeopt does not know\. Received: 'int3'"),
        ({"runtime_version": "latest"}, r"runtime version cannot be read\. Received: 'latest'"),
        ({"record": {"scale": None}}, r"does not state the scale of its input.*compile the model again"),
        (
            {"engine": {"inputs": (TensorSpec(name="x", dtype="float16", shape=("batch", 2, 4, 6)),)}},
            r"ios sample does not handle this type\. Received: x:float16.*It has float32, int8, uint8",
        ),
        (
            {"engine": {"inputs": (TensorSpec(name="x", dtype="float32", shape=("batch", 2, "h", 6)),)}},
            r"feed fixed sizes, and an input varies beyond its batch\. Received: x:float32\[batch,2,h,6\]",
        ),
    ],
)
def test_a_bundle_that_the_sources_could_not_run_is_refused(tmp_path, changes, message):
    bundle = phone_bundle(tmp_path / "bundle", **changes)
    with pytest.raises(BundleError, match=message):
        write_sample(bundle, "ios", tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_a_changed_bundle_is_refused(tmp_path):
    bundle = phone_bundle(tmp_path / "bundle")
    (bundle / "recipe.yaml").write_text("changed: true\n")
    with pytest.raises(BundleError, match=r"not as it was written\. Received: recipe\.yaml"):
        write_sample(bundle, "android", tmp_path / "app")


def test_a_bundle_without_reference_samples_is_refused(tmp_path):
    bundle = phone_bundle(tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"][REFERENCE_INPUTS]
    (bundle / REFERENCE_INPUTS).unlink()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no reference samples, so an application could not test itself"):
        write_sample(bundle, "android", tmp_path / "app")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_an_unknown_platform_lists_the_known_ones(tmp_path):
    with pytest.raises(EdgeOptError, match=r"no sample for that platform\. Received: 'androit'\. Known: android, ios"):
        write_sample(tmp_path, "androit", tmp_path / "app")


def test_a_folder_that_holds_something_is_left_alone_and_an_empty_one_is_filled(tmp_path):
    bundle = phone_bundle(tmp_path / "bundle")
    (tmp_path / "app").mkdir()
    assert write_sample(bundle, "ios", tmp_path / "app").samples == 4
    with pytest.raises(BundleError, match="there and not empty; nothing is overwritten"):
        write_sample(bundle, "ios", tmp_path / "app")


def test_the_command_says_what_it_wrote_and_that_nothing_ran(tmp_path):
    bundle = phone_bundle(tmp_path / "bundle")
    said = CliRunner().invoke(cli, ["sample", "android", str(bundle), "-o", str(tmp_path / "a")])
    assert said.exit_code == 0, said.output
    assert "17 files, 4 reference samples" in said.output
    assert "Not run on a phone" in said.output
    asked = CliRunner().invoke(cli, ["sample", "ios", str(bundle), "-o", str(tmp_path / "i"), "--json"])
    assert json.loads(asked.output)["files"][0] == "README.md"
