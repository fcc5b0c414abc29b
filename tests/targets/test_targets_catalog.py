"""The catalog: every shipped target is sound, found by each of its names, and malformed ones are refused clearly."""

import re
import shutil
from importlib.metadata import EntryPoint

import pytest

from edgeopt.core.errors import TargetError
from edgeopt.targets import load
from edgeopt.targets.load import dump_target, find_target, list_targets, read_target

EXPECTED = [
    "android-arm64",
    "android-xnnpack",
    "jetson-agx-orin",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-thor",
    "local",
    "local-xnnpack",
    "openvino-cpu",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "rtx-ada",
    "rtx-ampere",
    "x86-avx2",
    "x86-vnni",
]
DIALECTS = {
    *("neutral", "ort-x86", "ort-x86-novnni", "ort-arm", "openvino", "openvino-novnni", "tensorrt", "xnnpack"),
}
SHIPPED = sorted(load._CATALOG.glob("*.yaml"))


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """A catalog folder that a test may write into; entry points are out of the way."""
    monkeypatch.setattr(load, "_CATALOG", tmp_path)
    monkeypatch.setattr(load, "entry_points", lambda group: [])
    return tmp_path


def text_of(name):
    return (load_shipped() / f"{name}.yaml").read_text()


def load_shipped():
    return SHIPPED[0].parent


def test_the_shipped_targets_are_these_sorted_by_name():
    assert [target.name for target in list_targets()] == EXPECTED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_each_file_is_named_after_its_target_and_cites_its_facts(path):
    target = read_target(path)
    assert target.name == path.stem
    assert {form for rules in target.runtimes for form in (rules.dialect, *rules.forms)} <= DIALECTS
    assert all(len(source.fact) > 20 and len(source.source) > 10 for source in target.sources)
    assert not any(re.search(r"(^|\s)/\w|https?:", source.source) for source in target.sources)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_each_target_round_trips_through_yaml(path, tmp_path):
    target = find_target(path.stem)
    copy = tmp_path / "target.yaml"
    copy.write_text(dump_target(target))
    assert read_target(copy) == target


def test_an_alias_finds_its_target():
    assert find_target("jetson").name == "jetson-orin-nano"


def test_tensorrt_targets_follow_its_rules():
    for target in list_targets():
        for rules in target.runtimes:
            if rules.name == "tensorrt":
                assert rules.opset_max <= 20
                assert target.quantization.residual_add == "skip"
                assert target.compute_capability in {86, 87, 89, 110}


def test_no_target_quantizes_transposed_convolutions():
    assert all("conv_transpose" not in target.quantization.quantized_ops for target in list_targets())


def test_a_cpu_without_vnni_keeps_eight_bits_and_has_its_channels_repaired():
    rules = [find_target(name).quantization for name in ("x86-avx2", "x86-vnni")]
    assert [(r.weight_bits, r.saturation) for r in rules] == [(8, "repair"), (8, "none")]
    repaired = {t.name for t in list_targets() if t.quantization and t.quantization.saturation == "repair"}
    assert repaired == {"x86-avx2"}
    assert {r.dialect for r in find_target("x86-avx2").runtimes} == {"ort-x86-novnni"}


def test_openvino_is_told_to_compute_float32_in_float32():
    options = [r.options for t in list_targets() for r in t.runtimes if r.name == "openvino"]
    assert options == [{"INFERENCE_PRECISION_HINT": "f32"}] * 2


def test_an_unknown_name_lists_all_nearest_first():
    with pytest.raises(
        TargetError, match=r"no target of that name\. Received: 'jetsn'\..*nearest first: jetson, .*x86-vnni"
    ):
        find_target("jetsn")


