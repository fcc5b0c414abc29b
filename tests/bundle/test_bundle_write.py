"""A bundle is written whole or not at all, and nothing that is there is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest
from sample_bundle import fill_bundle, sample_bundle, sample_manifest

from edgeopt.bundle import replace, write
from edgeopt.bundle.layout import MANIFEST, RECIPE
from edgeopt.bundle.load import load_bundle, verify_files
from edgeopt.bundle.write import check_destination, write_bundle
from edgeopt.core.errors import BundleError, DataError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def recipe(bundle: Path) -> str:
    return (bundle / RECIPE).read_text()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(params=["exchange", "two renames"])
def any_swap(request, monkeypatch):
    """Both ways to replace a folder: Linux's atomic exchange, and what every other system does."""
    if request.param == "two renames":
        monkeypatch.setattr(replace, "_exchange", lambda one, other: False)


def test_a_new_bundle_holds_every_file_with_its_hash_and_nothing_beside_it(tmp_path):
    path = sample_bundle(tmp_path / "dist" / "linear")
    bundle = load_bundle(path)
    assert set(bundle.manifest.files) == {
        "model.onnx", "engine/model.onnx", "recipe.yaml", "target.yaml", "calibration.json", "report.json",
        "reference_inputs.npz", "reference_outputs.npz",
    }  # fmt: skip
    assert verify_files(bundle) == []
    assert names(tmp_path / "dist") == ["linear"]


def test_the_folder_is_as_readable_as_any_other_new_folder(tmp_path):
    path = sample_bundle(tmp_path / "linear")
    (tmp_path / "plain").mkdir()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_twice_gives_the_same_bytes(tmp_path):
    one, two = sample_bundle(tmp_path / "one"), sample_bundle(tmp_path / "two")
    assert (one / MANIFEST).read_bytes() == (two / MANIFEST).read_bytes()


def test_a_bundle_replaces_the_bundle_before_it(tmp_path, any_swap):
    sample_bundle(tmp_path / "linear", note="old")
    path = sample_bundle(tmp_path / "linear", note="new")
    assert "new" in recipe(path)
    assert verify_files(load_bundle(path)) == []
    assert names(tmp_path) == ["linear"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "linear").mkdir()
    assert load_bundle(sample_bundle(tmp_path / "linear")).manifest.recipe == "fp32"


def test_a_bundle_of_a_newer_edgeopt_is_a_bundle_too(tmp_path):
    path = sample_bundle(tmp_path / "linear")
    document = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(document | {"schema_version": 99}))
    assert load_bundle(sample_bundle(path)).manifest.schema_version == 1


def test_a_link_to_a_bundle_stays_and_what_it_points_to_is_replaced(tmp_path):
    sample_bundle(tmp_path / "real", note="old")
    (tmp_path / "latest").symlink_to("real")
    assert sample_bundle(tmp_path / "latest", note="new") == tmp_path.resolve() / "real"
    assert (tmp_path / "latest").is_symlink()
    assert "new" in recipe(tmp_path / "latest")


def test_a_folder_that_is_no_bundle_is_refused_and_kept(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("precious")
    with pytest.raises(BundleError, match=r"exists and is not an edgeopt bundle.*photos.*-o"):
        sample_bundle(tmp_path / "photos")
    assert (tmp_path / "photos" / "one.jpg").read_text() == "precious"
    assert names(tmp_path) == ["photos"]


@pytest.mark.parametrize("manifest", ["{}", "[]", "not json", '{"kind": "something else", "files": {}}'])
def test_a_foreign_manifest_does_not_make_a_folder_a_bundle(tmp_path, manifest):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / MANIFEST).write_text(manifest)
    with pytest.raises(BundleError, match="is not an edgeopt bundle"):
        sample_bundle(tmp_path / "app")
    assert (tmp_path / "app" / MANIFEST).read_text() == manifest


