"""``edgeopt eval`` on several devices, and ``edgeopt devices``, as far as nothing is emulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeopt.bundle.numerics import NumericsRow, NumericsSection
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.cli.numerics import compares
from edgeopt.core.errors import EdgeOptError
from edgeopt.pipeline import numerics

HOST = NumericsRow(spec="local", name="this machine", runtime_version="1")


def section(*rows):
    return NumericsSection(
        engine="onnxruntime-int8",
        runtime="onnxruntime",
        precision="int8",
        data="digits",
        split="test",
        samples=4,
        of=8,
        expected="at most 1 step",
        host=HOST,
        rows=rows,
    )


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (["local"], False),
        (["ssh://pi"], False),
        (["qemu:max"], True),
        (["local", "ssh://pi"], True),
        (["qemu:max", "qemu:haswell"], True),
    ],
)
def test_several_devices_or_an_emulated_one_are_compared(devices, expected):
    assert compares(devices, reference=None, output=None) is expected


def test_a_reference_has_no_place_in_a_comparison():
    with pytest.raises(EdgeOptError, match=r"compared with this machine.*--reference"):
        compares(["qemu:max"], reference=Path("fp32"), output=None)
    assert compares(["local"], reference=Path("fp32"), output=None) is False


@pytest.mark.parametrize(("devices", "name"), [(["local"], "a.md"), (["qemu:max"], "a.txt"), (["qemu:max"], "a")])
def test_only_a_comparison_is_written_and_only_in_known_forms(devices, name):
    with pytest.raises(EdgeOptError, match="written as Markdown, HTML or JSON"):
        compares(devices, reference=None, output=Path(name))


@pytest.mark.parametrize(("error", "code"), [("", 0), ("It has no runtime.", 1)])
def test_a_comparison_is_printed_and_written_and_a_failure_is_its_exit_code(monkeypatch, tmp_path, capsys, error, code):
    asked = {}

    def compare(bundle, **options):
        asked.update(options)
        return section(NumericsRow(spec="qemu:max", name="qemu max", error=error))

    monkeypatch.setattr(numerics, "compare_bundle", compare)
    words = ["eval", "bundle", "--data", "digits", "--device", "qemu:max", "--samples", "4"]
    for ending in ("md", "html", "json"):
        file = tmp_path / f"isa.{ending}"
        assert run(cli, [*words, "-o", str(file)]) == code
        assert "qemu max" in file.read_text()
    assert "Other instruction sets" in capsys.readouterr().out
    assert asked["devices"] == ("qemu:max",)
    assert asked["samples"] == 4
    assert run(cli, [*words, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["rows"][0]["error"] == error


def test_the_emulated_cpus_are_among_the_devices(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))
    assert run(cli, ["device", "--json"]) == 0  # the group has two names
    found = json.loads(capsys.readouterr().out)
    names = {row["name"] for row in found["emulated"]}
    assert {"qemu:cortex-a53", "qemu:cortex-a76", "qemu:max", "qemu:haswell"} <= names
    assert run(cli, ["devices"]) == 0
    assert "qemu:cortex-a53" in capsys.readouterr().out


def test_nothing_is_removed_where_nothing_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path))
    assert run(cli, ["devices", "setup", "qemu", "--remove"]) == 0
    assert "There was nothing" in capsys.readouterr().out


def test_set_up_says_its_architectures():
    shown = CliRunner().invoke(cli, ["devices", "setup", "qemu", "--arch", "riscv64"])
    assert shown.exit_code == 2
    assert "aarch64" in shown.output
