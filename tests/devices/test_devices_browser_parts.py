"""What a browser device is made of, without a browser: messages, the page's server, finding and fetching what it needs."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import stat
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeopt.core.errors import DeviceError
from edgeopt.core.spec import DTYPES
from edgeopt.devices.browser import driver as driver_module
from edgeopt.devices.browser import runtime as web
from edgeopt.devices.browser.chromium import find_chromium
from edgeopt.devices.browser.driver import Driver
from edgeopt.devices.browser.server import PageServer
from edgeopt.devices.browser.wire import pack, unpack

shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
any_array = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shapes))


@given(st.dictionaries(st.text(max_size=8), any_array, max_size=4))
def test_arrays_come_out_of_a_message_as_they_went_in(given_arrays):
    message = pack(given_arrays)
    found = unpack(message)
    assert list(found) == list(given_arrays)
    for name, array in given_arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
    assert all(entry["offset"] % 8 == 0 for entry in header)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "unpack_from requires"),
        (b"\x05\x00\x00\x00[{}", "Expecting|Extra|delimiter"),
        (b"\x02\x00\x00\x0012", "not iterable"),
        (pack({"x": np.zeros(64, np.float32)})[:-8], "buffer is smaller"),
        (pack({"x": np.zeros(2, np.float32)}).replace(b"float32", b"object0"), "element type 'object0'"),
    ],
)
def test_a_message_that_is_none_is_one_clear_error(message, why):
    with pytest.raises(DeviceError, match=f"sent outputs that cannot be read.*({why})"):
        unpack(message)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>hello")
    (tmp_path / "secret.txt").write_text("secret")
    with PageServer({"page": tmp_path / "page"}) as made:
        yield made


def ask(server, address, *, method="GET", body=None, host=None):
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    connection.request(method, address, body=body, headers={"Host": host or where.netloc})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content, reply.headers


def below(server, rest):
    return f"{urlsplit(server.url).path}{rest}"


def test_the_page_is_served_isolated_and_may_talk_to_nobody_else(server):
    status, content, headers = ask(server, below(server, "page/index.html"))
    assert (status, content) == (200, b"<p>hello")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "rest",
    ["page/../secret.txt", "page/..%2fsecret.txt", "secret.txt", "page/", "nowhere/index.html", "given/nothing", ""],
)
def test_nothing_else_of_the_disk_can_be_fetched(server, rest):
    assert ask(server, below(server, rest))[0] == 404


def test_without_the_secret_of_this_run_there_is_nothing(server):
    assert ask(server, "/page/index.html")[0] == 404
    assert ask(server, "/wrong/page/index.html")[0] == 404


def test_a_page_of_another_site_that_points_here_gets_nothing(server):
    assert ask(server, below(server, "page/index.html"), host="evil.example")[0] == 404


def test_what_is_given_can_be_fetched_until_it_is_forgotten(server):
    address = urlsplit(server.give("a/x", b"123")).path
    assert ask(server, address)[:2] == (200, b"123")
    server.forget("a/")
    assert ask(server, address)[0] == 404


def test_only_what_is_expected_is_taken(server):
    address = urlsplit(server.expect("out")).path
    assert ask(server, address.replace("out", "other"), method="POST", body=b"x")[0] == 404
    assert server.taken("out") is None
    address = urlsplit(server.expect("out")).path
    assert ask(server, address, method="POST", body=b"abc")[0] == 204
    assert server.taken("out") == b"abc"
    assert server.taken("out") is None


def test_a_message_without_a_length_is_not_read(server):
    address = urlsplit(server.expect("out")).path
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    connection.putrequest("POST", address)
    connection.endheaders()
    assert connection.getresponse().status == 400


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_chromium_is_found_on_path_and_says_its_name(tmp_path, monkeypatch):
    program(tmp_path / "chromium", "echo Chromium 156.0.8078.108 built on Debian")
    monkeypatch.delenv("EDGEOPT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    found = find_chromium()
    assert (found.path, found.name) == (tmp_path / "chromium", "Chromium 156")


def test_a_chromium_that_is_named_goes_first(tmp_path, monkeypatch):
    mine = program(tmp_path / "mine", "echo Google Chrome 140.1.2.3")
    monkeypatch.setenv("EDGEOPT_CHROMIUM", str(mine))
    assert find_chromium().name == "Google Chrome 140"


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (None, None, r"No Chromium was found.*Install the package chromium .*or set EDGEOPT_CHROMIUM"),
        ("nowhere", None, r"EDGEOPT_CHROMIUM names no program\. Received: 'nowhere'"),
        ("mine", "echo Firefox 150", r"The program is no Chromium\. Received: .*mine, which says 'Firefox 150'"),
        ("mine", "exit 3", r"Chromium does not say its version.*mine.*exit status 3"),
    ],
)
def test_a_chromium_that_cannot_be_used_is_one_clear_error(tmp_path, monkeypatch, variable, text, message):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("EDGEOPT_CHROMIUM", raising=False)
    if text is not None:
        variable = str(program(tmp_path / "mine", text))
    if variable is not None:
        monkeypatch.setenv("EDGEOPT_CHROMIUM", variable)
    with pytest.raises(DeviceError, match=message):
        find_chromium()


@pytest.mark.parametrize(
    ("versions", "host", "best"),
    [
        (["1.29.0", "1.30.0", "1.31.0-dev.20260914-8d85527a0", "1.33.0"], "1.32.0", "1.30.0"),
        (["1.29.0", "1.30.1", "1.30.0"], "1.30.0", "1.30.1"),
        (["1.29.0", "1.30.0"], "", "1.30.0"),
        ("1.30.0", "1.32.0", "1.30.0"),
    ],
)
def test_the_newest_release_no_newer_than_the_runtime_here_is_taken(versions, host, best):
    assert web.best_version(versions, host) == best


def test_a_runtime_older_than_every_release_that_will_do_is_told(monkeypatch):
    with pytest.raises(DeviceError, match=r"fits onnxruntime 1\.20\.0 here\. Received: 1\.23\.0 \(1\.23 is the oldest"):
        web.best_version(["1.19.0", "1.23.0"], "1.20.0")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm: knows two releases, packs an archive of ours, and says whatever integrity it is told."""

    def make(*, integrity=None, files=web._FILES, view_fails=False):
        source = tmp_path / "source.tgz"
        with tarfile.open(source, "w:gz") as tar:
            for name in files:
                info = tarfile.TarInfo(f"package/dist/{name}")
                info.size = len(name)
                tar.addfile(info, io.BytesIO(name.encode()))
        digest = base64.b64encode(hashlib.sha512(source.read_bytes()).digest()).decode()
        said = json.dumps(integrity or f"sha512-{digest}")
        bin_ = tmp_path / "bin"
        bin_.mkdir(exist_ok=True)
        program(
            bin_ / "npm",
            f"""
case "$1 $3" in
  "view versions") {"echo registry is away >&2; exit 1" if view_fails else ""}
    echo '["1.24.0", "1.25.0"]' ;;
  "view dist.integrity") echo '{said}' ;;
  "pack --pack-destination") cp {source} "$4/onnxruntime-web.tgz" ;;
  *) echo "what? $*" >&2; exit 9 ;;
esac""",
        )
        monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin")
        monkeypatch.setattr(web, "_host_version", lambda: "1.25.1")
        return tmp_path / "data"

    return make


