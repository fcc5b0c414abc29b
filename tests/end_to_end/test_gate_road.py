"""Two real bundles of the shipped example before the gate: every exit code, alone, against a bundle and against a file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import edgeopt
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the example's runtimes are tested on Linux")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gate")
    made = {}
    for recipe in ("fp32", "int8-ptq"):
        edgeopt.compile(
            ROOT / "examples/digits/model.pt2", target="local", data="digits", recipe=recipe, output=folder / recipe
        )
        made[recipe] = folder / recipe
    return made


def gate(tmp_path, bundle, *arguments, limits=None):
    """The exit code, and the result as JSON."""
    given = [str(bundle), "--format", "json", "-o", str(tmp_path / "gate.json"), *arguments]
    if limits is not None:
        (tmp_path / "limits.yaml").write_text(f"schema_version: 1\n{limits}\n")
        given += ["--limits", str(tmp_path / "limits.yaml")]
    code = run(cli, ["gate", *given])
    return code, json.loads((tmp_path / "gate.json").read_text()) if code in (0, 4, 5) else None


def statuses(result):
    return {row["id"]: row["status"] for row in result["rows"]}


class TestAlone:
    def test_0_by_the_limits_of_its_recipe(self, bundles, tmp_path):
        code, result = gate(tmp_path, bundles["int8-ptq"])
        assert (code, statuses(result)) == (0, {"limits.drop_pp": "PASS"})

    def test_4_where_a_limit_is_missed(self, bundles, tmp_path):
        code, result = gate(tmp_path, bundles["fp32"], limits="limits: {int8_macs: 0.9, drop_pp: 1}")
        assert (code, statuses(result)["limits.int8_macs"]) == (4, "FAIL")
        code, result = gate(tmp_path, bundles["int8-ptq"], limits="limits: {int8_macs: 0.9, size_mib: 0.01}")
        assert (code, statuses(result)) == (4, {"limits.size_mib": "FAIL", "limits.int8_macs": "PASS"})

    def test_5_where_800_samples_cannot_tell_and_0_where_that_may_pass(self, bundles, tmp_path):
        limits = "limits: {drop_pp: 0.1}"
        code, result = gate(tmp_path, bundles["int8-ptq"], limits=limits)
        assert (code, result["status"]) == (5, "INCONCLUSIVE")
        assert "more samples like these 800" in result["summary"]
        assert gate(tmp_path, bundles["int8-ptq"], "--on-inconclusive", "pass", limits=limits)[0] == 0


class TestAgainstFp32:
    @pytest.mark.parametrize(
        ("limits", "code"),
        [
            ("baseline: {drop_pp: 1.0, agreement: 0.98, size_ratio: 0.5}", 0),
            ("baseline: {drop_pp: 1.0, size_ratio: 0.01}", 4),
            ("baseline: {drop_pp: 0.1}", 5),
        ],
    )
    def test_each_code_from_a_bundle_and_from_its_file(self, bundles, tmp_path, limits, code):
        int8, fp32 = bundles["int8-ptq"], bundles["fp32"]
        assert gate(tmp_path, int8, "--baseline", str(fp32), limits=limits)[0] == code
        folder = str(tmp_path / "baselines")
        assert run(cli, ["baseline", "save", str(fp32), "--name", "fp32", "--folder", folder]) == 0
        assert run(cli, ["baseline", "promote", "fp32", "--folder", folder]) == 0
        arguments = ["--baseline", "current", "--folder", folder]
        assert gate(tmp_path, int8, *arguments, limits=limits)[0] == code

    def test_latency_is_measured_in_turns_or_compared_as_recorded(self, bundles, tmp_path):
        """Limits that no noise reaches."""
        limits = "baseline: {latency_ratio: 100, latency_p99_ratio: 10000}"
        code, result = gate(tmp_path, bundles["int8-ptq"], "--baseline", str(bundles["fp32"]), limits=limits)
        assert code == 0
        assert all("turns" in row["figure"]["conditions"]["how"] for row in result["rows"])
        folder = str(tmp_path / "baselines")
        run(cli, ["baseline", "save", str(bundles["fp32"]), "--name", "v1", "--folder", folder])
        code, result = gate(tmp_path, bundles["int8-ptq"], "--baseline", "v1", "--folder", folder, limits=limits)
        assert code == 0
        assert all("unpaired" in row["figure"]["interval"]["method"] for row in result["rows"])

    def test_a_changed_engine_is_not_judged(self, bundles, tmp_path, capsys):
        copy = tmp_path / "copy"
        shutil.copytree(bundles["int8-ptq"], copy)
        engine = next(path for path in (copy / "engine").iterdir() if path.is_file())
        engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
        assert gate(tmp_path, copy)[0] == 1
        assert f"engine/{engine.name}" in capsys.readouterr().err

    def test_the_diff_tells_layers_and_samples(self, bundles, capsys):
        assert run(cli, ["diff", str(bundles["fp32"]), str(bundles["int8-ptq"]), "--json"]) == 0
        diff = json.loads(capsys.readouterr().out)
        assert {(row["before"], row["after"]) for row in diff["layers"]} == {("fp32", "int8")}
        assert diff["samples"]["samples"] == 800
        changes = {row["key"]: row for row in diff["figures"]}
        assert changes["accuracy_top1_pct"]["paired"]