def test_a_bundle_with_files_of_the_user_in_it_is_refused_and_kept(tmp_path):
    path = sample_bundle(tmp_path / "linear")
    (path / "engine" / "notes.txt").write_text("precious")
    with pytest.raises(BundleError, match=r"files that edgeopt did not write.*engine/notes\.txt.*Move them"):
        sample_bundle(path)
    assert (path / "engine" / "notes.txt").read_text() == "precious"


def test_a_file_at_the_destination_is_refused_and_kept(tmp_path):
    (tmp_path / "linear").write_text("precious")
    with pytest.raises(BundleError, match="destination is a file"):
        sample_bundle(tmp_path / "linear")
    assert (tmp_path / "linear").read_text() == "precious"


def test_a_destination_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="lies below a file"):
        sample_bundle(tmp_path / "file" / "linear")


def test_an_unwritable_parent_is_refused_before_the_work(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BundleError, match=rf"cannot be written.*{tmp_path}: Read-only file system.*-o"):
        check_destination(tmp_path / "linear")


def test_a_full_disk_is_refused_before_the_work_and_keeps_no_probe(tmp_path, monkeypatch):
    def refuse(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(BundleError, match="disk is full"):
        check_destination(tmp_path / "linear")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_parent_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BundleError, match=r"cannot be written.*Permission denied"):
        sample_bundle(tmp_path / "linear")


def test_a_loop_of_links_is_one_clear_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(BundleError, match=r"destination cannot be looked at|cannot be written|is not writable"):
        sample_bundle(tmp_path / "a" / "linear")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(tmp_path):
    old = sample_bundle(tmp_path / "linear", note="old")

    def fill(folder: Path) -> None:
        fill_bundle(folder)
        with Path("/dev/full").open("w") as file:
            file.write("x")

    with pytest.raises(BundleError, match=r"disk is full.*Free some space"):
        write_bundle(old, fill, lambda _: sample_manifest())
    assert "old" in recipe(old)
    assert names(tmp_path) == ["linear"]


def test_a_disk_that_fills_up_at_the_last_flush_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="disk is full"):
        sample_bundle(tmp_path / "deep" / "er" / "linear")
    assert names(tmp_path) == []


def test_another_error_of_the_system_is_shown_in_its_own_words(tmp_path):
    def fill(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(folder / "model.onnx"))

    with pytest.raises(BundleError, match=r"cannot be written.*model\.onnx: Input/output error"):
        write_bundle(tmp_path / "linear", fill, lambda _: sample_manifest())
    assert names(tmp_path) == []


def test_a_mounted_folder_is_told_from_other_trouble(tmp_path, monkeypatch):
    def busy(self):
        raise OSError(errno.EBUSY, "Device or resource busy", str(self))

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "rmdir", busy)
    with pytest.raises(BundleError, match=r"Device or resource busy.*mounted folder.*-o .*out/bundle"):
        sample_bundle(tmp_path / "out")


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), DataError("The data is bad."), ValueError("a bug")])
def test_an_interrupted_fill_leaves_nothing_and_passes_its_error_on(tmp_path, failure):
    def fill(folder: Path) -> None:
        fill_bundle(folder)
        raise failure

    with pytest.raises(type(failure)):
        write_bundle(tmp_path / "new" / "linear", fill, lambda _: sample_manifest())
    assert names(tmp_path) == []


