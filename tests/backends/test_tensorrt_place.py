"""The device is not what the bundle was made for, the disk is full, the cache is foreign: said before and in words."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import stand_in_tensorrt
from backend_nets import conv_net, half_net, make_rules, make_target
from test_tensorrt_on_device import build

from edgeopt.agent.runners import engine_passport
from edgeopt.backends.on_device import engine_failures
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import Release

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for the stand-in of the CUDA runtime"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="the real TensorRT is here"),
]
JETPACK_62 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
JETPACK_72 = "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64\n"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return stand_in_tensorrt.install(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def tegra(tmp_path):
    def write(text):
        file = tmp_path / "nv_tegra_release"
        file.write_text(text)
        return ["--tegra-release", str(file)]

    return write


@pytest.fixture
def make(save, empty, monkeypatch):
    """A folder for a target that is of this machine's kind, with reference inputs for the stand-in's engine."""
    monkeypatch.setattr("edgeopt.backends.tensorrt.rtx_version", lambda: None)  # proved elsewhere; a second each here

    def write(options=None, versions=">=10.3,<12", **changes):
        rules = make_rules("tensorrt", options=options or {}, versions=versions)
        target = make_target("box", rules=rules, **changes) if "release" not in changes else pinned(rules, changes)
        engine = BACKENDS["tensorrt"].compile(save(conv_net()), target, rules, empty(), 1)
        x = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
        np.savez(engine.directory / "reference_inputs.npz", x=x)
        np.savez(engine.directory / "reference_outputs.npz", y=2 * x)
        return engine.directory

    return write


def pinned(rules, changes):
    release = Release(name="jetpack-6.2", l4t=("36.4.3",), tensorrt="10.3.0", cuda="12.6", opset_max=20)
    return make_target("jetson-orin-nano@jetpack-6.2", rules=rules, **{**changes, "release": release})


def refused(folder, stand_in, *arguments, **environment):
    """Its report, and the words on the terminal."""
    done = build(folder, stand_in, *arguments, "--report", str(folder / "report.json"), **environment)
    assert done.returncode == 1, done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert not (folder / "model.plan").exists()
    assert report["errors"][0] in done.stderr
    return report["kind"], report["errors"][0]


# Kind → what makes it, and what the user reads. The "ten commonest", and some more.
FAILURES = {
    "plugin_missing": (
        {"STAND_IN_PARSE_ERROR": "Plugin not found, are the plugin name correct?"},
        "--plugin LIBRARY.so",
    ),
    "unsupported_operator": ({"STAND_IN_PARSE_ERROR": "No importer registered for op: Foo"}, "replace the operator"),
    "no_profile": ({"STAND_IN_BUILD_ERROR": "no optimization profile has been defined"}, "--opt-batch"),
    "disk_full": ({"STAND_IN_BUILD_ERROR": "write failed: No space left on device"}, "Free space"),
    "out_of_memory": (
        {"STAND_IN_BUILD_ERROR": "Requested amount of GPU memory: out of memory"},
        "lower --workspace-mib",
    ),
    "zero_point": ({"STAND_IN_PARSE_ERROR": "shiftIsAllZeros(zeroPoint)"}, "symmetric int8 only"),
    "no_gpu": ({"STAND_IN_BUILD_ERROR": "CUDA initialization failure with error: 35"}, "on the device itself"),
    "wrong_compute_capability": ({"STAND_IN_BUILD_ERROR": "Unsupported SM: 0x809"}, "does not know this GPU"),
    "dla": ({"STAND_IN_BUILD_ERROR": "DLA validation failed"}, "--no-dla"),
    "damaged_model": (
        {"STAND_IN_PARSE_ERROR": "Failed to parse the ONNX model."},
        "damaged or cut short",
    ),
    "opset": ({"STAND_IN_PARSE_ERROR": "opset 23 is newer than supported"}, "compile with a lower opset"),
    "other_version": ({"STAND_IN_BUILD_ERROR": "Serialization assertion failed: version tag"}, "build it again here"),
    "wrong_version": ({"STAND_IN_VERSION": "8.6.1"}, r"8\.6\.1 is too old.*JetPack 6\.1"),
}


def test_every_failure_of_the_table_has_a_case():
    assert set(engine_failures.FAILURES) <= set(FAILURES)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_has_its_kind_and_its_advice(kind, make, stand_in):
    environment, advice = FAILURES[kind]
    found, message = refused(make(), stand_in, **environment)
    assert found == kind
    assert re.search(advice, message), message


def test_a_missing_package_is_a_kind_of_its_own(make, tmp_path):
    kind, message = refused(make(), tmp_path, "--module", "tensorrt")
    assert kind == "missing_package"
    assert "sudo apt install python3-libnvinfer" in message


def test_a_failure_that_nobody_knows_is_told_in_its_own_words(make, stand_in):
    assert refused(make(), stand_in, STAND_IN_BUILD_ERROR="the moon is full") == (
        "",
        "TensorRT cannot build the engine: the moon is full.",
    )


def test_another_kind_of_machine_is_refused(make, stand_in):
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    kind, message = refused(make(isa={"arch": other}), stand_in)
    assert kind == "wrong_platform"
    assert f"box, which is {other}; this machine is {platform.machine()}" in message


def test_another_gpu_is_refused_and_the_same_one_is_not(make, stand_in):
    folder = make(compute_capability=87)
    kind, message = refused(folder, stand_in, STAND_IN_SM="110")
    assert kind == "wrong_compute_capability"
    assert "compute capability 87; this GPU (Stand-in GPU) has 110" in message
    assert build(folder, stand_in, STAND_IN_SM="87").returncode == 0


def test_a_tensorrt_outside_the_targets_range_is_refused_unless_the_user_insists(make, stand_in):
    folder = make()
    kind, message = refused(folder, stand_in, STAND_IN_VERSION="12.0.1")
    assert kind == "wrong_version"
    assert "made for box and TensorRT >=10.3,<12; here is TensorRT 12.0.1. Compile again with --target box" in message
    assert build(folder, stand_in, "--any-version", STAND_IN_VERSION="12.0.1").returncode == 0


def test_another_release_is_refused_and_the_command_that_fits_is_given(make, stand_in, tegra):
    folder = make(release=True, versions="==10.3.*")
    kind, message = refused(folder, stand_in, *tegra(JETPACK_72), STAND_IN_VERSION="10.16.2")
    assert kind == "wrong_release"
    assert "made for jetson-orin-nano and jetpack-6.2 with TensorRT 10.3.0" in message
    assert "here is TensorRT 10.16.2 on Jetson Linux 39.2.0 (jetpack-7.2)" in message
    assert "--target jetson-orin-nano@jetpack-7.2" in message
    assert build(folder, stand_in, *tegra(JETPACK_62), STAND_IN_VERSION="10.3.0.30").returncode == 0


def test_tensorrt_rtx_counts_its_versions_on_its_own(tmp_path):
    made_for = {"target": "rtx-ampere", "versions": ">=10.3,<12", "compute_capability": 86}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from engine_place import check_place; from engine_failures import BuildError\n"
        f"check_place({made_for!r}, {{'module': 'tensorrt_rtx', 'tensorrt': '1.7.1', 'compute_capability': 86}})\n"
        f"try: check_place({made_for!r}, {{'module': 'tensorrt', 'tensorrt': '1.7.1'}})\n"
        "except BuildError as error: print(error.kind)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(engine_folder(tmp_path))], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "wrong_version"


def test_a_release_that_is_not_known_is_named_by_its_number(make, stand_in, tegra):
    folder = make(release=True, versions="==10.3.*")
    _, message = refused(folder, stand_in, *tegra("# R41 (release), REVISION: 1.0\n"), STAND_IN_VERSION="11.9.0")
    assert "on Jetson Linux 41.1.0. Compile again with --target jetson-orin-nano, or a release of it" in message


def test_a_disk_without_room_is_refused_before_the_build(make, stand_in, monkeypatch):
    folder = make()
    (folder / "sitecustomize.py").write_text(
        "import collections, shutil\n"
        "shutil.disk_usage = lambda path: collections.namedtuple('usage', 'total used free')(9, 9, 1)\n"
    )
    done = build(folder, stand_in, PYTHONPATH=f"{stand_in}:{folder}")
    assert done.returncode == 1
    assert "The disk is full: 0 MiB are free" in done.stderr
    assert "Building" not in done.stderr


@pytest.mark.skipif(not shutil.which("mount"), reason="needs a small file system")
def test_a_disk_that_fills_up_leaves_no_half_engine(make, stand_in, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        (small / "filler").write_bytes(b"x" * 4096)
        folder = make()
        (folder / "sitecustomize.py").write_text(
            "import shutil\nshutil.disk_usage = lambda path: type('u', (), {'free': 9 << 30})\n"
        )
        done = build(folder, stand_in, "--output", str(small / "model.plan"), PYTHONPATH=f"{stand_in}:{folder}")
        assert done.returncode == 1
        assert "the disk is full" in done.stderr
        assert [file.name for file in small.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_timing_cache_of_here_is_used_and_one_of_elsewhere_is_made_anew(make, stand_in):
    folder = make()
    assert "timing cache: \n" in build(folder, stand_in).stdout
    stored = json.loads((folder / "timing.cache.json").read_text())
    assert (stored["tensorrt"], stored["module"], stored["bytes"]) == ("10.3.0", "tensorrt", 7)
    assert "timing cache: timings\n" in build(folder, stand_in).stdout
    done = build(folder, stand_in, STAND_IN_VERSION="10.3.1")
    assert "timing cache: \n" in done.stdout
    assert "made anew: timing.cache was made with TensorRT version 10.3.0; here it is 10.3.1" in done.stderr
    assert json.loads((folder / "timing.cache.json").read_text())["tensorrt"] == "10.3.1"


def test_a_timing_cache_without_a_passport_is_left_to_tensorrt(make, stand_in):
    folder = make()
    (folder / "timing.cache").write_bytes(b"of some other tool")
    done = build(folder, stand_in)
    assert done.returncode == 0
    assert "TensorRT says that it is from another version or device" in done.stderr
    assert (folder / "timing.cache").read_bytes() == b"timings"


class TestAnEngineOfElsewhere:
    def built(self, make, stand_in, **environment):
        folder = make()
        assert build(folder, stand_in, **environment).returncode == 0
        return folder

    @pytest.mark.parametrize(
        ("made", "now", "message"),
        [
            ({}, {"STAND_IN_VERSION": "10.16.2"}, r"made with TensorRT version 10\.3\.0; here it is 10\.16\.2"),
            ({"STAND_IN_SM": "87"}, {"STAND_IN_SM": "110"}, r"made with compute capability 87; here it is 110"),
        ],
    )
    def test_it_is_named_by_what_differs(self, make, stand_in, made, now, message):
        folder = self.built(make, stand_in, **made)
        assert build(folder, stand_in, "--verify-only", **made).returncode == 0
        done = build(folder, stand_in, "--verify-only", **now)
        assert done.returncode == 1
        assert re.search(message + r".*build it again here", done.stderr), done.stderr

    def test_a_truncated_engine_is_said_to_be_truncated(self, make, stand_in):
        folder = self.built(make, stand_in)
        whole = (folder / "model.plan").read_bytes()
        (folder / "model.plan").write_bytes(whole[:20])
        done = build(folder, stand_in, "--verify-only")
        assert done.returncode == 1
        assert (
            f"model.plan has 20 bytes; it was written with {len(whole)}: it is truncated or was changed" in done.stderr
        )

    def test_without_a_passport_tensorrt_itself_decides(self, make, stand_in):
        folder = self.built(make, stand_in)
        (folder / "model.plan.json").unlink()
        assert build(folder, stand_in, "--verify-only").returncode == 0
        (folder / "model.plan").write_bytes(b"no plan")
        done = build(folder, stand_in, "--verify-only")
        assert "cannot read model.plan: an engine runs only with the version" in done.stderr

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"bytes": "many"}'])
    def test_a_passport_that_cannot_be_read_stops_nothing(self, make, stand_in, text):
        folder = self.built(make, stand_in)
        (folder / "model.plan.json").write_text(text)
        assert build(folder, stand_in, "--verify-only").returncode == 0


class TestDla:
    def test_the_script_asks_for_the_core_and_for_the_gpu_as_a_fallback(self, make, stand_in):
        folder = make()
        arguments = ("--dla", "1", "--min-batch", "1", "--max-batch", "1")
        done = build(folder, stand_in, *arguments, STAND_IN_DLA_CORES="2")
        assert done.returncode == 0, done.stderr
        plan = json.loads((folder / "model.plan").read_text())
        assert (plan["device"], plan["core"], plan["flags"]) == ("DLA", 1, ["GPU_FALLBACK"])
        assert "parser flag: ADJUST_FOR_DLA" in done.stdout

    def test_a_device_without_that_core_says_how_many_there_are(self, make, stand_in):
        kind, message = refused(make(), stand_in, "--dla", "2", "--max-batch", "1", STAND_IN_DLA_CORES="2")
        assert kind == "dla"
        assert "no DLA core 2 here: TensorRT 10.3.0 sees 2" in message

    def test_no_dla_is_the_gpu(self, make, stand_in):
        folder = make()
        assert build(folder, stand_in, "--dla", "0", "--no-dla").returncode == 0
        assert json.loads((folder / "model.plan").read_text())["device"] == "GPU"

    def test_dynamic_batches_are_a_usage_error(self, make, stand_in):
        done = build(make(), stand_in, "--dla", "0", STAND_IN_DLA_CORES="1")
        assert done.returncode == 2
        assert "takes no dynamic shapes" in done.stderr


def test_a_plug_in_library_is_loaded_or_said_not_to_load(make, stand_in):
    folder = make()
    assert build(folder, stand_in, "--plugin", str(stand_in / "libcudart.so")).returncode == 0
    (folder / "model.plan").unlink()
    kind, message = refused(folder, stand_in, "--plugin", "none.so")
    assert kind == "plugin_missing"
    assert "cannot be loaded" in message


def test_a_script_without_settings_is_for_any_device(make, stand_in):
    folder = make(compute_capability=87)
    (folder / "build.json").unlink()
    assert build(folder, stand_in, STAND_IN_SM="110", STAND_IN_VERSION="12.0").returncode == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (JETPACK_62, "36.4.3"),
        (JETPACK_72, "39.2.0"),
        ("# R35 (release), REVISION: 4.1, GCID", "35.4.1"),
        ("Ubuntu", ""),
    ],
)
def test_the_number_of_jetson_linux_is_read(tmp_path, text, number):
    (tmp_path / "release").write_text(text)
    assert engine_passport.l4t_release(str(tmp_path / "release")) == number
    assert engine_passport.l4t_release(str(tmp_path / "none")) == ""


def test_versions_are_compared_as_packaging_does(tmp_path):
    from packaging.specifiers import SpecifierSet

    specifiers = [">=10.3,<12", "==10.3.*", "==10.16.*", ">=10.13.3,<12", "!=10.3.0", "<=10.3", ">10.3", ""]
    versions = ["10.3", "10.3.0", "10.3.0.30", "10.16.2.10", "11.4.1", "12.0", "9.3.0", "10.30.1"]
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from engine_place import satisfies\n"
        f"print(json.dumps([satisfies(v, s) for s in {specifiers!r} for v in {versions!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(engine_folder(tmp_path))], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [SpecifierSet(s).contains(v) for s in specifiers for v in versions]


def engine_folder(tmp_path):
    from edgeopt.backends.tensorrt_folder import FOLDER_FILES

    for file in FOLDER_FILES:
        shutil.copy(file, tmp_path)
    return tmp_path


class TestOptions:
    def test_the_profile_is_in_the_settings_and_in_trtexecs_line(self, make):
        folder = make({"min_batch": 1, "opt_batch": 4, "max_batch": 32})
        settings = json.loads((folder / "build.json").read_text())
        assert (settings["min_batch"], settings["opt_batch"], settings["max_batch"]) == (1, 4, 32)
        line = (folder / "trtexec.sh").read_text()
        assert "--minShapes=image:1x3x6x6 --optShapes=image:4x3x6x6 --maxShapes=image:32x3x6x6" in line

    def test_what_the_bundle_was_made_for_is_in_the_settings(self, save, empty):
        target = find_target("jetson@jetpack-6.2")
        engine = BACKENDS["tensorrt"].compile(save(conv_net()), target, target.runtimes[0], empty(), 1)
        made_for = json.loads((engine.directory / "build.json").read_text())["made_for"]
        assert made_for["target"] == "jetson-orin-nano@jetpack-6.2"
        assert (made_for["arch"], made_for["compute_capability"], made_for["versions"]) == ("aarch64", 87, "==10.3.*")
        assert made_for["release"]["tensorrt"] == "10.3.0"
        assert made_for["releases"]["39.2"] == "jetpack-7.2"

    def test_a_dla_that_the_target_has_not_is_refused(self, save, empty):
        rules = make_rules("tensorrt", options={"dla": 0})
        for target in (make_target(), find_target("jetson"), find_target("jetson-agx-orin@jetpack-7.2")):
            with pytest.raises(
                BackendError, match=rf"{target.name} has no DLA that its TensorRT builds for.*jetson-orin-nx"
            ):
                BACKENDS["tensorrt"].check(save(conv_net()), target, rules)

    def test_a_dla_takes_one_batch(self, save, empty):
        rules = make_rules("tensorrt", options={"dla": 0, "max_batch": 8})
        with pytest.raises(BackendError, match="A DLA takes no dynamic shapes"):
            BACKENDS["tensorrt"].compile(save(half_net()), make_target(dla_cores=1), rules, empty(), 1)
