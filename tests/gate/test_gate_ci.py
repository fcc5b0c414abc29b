"""What is ready to use: the shell of the CI templates, the hook's command and the pytest plugin are run as they are."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from gate_bundles import drop, gate_bundle_at
from junitparser import JUnitXml

ROOT = Path(__file__).parents[2]
FIGURES = {0: drop(0, -1, 0.5), 4: drop(3, 2, 4), 5: drop(0.8, 0.1, 1.5)}
VERDICTS = {0: "PASS", 4: "FAIL", 5: "INCONCLUSIVE"}


@pytest.fixture
def shell(tmp_path):
    """Runs a script in an empty folder with ``edgeopt`` on the path; a second name for it would be a stub."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    command = f'exec {shlex.quote(sys.executable)} -c "from edgeopt.cli.main import main; main()" "$@"\n'
    for name, text in (
        ("edgeopt", f"#!/bin/sh\n{command}"),
        ("python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'),
    ):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)

    def run(script, interpreter=("bash", "--noprofile", "--norc", "-eo", "pipefail"), **variables):
        path = tmp_path / "script.sh"
        path.write_text(script)
        environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", **variables}
        environment["PYTHONPATH"] = str(ROOT)
        return subprocess.run(
            [*interpreter, str(path)], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )

    return run


def bundle_with(tmp_path, code):
    gate_bundle_at(tmp_path / "dist" / "my model", figures=[FIGURES[code]], limits={"drop_pp": 1.0})
    return "dist/my model"


class TestTheGithubAction:
    action = yaml.safe_load((ROOT / "ci/github/action.yml").read_text(encoding="utf-8"))

    def step(self, name):
        return next(step for step in self.action["runs"]["steps"] if step["name"] == name)

    def run(self, shell, tmp_path, **inputs):
        """As the runner does it: each input's expression becomes an environment variable."""
        step = self.step("Judge the bundle")
        given = {key: one.get("default", "") for key, one in self.action["inputs"].items()} | inputs
        variables = {}
        for name, text in step["env"].items():
            key = text.removeprefix("${{ inputs.").removesuffix(" }}")
            variables[name] = given[key]
        files = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
        return shell(step["run"], **variables, **files)

    @pytest.mark.parametrize("code", [0, 4, 5])
    def test_its_step_ends_with_the_verdict_and_leaves_every_file(self, shell, tmp_path, code):
        done = self.run(shell, tmp_path, bundle=bundle_with(tmp_path, code))
        assert done.returncode == code, done.stderr
        outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
        assert outputs == {"exit-code": str(code), "verdict": VERDICTS[code]}
        assert VERDICTS[code] in (tmp_path / "summary").read_text()
        names = {path.name for path in (tmp_path / "edgeopt-gate").iterdir()}
        assert names == {"gate.json", "gate.junit.xml", "gate.sarif", "gate.md"}

    def test_inconclusive_may_pass(self, shell, tmp_path):
        done = self.run(shell, tmp_path, bundle=bundle_with(tmp_path, 5), **{"on-inconclusive": "pass"})
        assert done.returncode == 0
        assert "verdict=INCONCLUSIVE" in (tmp_path / "output").read_text()

    def test_bad_input_says_so_and_has_no_verdict(self, shell, tmp_path):
        done = self.run(shell, tmp_path, bundle="dist/none")
        assert done.returncode == 1
        assert "could not judge" in (tmp_path / "summary").read_text()
        assert (tmp_path / "output").read_text() == "exit-code=1\n"

    def test_an_input_is_never_run(self, shell, tmp_path):
        hostile = '"; touch owned; echo "$(touch owned2)'
        assert self.run(shell, tmp_path, bundle=hostile, limits="$(touch owned3)").returncode == 1
        assert not list(tmp_path.glob("owned*"))

    def test_no_script_holds_an_expression(self):
        assert [step["name"] for step in self.action["runs"]["steps"] if "${{" in step["run"]] == []

    def test_the_example_workflow_calls_it_with_inputs_that_it_has(self):
        workflow = yaml.safe_load((ROOT / "ci/github/example-workflow.yml").read_text(encoding="utf-8"))
        steps = workflow["jobs"]["gate"]["steps"]
        (call,) = [step for step in steps if "ci/github" in step.get("uses", "")]
        assert set(call["with"]) <= set(self.action["inputs"])
        assert "bundle" in call["with"]
        (upload,) = [step for step in steps if "upload-sarif" in step.get("uses", "")]
        assert upload["with"]["sarif_file"] == f"{self.action['inputs']['output']['default']}/gate.sarif"


