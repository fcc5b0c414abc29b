"""Chromium, driven: one browser with one page, on a thread of its own with its own event loop.

Playwright brings no browser here: it drives the one that is installed. Its driver ends the browser and removes the
profile also where this process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from edgeopt.core.errors import DeviceError

__all__ = ["Driver", "Page"]

_T = TypeVar("_T")
_START_S = 60.0
_CLOSE_S = 10.0
_LONGEST_TMPDIR = 60
_ARGUMENTS = (
    # A machine without a network must not see Chromium try one, and no other traffic may run beside what is timed.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--disable-gpu",
)


class Driver:
    """Starts browsers; one driver serves any number of them, from any thread.

    Args:
        executable: The browser.
    """

    def __init__(self, executable: Path) -> None:
        self._executable = executable
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="edgeopt-browser")
        self._thread.start()
        self._playwright: Any = None

    def open(self, url: str) -> Page:
        """A fresh browser, opened on a page.

        Raises:
            DeviceError: Playwright is not installed, the browser does not start, or the page does not load.
        """
        return Page(self, url)

    def run(self, work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        """Do ``work`` on the driver's thread; a ``TimeoutError`` ends it."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits for it any more
            raise

    async def launch(self) -> Any:
        """A browser without a window."""
        if self._playwright is None:
            self._playwright = await _playwright().start()
        return await self._playwright.chromium.launch(
            executable_path=str(self._executable),
            headless=True,
            # Chromium refuses to run as root inside its own sandbox.
            chromium_sandbox=hasattr(os, "geteuid") and os.geteuid() != 0,
            args=list(_ARGUMENTS),
            env=_environment(),
            # Ctrl-C is this process's to handle: what was measured so far may still be wanted.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
            timeout=_START_S * 1e3,
        )

    def close(self) -> None:
        """End the driver, and with it whatever browser is left."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            if self._playwright is not None:
                self.run(self._playwright.stop(), _CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()


class Page:
    """A page in a browser of its own; a context manager that ends the browser."""

    def __init__(self, driver: Driver, url: str) -> None:
        self._driver = driver
        self._browser: Any = None
        self._page: Any = None
        self._said: list[str] = []
        self.pid = 0
        try:
            driver.run(self._open(url), 2 * _START_S)
        except BaseException as error:
            self.close()
            if isinstance(error, (DeviceError, KeyboardInterrupt, SystemExit)):
                raise
            raise DeviceError("Chromium does not start, or does not open the page.", got=_said_by(error)) from error

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Hand a request to the page, and wait for its reply.

        Raises:
            DeviceError: The page or the browser is gone, or did not answer in time; the browser is then ended.
        """
        if self._page is None:
            raise DeviceError("The browser is closed.", got=f"the request {request['do']!r}")
        try:
            reply = self._driver.run(self._page.evaluate("request => window.edgeopt.ask(request)", request), timeout_s)
        except TimeoutError:
            self.close()
            raise DeviceError(
                f"The browser did not answer {request['do']!r} within {timeout_s:g} s; it was ended.",
                fix="Give it longer, or measure fewer samples.",
            ) from None
        except Exception as error:  # whatever Playwright raises: a crashed page, a closed browser
            said = "; ".join(self._said[-3:])
            self.close()
            raise DeviceError(
                f"The browser was lost at {request['do']!r}.",
                got=_first(error),
                fix=f"It said: {said}" if said else None,
            ) from error
        return dict(reply)

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG.

        Raises:
            DeviceError: The page is gone, or the file cannot be written.
        """
        if self._page is None:
            raise DeviceError("The browser is closed, so there is no picture of it.")
        try:
            picture = self._driver.run(self._page.screenshot(full_page=True, type="png"), _START_S)
            file.write_bytes(picture)
        except Exception as error:
            raise DeviceError("No picture of the page can be made.", got=_first(error)) from error

    def close(self) -> None:
        """End the browser."""
        browser, self._browser, self._page = self._browser, None, None
        if browser is not None:
            with contextlib.suppress(Exception):
                self._driver.run(browser.close(), _CLOSE_S)

    async def _open(self, url: str) -> None:
        self._browser = await self._driver.launch()
        page = await self._browser.new_page(viewport={"width": 800, "height": 900})
        page.on("pageerror", lambda error: self._said.append(_first(error)))
        page.on("crash", lambda _: self._said.append("the page crashed"))
        page.on("console", lambda message: self._said.append(message.text) if message.type == "error" else None)
        await page.goto(url, timeout=_START_S * 1e3)
        await page.wait_for_function("window.edgeopt !== undefined", timeout=_START_S * 1e3)
        self.pid = await _pid(self._browser)
        self._page = page

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _playwright() -> Any:
    try:
        from playwright.async_api import async_playwright  # noqa: PLC0415
    except ImportError as error:
        raise DeviceError(
            "Playwright, which drives the browser, is not installed.", fix="pip install 'edgeopt[browser]'"
        ) from error
    return async_playwright()


async def _pid(browser: Any) -> int:
    """The browser's own process."""
    session = await browser.new_browser_cdp_session()
    told = await session.send("SystemInfo.getProcessInfo")
    await session.detach()
    return next(int(process["id"]) for process in told["processInfo"] if process["type"] == "browser")


def _environment() -> dict[str, str | float | bool]:
    """This process's, with a short TMPDIR: Chromium's socket there has a name of 107 bytes at most (unix(7))."""
    chosen: dict[str, str | float | bool] = dict(os.environ)
    if os.name == "posix" and len(tempfile.gettempdir()) > _LONGEST_TMPDIR:
        chosen["TMPDIR"] = "/tmp"  # noqa: S108 - Chromium makes a folder of its own in it
    return chosen


def _said_by(error: object) -> str:
    """What Playwright says, and what the browser said before it ended."""
    lines = [line.strip() for line in str(error).splitlines()]
    browsers = [line.partition("[err]")[2].strip() or line for line in lines if "FATAL" in line or "ERROR" in line]
    return "; ".join([_first(error), *browsers[-2:]])[:600]


def _first(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
