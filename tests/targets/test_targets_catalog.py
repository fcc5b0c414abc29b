"""The catalog: every shipped target is sound, found by each of its names, and malformed ones are refused clearly."""

import re
import shutil
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

import pytest

from edgeopt.core.errors import TargetError
from edgeopt.targets import load
from edgeopt.targets.host import Host, stands_for
from edgeopt.targets.load import broken_catalogs, dump_target, find_target, list_targets, read_target

EXPECTED = [
    "android-arm64",
    "android-vulkan",
    "android-xnnpack",
    "browser-wasm",
    "iphone",
    "iphone-coreml",
    "iphone-executorch",
    "jetson-agx-orin",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-thor",
    "local",
    "local-xnnpack",
    "mac-coreml",
    "openvino-cpu",
    "openvino-cpu-bf16",
    "openvino-gpu",
    "openvino-npu",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "rtx-ada",
    "rtx-ampere",
    "rtx-blackwell",
    "snapdragon-8-elite",
    "snapdragon-8-elite-gen5",
    "snapdragon-8gen2",
    "snapdragon-8gen2-executorch",
    "snapdragon-8gen3",
    "x86-avx2",
    "x86-vnni",
]
DIALECTS = {
    "neutral",
    "openvino",
    "openvino-amx",
    "openvino-amx-bf16-products",
    "openvino-bf16-products",
    "openvino-novnni",
    "ort-arm",
    "ort-wasm",
    "ort-x86",
    "ort-x86-float-stem",
    "ort-x86-one-scale",
    "ort-x86-products",
    "ort-x86-novnni",
}
DIALECTS |= {"tensorrt", "xnnpack"}
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
                assert target.compute_capability in {86, 87, 89, 110, 120}


def test_no_target_quantizes_transposed_convolutions():
    assert all("conv_transpose" not in t.quantization.quantized_ops for t in list_targets() if t.quantization)


def test_a_cpu_without_vnni_keeps_eight_bits_and_has_its_channels_repaired():
    rules = [find_target(name).quantization for name in ("x86-avx2", "x86-vnni")]
    assert [(r.weight_bits, r.saturation) for r in rules] == [(8, "repair"), (8, "none")]
    repaired = {t.name for t in list_targets() if t.quantization and t.quantization.saturation == "repair"}
    assert repaired == {"x86-avx2"}
    assert {r.dialect for r in find_target("x86-avx2").runtimes} == {"ort-x86-novnni"}


def test_openvino_is_told_to_compute_float32_in_float32():
    options = {t.name: r.options for t in list_targets() for r in t.runtimes if r.name == "openvino"}
    on_cpu = {name: said for name, said in options.items() if said.get("device", "CPU") == "CPU"}
    assert on_cpu == {
        key: {"INFERENCE_PRECISION_HINT": "f32"} for key in ("local", "openvino-cpu", "openvino-cpu-bf16")
    }
    # A GPU gets f32 where nothing is said; an NPU has no float32.
    assert options["openvino-gpu"] == {"device": "GPU"}
    assert options["openvino-npu"] == {"device": "NPU", "INFERENCE_PRECISION_HINT": "f16"}


@pytest.mark.parametrize("requires", ["", "  requires: [asimd]\n"])
def test_openvino_is_not_promised_int8_on_armv8_0(tmp_path, requires):
    text = text_of("openvino-cpu").replace(
        "  arch: x86_64\n  requires: [avx2]\n  requires_any: [avx512_vnni, avx_vnni]\n", f"  arch: aarch64\n{requires}"
    )
    mine = tmp_path / "board.yaml"
    mine.write_text(text)
    message = r"openvino runs no int8 or w4a8 on Armv8\.0.*add asimddp to isa\.requires as a raspberry-pi-5 has it"
    with pytest.raises(TargetError, match=message):
        find_target(mine)
    mine.write_text(
        text.replace("arch: aarch64\n", "arch: aarch64\n  requires: [asimddp]\n").replace("  requires: [asimd]\n", "")
    )
    assert "int8" in find_target(mine).precisions


def test_a_target_that_is_a_browser_is_measured_in_one_and_no_other_is():
    assert {target.name: target.device for target in list_targets() if target.isa.arch == "wasm32"} == {
        "browser-wasm": "browser"
    }
    assert {target.device for target in list_targets() if target.isa.arch != "wasm32"} == {"local"}


def test_a_browser_with_simd_stands_for_a_page_and_this_machine_does_not():
    target = find_target("browser-wasm")
    browser = Host(cpu="Chromium", arch="wasm32", features=frozenset({"simd128"}), cores=2, memory_mib=1)
    assert stands_for(target, browser)[0]
    assert not stands_for(target, replace(browser, features=frozenset()))[0]
    assert stands_for(target, replace(browser, arch="x86_64")) == (
        False,
        "browser-wasm is wasm32; this machine is x86_64.",
    )


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
        ("arch: x86_64", "arch: riscv64", r"isa\.arch is 'riscv64'; choose 'x86_64', 'aarch64' or 'wasm32'"),
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

    def test_one_without_files_is_told_of_and_the_others_are_there(self, package):
        assert [target.name for target in list_targets()] == EXPECTED
        (problem,) = broken_catalogs()
        assert re.search("catalog 'acme' of another package holds no YAML file", str(problem))

    def test_one_that_cannot_be_imported_is_told_of_by_its_distribution(self, package, monkeypatch):
        (package / "__init__.py").write_text("raise RuntimeError('broken')")
        (package.parent / "acme_things-1.0.dist-info").mkdir()
        (package.parent / "acme_things-1.0.dist-info" / "METADATA").write_text("Name: acme-things\nVersion: 1.0\n")
        (package.parent / "acme_things-1.0.dist-info" / "entry_points.txt").write_text(
            "[edgeopt.targets]\nacme = acme_targets\n"
        )
        monkeypatch.setattr(load, "entry_points", entry_points)
        assert find_target("jetson").name == "jetson-orin-nano"
        assert "acme-box" not in [target.name for target in list_targets()]
        with pytest.raises(
            TargetError,
            match=r"no target of that name.*Not read: The target catalog 'acme' of acme-things.*RuntimeError: broken",
        ):
            find_target("acme-box")

    def test_a_malformed_file_of_one_is_told_of_with_its_path(self, package):
        (package / "acme.yaml").write_text("schema_version: 1\n")
        assert "acme.yaml is not valid" in str(broken_catalogs()[0])
        assert find_target("x86-avx2").name == "x86-avx2"

    def test_a_catalogs_target_names_no_release(self, package):
        text = (
            text_of("jetson-thor").replace("name: jetson-thor", "name: thor-two@one", 1).replace("aliases: [thor]", "")
        )
        release = "release: {name: one, tensorrt: 10.13.3, cuda: '13.0', opset_max: 20}\n"
        (package / "acme.yaml").write_text(text + release)
        assert "names no release" in str(broken_catalogs()[0])
