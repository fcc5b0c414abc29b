"""What the browser is given: a server on 127.0.0.1 that knows a few addresses, all below a secret of this run."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

__all__ = ["PageServer"]

logger = logging.getLogger(__name__)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # A page may use shared memory (threads of WebAssembly) and a clock of 5 µs only where it is isolated from others:
    # HTML standard, "Cross-origin opener policies", "Cross-origin embedder policies".
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Whatever a model does, nothing is loaded from elsewhere and nothing is sent there.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; img-src 'self' data:"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_LARGEST = 2**31


class PageServer:
    """A context manager; ``url`` is where it is. Addresses are names given here, never paths of the disk.

    Args:
        folders: First part of an address → a folder; the files directly in it can be fetched.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)
        self._given: dict[str, Path | bytes] = {}
        self._taken: dict[str, bytes | None] = {}
        self._lock = threading.Lock()
        self._token = secrets.token_urlsafe(24)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True, name="edgeopt-page").start()

    @property
    def url(self) -> str:
        """Ends in a slash."""
        return f"http://{self.host}/{self._token}/"

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def give(self, name: str, content: Path | bytes) -> str:
        """Let ``given/name`` be fetched; returns its address below the page."""
        with self._lock:
            self._given[name] = content
        return f"{self.url}given/{name}"

    def forget(self, prefix: str) -> None:
        """Stop giving whatever has a name that begins so."""
        with self._lock:
            for names in (self._given, self._taken):
                for name in [name for name in names if name.startswith(prefix)]:
                    del names[name]

    def expect(self, name: str) -> str:
        """Let one message be sent to the address that is returned."""
        with self._lock:
            self._taken[name] = None
        return f"{self.url}taken/{name}"

    def taken(self, name: str) -> bytes | None:
        """What was sent there; None where nothing was."""
        with self._lock:
            return self._taken.pop(name, None)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def find(self, address: str) -> tuple[Path | bytes, str] | None:
        """The content of an address and its type; None where there is nothing."""
        token, _, rest = address.lstrip("/").partition("/")
        place, _, name = rest.partition("/")
        if not secrets.compare_digest(token, self._token):
            return None
        with self._lock:
            content = self._given.get(name) if place == "given" else self._file(place, name)
        return None if content is None else (content, _TYPES.get(Path(name).suffix, "application/octet-stream"))

    def take(self, address: str, message: bytes) -> bool:
        """Keep a message that was expected."""
        token, _, rest = address.lstrip("/").partition("/")
        place, _, name = rest.partition("/")
        if not secrets.compare_digest(token, self._token) or place != "taken":
            return False
        with self._lock:
            if name not in self._taken:
                return False
            self._taken[name] = message
        return True

    def _file(self, place: str, name: str) -> Path | None:
        folder = self._folders.get(place)
        if folder is None or name != Path(name).name:
            return None
        return folder / name if (folder / name).is_file() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _handler(server: PageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = server.find(self.path) if self._is_meant_for_us() else None
            if found is None:
                self._answer(404, b"", "text/plain")
                return
            content, kind = found
            try:
                body = content if isinstance(content, bytes) else content.read_bytes()
            except OSError as error:
                logger.debug("a file could not be read", exc_info=error)
                self._answer(404, b"", "text/plain")
                return
            self._answer(200, body, kind)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > _LARGEST or not self._is_meant_for_us():
                self.close_connection = True  # its body is not read
                self._answer(400, b"", "text/plain")
                return
            taken = server.take(self.path, self.rfile.read(int(length)))
            self._answer(204 if taken else 404, b"", "text/plain")

        def _is_meant_for_us(self) -> bool:
            # A page of another site, whose name was made to point here, names that site.
            return self.headers.get("Host") == server.host

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            logger.debug(format, *args)

    return Handler
