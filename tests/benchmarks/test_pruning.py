"""Pruning beside a rival: which runs there are, where results are kept, and what the table says of who wins."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WHOLE = {"macs": 2e6, "parameters": 2000, "accuracy": 91.0}


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def row(title, seed, drop, latency, *, own=False, **others):
    from pruning.table import COLUMNS, Ratio, Row

    ratio = Ratio(value=latency, low=latency - 0.01, high=latency + 0.01)
    given = {"macs": 1e6, "parameters": 1000, "pruned": 10.0, "recovered": 91 - drop, "drop": drop}
    return Row(title=title, own=own, seed=seed, **{**given, "ratios": dict.fromkeys(COLUMNS, ratio), **others})


def runs(folder, *, seed=0, epochs=4, round_to=16, samples=None, widths=None):
    from pruning.plan import list_ways, plan
    from zoo_folder import Net

    (folder / "model.pt2").write_bytes(b"model")
    (folder / "data.npz").write_bytes(b"data")
    net = Net(name="resnet20", model=folder / "model.pt2", data=folder / "data.npz")
    given = argparse.Namespace(work=folder / "work", epochs=epochs, round_to=round_to, train_samples=samples)
    return [plan(net, way, seed, given, widths) for way in list_ways(round_to, searched=widths is not None)]


def keep(run, macs):
    run.pruned.mkdir(parents=True, exist_ok=True)
    (run.pruned / "prune.json").write_text(json.dumps({"macs": macs}))


def test_help_says_how_it_is_run():
    command = [sys.executable, str(BENCHMARKS / "pruning.py"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--time" in text
    assert "goes on where it was stopped" in text


def test_too_few_turns_are_refused():
    command = [sys.executable, str(BENCHMARKS / "pruning.py"), "zoo", "--runs", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "five turns at least" in done.stderr


def test_the_rival_is_used_as_documented_and_with_the_same_multiple():
    from pruning.plan import list_ways

    own, *rivals = list_ways(8, searched=False)
    assert (own.own, own.round_to) == (True, 8)
    assert {(way.importance, way.round_to) for way in rivals} == {
        ("taylor", None),
        ("magnitude", None),
        ("taylor", 8),
        ("magnitude", 8),
    }


def test_the_rival_also_prunes_to_the_multiply_accumulates_of_the_search(tmp_path):
    every = {run.way.name: run for run in runs(tmp_path, widths={"1.first.0": 0})}
    searched = every["edgeopt-searched"]
    assert searched.job["goal"] == {"widths": {"1.first.0": 0}}
    assert every["edgeopt-16"].job["goal"] == {"macs_ratio": 0.5}
    for importance in ("taylor", "magnitude"):
        assert every[f"torch-pruning-{importance}-searched"].own == searched.pruned
        assert every[f"torch-pruning-{importance}"].own == every["edgeopt-16"].pruned


def test_other_widths_are_another_run_and_leave_the_rest_as_it_is(tmp_path):
    for one, other in zip(*(runs(tmp_path, widths={"1.first.0": count}) for count in (0, 16)), strict=True):
        assert (one.pruned != other.pruned) is one.way.searched


def test_a_step_is_told_exactly_one_goal(tmp_path):
    from edgeopt.recipes.schema import Prune

    for run in runs(tmp_path, widths={"1.first.0": 0}):
        step = Prune(importance="taylor", **run.job["goal"])
        goals = (step.ratio, step.macs_ratio, step.latency_ratio, step.widths or None)
        assert sum(goal is not None for goal in goals) == 1


def test_the_outcome_of_a_search_is_kept_beside_those_of_other_nets(tmp_path):
    from pruning.search import read_widths, write_widths

    path = tmp_path / "widths.json"
    assert read_widths(path) == {}
    write_widths(path, "a", {"widths": {"g": 0}})
    write_widths(path, "b", {"widths": {"h": 16}})
    write_widths(path, "a", {"widths": {"g": 8}})
    assert read_widths(path) == {"a": {"g": 8}, "b": {"h": 16}}


def test_the_widths_shipped_say_where_they_come_from():
    from pruning.plan import MACS, SEARCHED
    from pruning.search import WIDTHS, read_widths

    assert set(read_widths(WIDTHS)) == set(MACS)
    for net, found in json.loads(WIDTHS.read_text()).items():
        assert found["latency_ratio"] == SEARCHED[net]
        assert f"Widths for {SEARCHED[net]:g} of the latency" in found["summary"]
        assert all(f"{name}: " in found["summary"] for name in found["widths"])
        assert found["command"]


def test_another_recovery_uses_the_same_pruned_models(tmp_path):
    for short, long in zip(runs(tmp_path, epochs=1), runs(tmp_path, epochs=4), strict=True):
        assert short.pruned == long.pruned
        assert short.recovered != long.recovered


def test_what_decides_a_result_decides_its_folder(tmp_path):
    folders = [
        run.recovered
        for given in ({}, {"seed": 1}, {"round_to": 8}, {"samples": 100})
        for run in runs(tmp_path, **given)
    ]
    assert len(set(folders)) == len(folders) == 20


def test_a_rival_that_misses_the_multiply_accumulates_is_not_compared(tmp_path):
    from pruning.plan import comparable

    own, rival, *_ = runs(tmp_path)
    keep(own, 1000)
    for macs, fits in ((1000, True), (981, True), (1019, True), (979, False), (1021, False)):
        keep(rival, macs)
        assert comparable(rival) is fits


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    from pruning import training

    def spawn(_python, script, folder, job):
        folder.mkdir(parents=True, exist_ok=True)
        if script.name == "pruning_rival.py":
            raise RuntimeError("IndexError: no such layer")
        stage = job["do"]
        told = {"macs": 1000, "accuracy": 91.0, "accuracy_recovered": 90.0}
        (folder / f"{stage}.json").write_text(json.dumps(told))

    monkeypatch.setattr(training, "spawn", spawn)
    monkeypatch.setattr(training, "make_environment", lambda *_: Path("python"))
    every = runs(tmp_path)
    assert sorted(training.train([every[0].net], every, tmp_path, 2)) == sorted(run.name for run in every[1:])
    assert "IndexError: no such layer" in capsys.readouterr().err
    assert (every[0].recovered / "recover.json").is_file()


def test_a_process_that_fails_has_the_last_word(tmp_path):
    from pruning.training import spawn

    script = tmp_path / "job.py"
    script.write_text("raise ValueError('no such net')")
    with pytest.raises(RuntimeError, match="ValueError: no such net"):
        spawn(sys.executable, script, tmp_path / "run", {"do": "prune"})


def answers(rows):
    """Nets that differ on as few of 10,000 samples as their drops allow: what one gets right, the better gets too."""
    share = {(row.title, row.seed): 9000 - round(100 * row.drop) for row in rows if not row.reason}
    return {key: np.arange(10_000) < count for key, count in share.items()}


def told(rows):
    from pruning.table import verdicts

    return verdicts(rows, answers(rows))


def table_of(rows):
    from pruning.table import to_markdown

    return to_markdown("resnet20", WHOLE, rows, answers(rows))


def test_accuracy_is_compared_sample_by_sample():
    from pruning.answers import difference

    rng = np.random.default_rng(0)
    base = rng.random(10_000) < 0.9
    other = base.copy()
    other[rng.choice(10_000, 50, replace=False)] ^= True  # 50 answers differ, to both sides
    mean, low, high = difference([base], [other])
    assert mean == pytest.approx(100 * (base.mean() - other.mean()))
    assert (high - low) / 2 == pytest.approx(1.96 * 100 * np.sqrt(50) / 10_000, rel=0.05)
    assert difference([base, other], [other, base]) == (0, 0, 0)


def test_a_row_says_why_it_has_no_figures():
    reason = "no ratio leaves edgeopt's MACs within 2%"
    table = table_of([row("edgeopt", 0, 0.1, 0.5, own=True), row("rival", 0, 0, 0, reason=reason)])
    assert f"| rival | 0 | 1.00 | {reason} |" in table
    assert f"- rival: not compared: {reason}." in table


def test_means_are_over_the_seeds_that_have_figures():
    rows = [row("edgeopt", seed, drop, 0.5 + seed / 10, own=True) for seed, drop in ((0, 0.1), (1, 0.3))]
    table = table_of([*rows, row("edgeopt", 2, 0, 0, own=True, reason="not recovered")])
    mean = next(line for line in table.splitlines() if "mean of 2" in line)
    assert "**0.20**" in mean
    assert "**0.550** (0.500 to 0.600)" in mean


def test_where_the_rival_wins_is_said_plainly():
    (text,) = told([row("edgeopt", 0, 0.2, 0.5, own=True), row("rival", 0, 0.1, 0.6)])
    assert "the rival wins accuracy, edgeopt's -0.10 pp [-0.16, -0.04]" in text
    assert "edgeopt wins ONNX Runtime FP32 0.500 against 0.600" in text


def test_a_win_says_in_how_many_seeds_it_holds():
    own = [row("edgeopt", seed, 0.1, latency, own=True) for seed, latency in ((0, 0.5), (1, 0.5), (2, 0.5))]
    rival = [row("rival", seed, 0.1, latency) for seed, latency in ((0, 0.4), (1, 0.8), (2, 0.8))]
    assert "edgeopt wins ONNX Runtime FP32 0.500 against 0.667 (in 2 of 3 seeds)" in told([*own, *rival])[0]


def test_a_rival_that_wins_nothing_and_one_that_is_even():
    worse, even = told([row("edgeopt", 0, 0.2, 0.5, own=True), row("worse", 0, 0.3, 0.6), row("even", 0, 0.2, 0.5)])
    assert "the rival wins nothing" in worse
    assert "even: accuracy, edgeopt's +0.00 pp [+0.00, +0.00]" in even


def test_only_seeds_that_both_have_are_compared():
    rows = [row("edgeopt", seed, drop, 0.5, own=True) for seed, drop in ((0, 0.1), (1, 5.0))]
    (text,) = told([*rows, row("rival", 0, 0.2, 0.5)])
    assert "rival (seed 0; edgeopt's mean" in text
    assert "edgeopt wins accuracy, edgeopt's +0.10 pp [+0.04, +0.16]" in text


def test_only_likes_are_compared():
    own = row("edgeopt", 0, 0.1, 0.5, own=True)
    searched = row("searched", 0, 0.4, 0.3, own=True, searched=True)
    rivals = [row("rival", 0, 0.2, 0.6), row("rival, fewer MACs", 0, 0.3, 0.4, searched=True)]
    more, fewer = told([own, searched, *rivals])
    assert "edgeopt wins accuracy, edgeopt's +0.10 pp [+0.04, +0.16]" in more
    assert "the rival wins accuracy, edgeopt's -0.10 pp [-0.16, -0.04]" in fewer
    assert "edgeopt wins ONNX Runtime FP32 0.300 against 0.400" in fewer


def test_what_was_not_timed_is_left_open():
    table = table_of([row("edgeopt", 0, 0.1, 0, own=True, ratios={})])
    assert table.count("| – ") == 4


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ({"pruned": None, "comparable": False}, "not pruned"),
        ({"pruned": {"macs": 1}, "comparable": False}, "no ratio leaves edgeopt's MACs within 2%"),
        ({"pruned": {"macs": 1}, "comparable": True}, "not recovered"),
    ],
)
def test_a_run_that_is_not_done_has_its_reason(run, reason):
    import importlib.util

    spec = importlib.util.spec_from_file_location("pruning_script", BENCHMARKS / "pruning.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.row_of(
        {"title": "t", "own": False, "searched": False, "seed": 0, "recovered": None, "latency": {}, **run}, {}
    )
    assert found.reason == reason
    assert math.isnan(found.drop)