def test_a_file_of_ones_own_is_a_target(tmp_path):
    mine = tmp_path / "board.yaml"
    mine.write_text(text_of("raspberry-pi-5").replace("name: raspberry-pi-5", "name: my-board", 1))
    assert find_target(mine).name == "my-board"
    assert find_target(str(mine)).name == "my-board"


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(TargetError, match=r"cannot be read\. Received: .*none\.yaml \(No such file"):
        find_target(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "opset_max: 23",
            "opset_maxx: 23",
            r"unknown key runtimes\[0\]\.opset_maxx; nearest valid key: opset_max \(all:",
        ),
        ("title:", "titel:", r"unknown key titel; nearest valid key: title"),
        ("weight_bits: 8", "weight_bits: 6", r"quantization\.weight_bits is 6; choose 7 or 8"),
        ("weight_bits: 8", "weight_bits: 7\n  saturation: repair", r"saturation is repair only beside weight_bits 8"),
        (
            "weight_bits: 8",
            "weight_bits: 8\n  saturation: heal",
            r"quantization\.saturation is 'heal'; choose 'none' or",
        ),
        ("residual_add: both", "residual_add: none", r"quantization: residual_add is none exactly where"),
        ("precisions: [fp32, int8, w4a8, w4]", "precisions: [fp32]", r"quantization is there exactly where"),
        ("opset_max: 23", "opset_max: 19", r"opset 20 is newer than onnxruntime reads \(opset_max 19\)"),
        ("name: x86-vnni", "name: X86 vnni", r"name is 'X86 vnni': string should match pattern"),
        ("default_recipe: auto\n", "", r"default_recipe is missing"),
        ("arch: x86_64", "arch: riscv64", r"isa\.arch is 'riscv64'; choose 'x86_64' or 'aarch64'"),
        ("  - name: onnxruntime", "  - name: onnxruntime\n    name: twice", r"the key 'name' comes twice at line"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_key(catalog, old, new, message):
    text = text_of("x86-vnni")
    assert old in text
    path = catalog / "x86-vnni.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TargetError, match=rf"The target file .*x86-vnni\.yaml.*{message}"):
        list_targets()


def test_a_runtime_that_comes_twice_is_refused(catalog):
    text = text_of("openvino-cpu")
    start, end = text.index("  - name: openvino"), text.index("quantization:")
    (catalog / "a.yaml").write_text(text[:end] + text[start:end] + text[end:])
    with pytest.raises(TargetError, match="a runtime comes twice: openvino, openvino"):
        list_targets()


def test_a_name_that_another_target_has_as_alias_is_refused(catalog):
    shutil.copy(load_shipped() / "jetson-orin-nano.yaml", catalog)
    (catalog / "other.yaml").write_text(text_of("x86-vnni").replace("name: x86-vnni", "name: jetson", 1))
    with pytest.raises(
        TargetError, match=r"Two targets have one name\. Received: 'jetson' in .*nano\.yaml and in .*other"
    ):
        list_targets()


def test_a_file_of_yaml_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(TargetError, match=r"is not a mapping\. Received: \[1\]\. Its keys are schema_version, name"):
        find_target(path)


class TestCatalogsOfOtherPackages:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        folder = tmp_path / "acme_targets"
        folder.mkdir()
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        point = EntryPoint(name="acme", value="acme_targets", group="edgeopt.targets")
        monkeypatch.setattr(load, "entry_points", lambda group: [point] if group == "edgeopt.targets" else [])
        yield folder
        import sys

        sys.modules.pop("acme_targets", None)

    def test_their_targets_are_found_beside_the_shipped_ones(self, package):
        (package / "acme.yaml").write_text(text_of("x86-avx2").replace("name: x86-avx2", "name: acme-box", 1))
        assert find_target("acme-box").name == "acme-box"
        assert find_target("x86-avx2").name == "x86-avx2"

    def test_one_that_takes_a_shipped_name_is_refused(self, package):
        (package / "acme.yaml").write_text(text_of("x86-avx2"))
        with pytest.raises(TargetError, match="Two targets have one name"):
            find_target("local")

    def test_one_without_files_is_refused(self, package):
        with pytest.raises(TargetError, match="catalog 'acme' of another package holds no YAML file"):
            list_targets()

    def test_one_that_cannot_be_imported_is_refused(self, package):
        (package / "__init__.py").write_text("raise RuntimeError('broken')")
        with pytest.raises(TargetError, match=r"catalog 'acme' of another package cannot be opened.*broken"):
            list_targets()
