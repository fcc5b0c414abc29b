"""The connection to one device: asyncssh in a thread behind plain calls; lost lines are told apart from failures."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from edgeopt.core.errors import DeviceError
from edgeopt.devices.ssh.address import Address
from edgeopt.devices.ssh.failures import LineLost, connect_failure
from edgeopt.devices.ssh.host_keys import HostKeys

if TYPE_CHECKING:
    import asyncssh

__all__ = ["Channel", "Link"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

_BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_BLOCK = 1 << 16


class Link:
    """One device's connection. Not open until ``connect``; ``again`` opens it anew after it was lost.

    Args:
        accept_new_host_key: Take the key of a device that is not in known_hosts yet, and add it.
        connect_timeout_s: For the connection and for the login.
        keepalive_s: A line on which three questions, this far apart, stay unanswered is lost.
        patience_s: How long a lost line may take to come back.
    """

    def __init__(
        self,
        address: Address,
        *,
        accept_new_host_key: bool = False,
        connect_timeout_s: float = 10.0,
        keepalive_s: float = 5.0,
        patience_s: float = 60.0,
    ) -> None:
        self.address, self.patience_s = address, patience_s
        self._accept_new = accept_new_host_key
        self._connect_timeout_s, self._keepalive_s = connect_timeout_s, keepalive_s
        self._connection: asyncssh.SSHClientConnection | None = None
        self._lock = threading.RLock()
        self._ended = False
        self.generation = 0
        self.on_connect: list[Callable[[], None]] = []

    def connect(self) -> None:
        """Open the connection where it is not open yet.

        Raises:
            DeviceError: It cannot be opened; the cause and what to do are in the message.
        """
        with self._lock:
            if self._connection is not None:
                return
            if self._ended:
                raise DeviceError("The device is not in use any more.", got=self.address.text)
            if importlib.util.find_spec("asyncssh") is None:
                raise DeviceError(
                    "Devices over SSH need the package asyncssh.",
                    got=self.address.text,
                    fix="Install it with `pip install 'edgeopt[ssh]'`.",
                )
            self._connection = _wait(self._connected())
            self.generation += 1
            for tell in self.on_connect:
                tell()

    def again(self, generation: int) -> None:
        """Bring a line back that was lost in ``generation``; whoever asks second finds it there.

        Raises:
            DeviceError: It did not come back within the patience, or the device is not the same any more.
        """
        with self._lock:
            if self.generation != generation:
                return
            logger.warning("The line to %s was lost; connecting again.", self.address.text)
            started = time.monotonic()
            self._drop()
            for attempt in range(10**6):
                try:
                    self.connect()
                except (DeviceError, LineLost) as error:
                    self._drop()
                    left = self.patience_s - (time.monotonic() - started)
                    if left <= 0 or self._ended or _is_final(error):
                        raise DeviceError(
                            f"The line to {self.address.text} was lost and did not come back within "
                            f"{self.patience_s:g} s: {error}",
                            fix="Look at the device and its network, then run the command again.",
                        ) from error
                    time.sleep(min(left, _BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)]))
                else:
                    return

    def run(self, command: str, feed: Iterable[bytes] = (), sink: BinaryIO | None = None) -> tuple[int, bytes, str]:
        """Run a command to its end.

        Args:
            feed: What it reads on its standard input.
            sink: Where its standard output goes, instead of into the result.

        Returns:
            Exit status, standard output, standard error.

        Raises:
            LineLost: The connection ended first.
        """
        return _wait(self._run(self._open_connection(), command, feed, sink))

    def start(self, command: str) -> Channel:
        """Start a command that answers lines with lines.

        Raises:
            LineLost: There is no connection.
        """
        return Channel(_wait(self._start(self._open_connection(), command)))

    def close(self) -> None:
        """End the connection; the next use opens it anew."""
        with self._lock:
            self._drop()

    def end(self) -> None:
        """End the connection for good; whoever waits for the line to come back gives up at the next try."""
        self._ended = True
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _loop().call_soon_threadsafe(connection.abort)

    def _open_connection(self) -> asyncssh.SSHClientConnection:
        connection = self._connection
        if connection is None:
            raise LineLost
        return connection

    async def _connected(self) -> asyncssh.SSHClientConnection:
        import asyncssh  # noqa: PLC0415 - an extra, imported on use

        where, given = self.address.text, self.address
        keys = HostKeys((), accept_new=self._accept_new)
        try:
            # What ~/.ssh/config says of known_hosts, except that checking is never turned off.
            settings: dict[str, Any] = {"host": given.host, "config": ()}  # (): ~/.ssh/config; None would be none
            settings.update({"username": given.user} if given.user else {})
            settings.update({"port": given.port} if given.port else {})
            options = asyncssh.SSHClientConnectionOptions(**settings)
            files = options.known_hosts if isinstance(options.known_hosts, list) else []
            keys = HostKeys([Path(str(name)) for name in files], accept_new=self._accept_new)
            options = asyncssh.SSHClientConnectionOptions(
                options,
                known_hosts=keys.known(),
                client_factory=keys.client(),
                connect_timeout=self._connect_timeout_s,
                login_timeout=self._connect_timeout_s,
                keepalive_interval=self._keepalive_s,
                keepalive_count_max=3,
                password_auth=False,
                kbdint_auth=False,
            )
            port = (given.port,) if given.port else ()
            return await asyncio.wait_for(
                asyncssh.connect(given.host, *port, options=options), 3 * self._connect_timeout_s
            )
        except (OSError, ValueError, asyncssh.Error, asyncssh.ConfigParseError, DeviceError) as error:
            raise keys.refusal or connect_failure(error, where) from error

    @staticmethod
    async def _run(
        connection: asyncssh.SSHClientConnection, command: str, feed: Iterable[bytes], sink: BinaryIO | None
    ) -> tuple[int, bytes, str]:
        process = await _process(connection, command)

        async def write() -> None:
            # A program that ends early has said why on its output.
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                for chunk in feed:
                    process.stdin.write(chunk)
                    await process.stdin.drain()
                process.stdin.write_eof()

        async def read() -> bytes:
            if sink is None:
                return bytes(await process.stdout.read())
            while block := await process.stdout.read(_BLOCK):
                sink.write(block)
            return b""

        try:
            _, out, said = await asyncio.gather(write(), read(), process.stderr.read())
            await process.wait_closed()
        except Exception as error:
            if _is_loss(error):
                raise LineLost from error
            raise
        finally:
            process.close()
        if process.exit_status is None and process.exit_signal is None:
            raise LineLost
        return int(process.exit_status or 0), out, bytes(said).decode(errors="replace")

    @staticmethod
    async def _start(connection: asyncssh.SSHClientConnection, command: str) -> asyncssh.SSHClientProcess[bytes]:
        return await _process(connection, command)


class Channel:
    """A command on the device, spoken to in lines."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._process = process

    def exchange(self, line: str | None, timeout_s: float) -> str:
        """Send a line (None: only listen) and wait for the next one.

        Returns:
            The line; empty where the command has ended.

        Raises:
            LineLost: The connection ended.
            TimeoutError: Nothing came in time.
        """
        return _wait(self._exchange(line, timeout_s))

    def end(self, patience_s: float) -> bool:
        """Close the command's input, and wait; returns whether it ended."""
        try:
            return _wait(self._end(patience_s))
        except (LineLost, TimeoutError):
            return False

    @property
    def cause(self) -> str:
        """How the command ended."""
        signal = self._process.exit_signal
        return f"killed by SIG{signal[0]}" if signal else f"exit code {self._process.exit_status}"

    async def _exchange(self, line: str | None, timeout_s: float) -> str:
        try:
            if line is not None:
                self._process.stdin.write(line.encode() + b"\n")
                await self._process.stdin.drain()
            got = bytes(await asyncio.wait_for(self._process.stdout.readline(), timeout_s))
        except TimeoutError:
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                got = b""
            elif _is_loss(error):
                raise LineLost from error
            else:
                raise
        if not got:
            await self._process.wait_closed()
            if self._process.exit_status is None and self._process.exit_signal is None:
                raise LineLost
        return got.decode(errors="replace")

    async def _end(self, patience_s: float) -> bool:
        with contextlib.suppress(Exception):  # whatever it is, it has ended
            self._process.stdin.write_eof()
        await asyncio.wait_for(self._process.wait_closed(), patience_s)
        return True