def test_an_interrupted_manifest_leaves_the_old_bundle(tmp_path):
    old = sample_bundle(tmp_path / "linear", note="old")

    def interrupted(folder: Path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bundle(old, fill_bundle, interrupted)
    assert "old" in recipe(old)
    assert names(tmp_path) == ["linear"]


def test_a_swap_that_fails_halfway_puts_the_old_bundle_back(tmp_path, monkeypatch):
    old = sample_bundle(tmp_path / "linear", note="old")
    monkeypatch.setattr(replace, "_exchange", lambda one, other: False)
    rename = Path.rename

    def failing(self, target):
        if ".partial-" in self.name:
            raise OSError(errno.EIO, "Input/output error", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(BundleError, match="Input/output error"):
        sample_bundle(tmp_path / "linear", note="new")
    assert "old" in recipe(old)
    assert names(tmp_path) == ["linear"]


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc/hostname"), os.mkfifo], ids=["link", "fifo"])
def test_a_bundle_holds_plain_files_only(tmp_path, make):
    def fill(folder: Path) -> None:
        fill_bundle(folder)
        make(folder / "engine" / "odd")

    with pytest.raises(BundleError, match=r"plain files only.*engine/odd"):
        write_bundle(tmp_path / "linear", fill, lambda _: sample_manifest())
    assert names(tmp_path) == []


def test_fill_does_not_write_the_manifest(tmp_path):
    with pytest.raises(BundleError, match="manifest is written last"):
        write_bundle(tmp_path / "x", lambda folder: (folder / MANIFEST).write_text("{}"), lambda _: sample_manifest())


def test_a_killed_run_leaves_the_old_bundle_and_the_next_run_cleans_up(tmp_path):
    old = sample_bundle(tmp_path / "linear", note="old")
    script = """
import os, signal, sys
from pathlib import Path
from edgeopt.bundle.write import write_bundle

def fill(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_bundle(Path(sys.argv[1]), fill, None)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    killed = subprocess.run([sys.executable, "-c", script, str(old)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(".partial-" in name for name in names(tmp_path))
    assert "old" in recipe(old)
    assert verify_files(load_bundle(old)) == []

    sample_bundle(old, note="new")
    assert "new" in recipe(old)
    assert names(tmp_path) == ["linear"]


def test_an_old_bundle_set_aside_by_a_killed_run_comes_back_even_if_the_next_run_fails(tmp_path):
    destination = tmp_path / "linear"
    sample_bundle(destination, note="old")
    aside = destination.with_name(f".linear.old-{replace._host()}-{dead_pid()}-aa")
    destination.rename(aside)

    def fill(folder: Path) -> None:
        raise DataError("The data is bad.")

    with pytest.raises(DataError):
        write_bundle(destination, fill, lambda _: sample_manifest())
    assert "old" in recipe(destination)
    assert names(tmp_path) == ["linear"]


@pytest.mark.parametrize(
    ("owner", "age_s", "stays"),
    [
        ("{host}-{dead}-aa", 0, False),
        ("{host}-{alive}-aa", 0, True),
        ("elsewhere-{dead}-aa", 0, True),
        ("elsewhere-{dead}-aa", 90_000, False),
        ("nonsense", 0, True),
    ],
)
def test_only_leftovers_of_runs_that_are_gone_are_deleted(tmp_path, owner, age_s, stays):
    owner = owner.format(host=replace._host(), dead=dead_pid(), alive=os.getppid())
    leftover = tmp_path / f".linear.partial-{owner}"
    leftover.mkdir()
    then = leftover.stat().st_mtime - age_s
    os.utime(leftover, (then, then))
    sample_bundle(tmp_path / "linear")
    assert leftover.exists() is stays


def test_leftovers_of_another_destination_are_let_be(tmp_path):
    other = tmp_path / f".linear2.partial-{replace._host()}-{dead_pid()}-aa"
    other.mkdir()
    sample_bundle(tmp_path / "linear")
    assert other.exists()


def test_several_writers_at_once_leave_one_whole_bundle(tmp_path, any_swap):
    failures = []

    def run(note: str) -> None:
        try:
            sample_bundle(tmp_path / "linear", note=note)
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"writer {index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert verify_files(load_bundle(tmp_path / "linear")) == []
    assert names(tmp_path) == ["linear"]


def test_a_writer_that_never_ends_is_named_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_LOCK_TIMEOUT_S", 0.1)
    held = []
    file_lock = filelock.FileLock
    monkeypatch.setattr(filelock, "FileLock", lambda path, timeout: held.append(path) or file_lock(path, timeout))
    sample_bundle(tmp_path / "linear", note="old")
    with file_lock(held[0]), pytest.raises(BundleError, match="Another edgeopt has been writing"):
        sample_bundle(tmp_path / "linear", note="new")
    assert "old" in recipe(tmp_path / "linear")
    assert names(tmp_path) == ["linear"]