class TestTheGitlabTemplate:
    job = yaml.safe_load((ROOT / "ci/gitlab/edgeopt.gitlab-ci.yml").read_text(encoding="utf-8"))[".edgeopt-gate"]

    @pytest.mark.parametrize("code", [0, 5])
    def test_its_script_ends_with_the_verdict_in_a_plain_sh(self, shell, tmp_path, code):
        variables = {**self.job["variables"], "EDGEOPT_BUNDLE": bundle_with(tmp_path, code), "EDGEOPT_PACKAGE": ""}
        script = "\n".join([*self.job["before_script"], *self.job["script"]])
        done = shell(script, ("sh", "-e"), **variables)
        assert done.returncode == code, done.stderr
        report = tmp_path / self.job["artifacts"]["reports"]["junit"]
        assert len(list(JUnitXml.fromfile(str(report)))) == 1

    def test_limits_and_policy_reach_the_gate(self, shell, tmp_path):
        (tmp_path / "my limits.yaml").write_text("schema_version: 1\nlimits: {drop_pp: 1.2}\n")
        variables = {
            **self.job["variables"],
            "EDGEOPT_BUNDLE": bundle_with(tmp_path, 5),
            "EDGEOPT_LIMITS": "my limits.yaml",
            "EDGEOPT_ON_INCONCLUSIVE": "pass",
        }
        assert shell("\n".join(self.job["script"]), ("sh", "-e"), **variables).returncode == 0
        (row,) = json.loads((tmp_path / "edgeopt-gate/gate.json").read_text())["rows"]
        assert row["limit"] == 1.2


class TestThePreCommitHook:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

    def test_the_manifest_is_valid(self):
        clientlib = pytest.importorskip("pre_commit.clientlib", reason="pre-commit is not installed")
        manifest = clientlib.load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))
        assert [hook["id"] for hook in manifest] == ["edgeopt-gate"]

    @pytest.mark.parametrize("code", [4])
    def test_its_command_ends_with_the_verdict(self, shell, tmp_path, code):
        """pre-commit appends ``args`` to ``entry``, and no file names."""
        assert (self.hook["pass_filenames"], self.hook["language"]) == (False, "system")
        command = f"{self.hook['entry']} {shlex.quote(bundle_with(tmp_path, code))}"
        assert shell(command).returncode == code


class TestThePytestPlugin:
    @pytest.fixture
    def pytester_run(self, tmp_path):
        """Runs pytest in an empty folder, the plugin found by its entry point as pyproject.toml names it."""
        points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
        info = tmp_path / "site" / "edgeopt-0.0.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgeopt\nVersion: 0.0.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[pytest11]\n{lines}\n")
        work = tmp_path / "work"
        work.mkdir()
        (work / "pytest.ini").write_text("[pytest]\n")

        def run(test, *arguments, ini=""):
            (work / "test_model.py").write_text(test)
            (work / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}
            return subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments],
                capture_output=True,
                text=True,
                cwd=work,
                env=environment,
                check=False,
            )

        return run

    @pytest.mark.parametrize(
        ("ini", "arguments", "outcomes"),
        [
            ("", (), "2 failed, 1 passed"),
            ("edgeopt_on_inconclusive = skip", (), "1 failed, 1 passed, 1 skipped"),
            ("edgeopt_on_inconclusive = fail", ("--edgeopt-on-inconclusive", "pass"), "1 failed, 2 passed"),
        ],
    )
    def test_a_verdict_is_a_test_outcome(self, pytester_run, tmp_path, ini, arguments, outcomes):
        test = ""
        for code, figure in FIGURES.items():
            bundle = gate_bundle_at(tmp_path / f"b{code}", figures=[figure], limits={"drop_pp": 1.0})
            test += f"def test_{code}(edgeopt_gate):\n    edgeopt_gate({str(bundle)!r})\n"
        done = pytester_run(test, *arguments, ini=ini)
        assert outcomes in done.stdout
        assert "limits.drop_pp: 3 pp (95 %: 2 to 4), at most 1 pp: missed." in done.stdout

    def test_limits_may_be_a_mapping_and_bad_input_is_readable(self, pytester_run, tmp_path):
        bundle = str(tmp_path / bundle_with(tmp_path, 5))
        test = (
            f"def test_wide(edgeopt_gate):\n    r = edgeopt_gate({bundle!r}, limits={{'limits': {{'drop_pp': 2}}}})\n"
            "    assert r.exit_code == 0\n"
            f"def test_typo(edgeopt_gate):\n    edgeopt_gate({bundle!r}, limits={{'limits': {{'drop': 2}}}})\n"
        )
        done = pytester_run(test)
        assert "1 failed, 1 passed" in done.stdout
        assert "nearest valid key: drops" in done.stdout

    def test_pytest_starts_without_anything_heavy(self, pytester_run):
        test = (
            "import sys\n"
            "def test_start(request):\n"
            "    assert request.config.pluginmanager.hasplugin('edgeopt')\n"
            "    heavy = {'numpy', 'torch', 'pydantic', 'scipy', 'onnx', 'rich', 'click'}\n"
            "    assert heavy & {name.split('.')[0] for name in sys.modules} == set()\n"
        )
        done = pytester_run(test, "-p", "no:hypothesispytest", "-p", "no:jaxtyping")
        assert "1 passed" in done.stdout, done.stdout