async def _process(connection: asyncssh.SSHClientConnection, command: str) -> asyncssh.SSHClientProcess[bytes]:
    try:
        return await connection.create_process(command, encoding=None)
    except Exception as error:
        if _is_loss(error):
            raise LineLost from error
        raise DeviceError(
            "The device runs no further command.",
            got=error,
            fix="Each engine needs a channel of its own: raise MaxSessions in the device's sshd_config (10 by default), "
            "or measure fewer at once.",
        ) from error


def _is_loss(error: Exception) -> bool:
    import asyncssh  # noqa: PLC0415

    lost = (asyncssh.ConnectionLost, asyncssh.DisconnectError, ConnectionError)
    closed = isinstance(error, asyncssh.ChannelOpenError) and "closed" in str(error).lower()
    return isinstance(error, lost) or closed


def _is_final(error: Exception) -> bool:
    """Whether trying again cannot help: the device is another one, or lets us in no more."""
    text = str(error)
    return any(words in text for words in ("host key", "does not let this user in", "known_hosts"))


_running: list[asyncio.AbstractEventLoop] = []
_starting = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """The one event loop of all connections, in a thread of its own."""
    with _starting:
        if not _running:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="edgeopt-ssh", daemon=True).start()
            _running.append(loop)
    return _running[0]


def _wait(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work in the loop's thread; Ctrl-C here ends it there."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
