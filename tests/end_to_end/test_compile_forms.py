"""A real engine that computes something else than its portable graph is replaced by the next form."""

from pathlib import Path

import pytest
from quick import FAST

from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.graph.dialects import DIALECTS
from edgeopt.targets.load import dump_target, find_target


@pytest.mark.long
def test_a_form_that_is_wrong_on_its_runtime_gives_way_to_the_next(mlp: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(DIALECTS._builtin, "spoilt", "spoilt_dialect:DIALECT")
    local = find_target("local")
    runtime = local.runtimes[0].model_copy(update={"dialect": "spoilt", "forms": ("ort-x86", "neutral")})
    target = local.model_copy(update={"name": "bench", "aliases": (), "detected": False, "runtimes": (runtime,)})
    (tmp_path / "bench.yaml").write_text(dump_target(target))
    output = tmp_path / "bundle"
    target_file = str(tmp_path / "bench.yaml")
    command = ["compile", str(mlp / "mlp.pt2"), "--target", target_file, "--recipe", "int8-ptq"]  # no clock decides
    assert run(cli, [*command, "--data", str(mlp / "mlp.npz"), "-o", str(output), *FAST]) == 0
    report = Report.model_validate_json((output / "report.json").read_text())
    (int8,) = [candidate for candidate in report.candidates if candidate.precision == "int8"]
    assert (int8.status, int8.dialect) == ("measured", "ort-x86")
    drop = int8.figure("drop_pp")
    assert drop is not None
    assert drop.value is not None
    assert drop.value < 1
    messages = [event.message for event in report.events]
    assert any("spoilt" in message and "the form ort-x86 is tried" in message for message in messages)
    assert any("The form ort-x86 is kept" in message for message in messages)