def test_what_a_page_needs_is_installed_and_held_to_its_hashes(npm):
    folder = npm()
    made = web.install_runtime(folder=folder)
    assert (made.version, made.host_version) == ("1.25.0", "1.25.1")
    assert web.find_runtime(folder) == made
    assert sorted(path.name for path in folder.iterdir()) == sorted([*web._FILES, "setup.json"])
    (folder / web._FILES[0]).write_text("something else")
    with pytest.raises(DeviceError, match=r"missing or was changed.*ort\.wasm\.min\.mjs.*devices setup browser"):
        web.find_runtime(folder)
    assert web.install_runtime("1.24.0", folder=folder).version == "1.24.0"
    assert web.find_runtime(folder).version == "1.24.0"
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".new-")] == []
    assert (web.remove_runtime(folder), web.remove_runtime(folder)) == (True, False)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"integrity": "sha512-AAAA"}, r"is not what the registry says"),
        ({"integrity": "none"}, r"knows no integrity of onnxruntime-web 1\.25\.0"),
        ({"files": web._FILES[:2]}, r"does not hold what a page needs.*\.wasm"),
        ({"view_fails": True}, r"npm view onnxruntime-web failed\. Received: registry is away"),
    ],
)
def test_an_archive_that_is_not_right_is_not_installed(npm, how, message):
    folder = npm(**how)
    with pytest.raises(DeviceError, match=message):
        web.install_runtime(folder=folder)
    assert not folder.exists()


def test_without_npm_the_error_names_node(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"npm was not found.*Install Node\.js"):
        web.install_runtime(folder=tmp_path / "data")


def test_nothing_set_up_says_what_to_run(tmp_path):
    with pytest.raises(
        DeviceError, match=r"onnxruntime-web is not set up yet.*Run edgeopt devices setup browser, once"
    ):
        web.find_runtime(tmp_path)
    (tmp_path / "setup.json").write_text("{}")
    with pytest.raises(DeviceError, match=r"The set-up of onnxruntime-web is damaged"):
        web.find_runtime(tmp_path)


def test_the_folder_is_the_users_unless_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path))
    assert web.runtime_folder() == tmp_path / "browser" / "onnxruntime-web"
    monkeypatch.delenv("EDGEOPT_DATA_DIR")
    assert web.runtime_folder().parts[-3:] == ("edgeopt", "browser", "onnxruntime-web")


def test_without_playwright_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "playwright.async_api", None)
    driver = Driver(Path("chromium"))
    try:
        with pytest.raises(DeviceError, match=r"Playwright.*not installed\. pip install 'edgeopt\[browser\]'"):
            driver.open("http://127.0.0.1:1/")
    finally:
        driver.close()


@pytest.mark.parametrize(("folder", "changed"), [("/tmp/short", False), ("/tmp/" + "long" * 20, True)])
def test_chromium_gets_a_short_folder_for_its_socket(monkeypatch, folder, changed):
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr("tempfile.gettempdir", lambda: folder)
    assert (driver_module._environment()["TMPDIR"] == "/tmp") == changed
