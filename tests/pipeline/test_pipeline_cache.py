"""Stages are found by the content of what went into them, and never half there."""

import errno
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeopt.core.errors import EdgeOptError
from edgeopt.pipeline.cache import CUT_SHORT, StageCache


def _write(text: str):
    return lambda folder: (folder / "result.txt").write_text(text) and None


def test_the_same_inputs_are_found_and_others_are_made(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    first = cache.stage("export", {"model": "a"}, _write("a"))
    again = cache.stage("export", {"model": "a"}, _write("never"))
    other = cache.stage("export", {"model": "b"}, _write("b"))
    assert (first.cached, again.cached, other.cached) == (False, True, False)
    assert (again.directory / "result.txt").read_text() == "a"
    assert (other.directory / "result.txt").read_text() == "b"


def test_two_stages_never_share_an_entry(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    one = cache.stage("export", {"model": "a"}, _write("1"))
    two = cache.stage("quantize", {"model": "a"}, _write("2"))
    assert one.directory != two.directory


def test_another_edgeopt_finds_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StageCache(tmp_path)
    cache.stage("export", {"model": "a"}, _write("1"))
    monkeypatch.setattr("edgeopt.pipeline.cache.source_hash", lambda: "changed")
    assert not cache.stage("export", {"model": "a"}, _write("2")).cached


def test_a_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.stage("export", {}, fail)
    assert [p for p in tmp_path.rglob("*") if p.name.endswith(".txt")] == []
    assert not cache.stage("export", {}, _write("whole")).cached


def test_an_entry_without_its_record_is_made_anew(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    outcome = cache.stage("export", {}, _write("1"))
    (outcome.directory / "stage.json").unlink()
    assert not cache.stage("export", {}, _write("2")).cached
    assert (outcome.directory / "result.txt").read_text() == "2"


def test_two_threads_that_need_one_stage_make_it_once(tmp_path: Path) -> None:
    made: list[int] = []

    def build(folder: Path) -> None:
        made.append(1)
        threading.Event().wait(0.2)
        (folder / "result.txt").write_text("x")

    threads = [threading.Thread(target=lambda: StageCache(tmp_path).stage("export", {}, build)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EdgeOptError, match=r"files cannot be written.*No space left.*--no-cache"):
        StageCache(tmp_path).stage("export", {}, full)


def test_a_full_disk_is_named_where_native_code_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        raise RuntimeError("iostream error")

    with pytest.raises(EdgeOptError, match=r"the disk is full.*iostream error.*--no-cache"):
        StageCache(tmp_path).stage("export", {}, full)


def test_an_unwritable_root_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeOptError, match=r"cannot be written.*EDGEOPT_CACHE_DIR"):
        StageCache(tmp_path / "file").stage("export", {}, _write("x"))


def test_a_disabled_cache_keeps_nothing() -> None:
    cache = StageCache(enabled=False)
    outcome = cache.stage("export", {}, _write("x"))
    assert outcome.directory.is_dir()
    cache.close()
    assert not outcome.directory.exists()


def test_clear_frees_what_entries_hold(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    cache.stage("export", {}, _write("x" * 1000))
    assert cache.clear(older_than_s=3600) == 0
    assert cache.clear() >= 1000
    assert list(cache.entries()) == []


def test_a_stage_that_the_time_limit_cut_short_is_made_again_by_the_next_run(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def cut(folder: Path) -> None:
        (folder / CUT_SHORT).touch()

    assert not cache.stage("quantize", {"model": "a"}, cut).cached
    assert not cache.stage("quantize", {"model": "a"}, _write("whole")).cached
    whole = cache.stage("quantize", {"model": "a"}, _write("never"))
    assert whole.cached
    assert (whole.directory / "result.txt").read_text() == "whole"
