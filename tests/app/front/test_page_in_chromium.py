"""The boot page as people meet it: in a real browser, without a hand on it from the first request to the app."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.app.front import page as words
from supervisor.app.front.holder import Holder
from supervisor.app.front.model import Holding

pytestmark = pytest.mark.anyio
LIMIT_SECONDS = 30.0
OPTIONS = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it refuses to have one as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# It speaks on descriptors 3 and 4, and only a shell can put ours there.
ON_3_AND_4 = 'read=$1 write=$2; shift 2; exec "$@" 3<&"$read" 4>&"$write"'
WAITING = Holding("starting", "", waiting=("postgres", "redis"))
NEARLY = Holding("starting", "redis does not answer yet", waiting=("redis",), done=("postgres",))
CRASHED = Holding(
    "failed", "exited with 1\n  " + "\n  ".join(f"line {n} of its output, {'long' * 30}" for n in range(40))
)


class Chromium:
    """A browser spoken to by its debugging protocol: JSON with a zero byte after each message, on two pipes."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        assert program is not None, "chromium is not installed; run scripts/test, or scripts/need chromium"
        theirs_in, self._write = _high(os.pipe())
        self._read, theirs_out = _high(os.pipe())
        ends = (theirs_in, theirs_out)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", ON_3_AND_4, "bash", *map(str, ends), program, *OPTIONS, f"--user-data-dir={folder}"],
                env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"},
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        for end in ends:
            os.close(end)
        os.set_blocking(self._read, False)
        self._numbers = 0
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def end(self) -> None:
        """Without its pipes it ends by itself; what is left of it past 10 s is killed."""
        os.close(self._write)
        os.close(self._read)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command, or `{"error": ...}`; events that come before it are kept in `events`."""
        self._numbers += 1
        command: dict[str, Any] = {"id": self._numbers, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            message = await self.message()
            if message.get("id") == command["id"]:
                return message.get("result") or {"error": message.get("error")}
            self.events.append(message)

    async def message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            await anyio.wait_readable(self._read)
            data = os.read(self._read, 65536)
            assert data, "chromium ended"
            self._buffer += data
        first, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


class Tab:
    """One tab; `until` follows it from load to load."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **parameters)

    async def value(self, expression: str) -> Any:
        """What a script in the page gives; None where the page was on its way out."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer.get("result", {}).get("value")

    async def until(self, text: str) -> str:
        """What the page shows once it has `text`, looked at after each load: nothing is clicked, nothing asked for."""
        shown = ""
        while text not in shown:
            await self.loaded()
            shown = await self.value("document.title + '\\n' + document.body.innerText") or ""
        return shown

    async def complaints(self) -> str:
        """What the browser's log has about the page up to now."""
        await self.value("1")  # what it said before this answer has come before it
        return "\n".join(
            event["params"]["entry"]["text"]
            for event in self._browser.events
            if event.get("method") == "Log.entryAdded" and event.get("sessionId") == self._session
        )

    async def loaded(self) -> None:
        while True:
            event = self._browser.events.pop(0) if self._browser.events else await self._browser.message()
            if event.get("method") == "Page.loadEventFired" and event.get("sessionId") == self._session:
                return


def _high(ends: tuple[int, int]) -> tuple[int, int]:
    """The pipe with both ends above 10, out of the way of 3 and 4."""
    first, second = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return first, second


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    folder = Path(tempfile.mkdtemp())
    chromium = Chromium(folder)
    yield chromium
    chromium.end()
    shutil.rmtree(folder)


@asynccontextmanager
async def open_tab(browser: Chromium) -> AsyncIterator[Tab]:
    with anyio.fail_after(LIMIT_SECONDS):
        target = (await browser.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await browser.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = Tab(browser, session)
        await tab.call("Page.enable")
        await tab.call("Log.enable")
        browser.events.clear()
        yield tab
        await browser.call("Target.closeTarget", targetId=target)


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A listening socket, held from the first page to the app, as a front holds it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "retry_after_seconds", lambda _: 1)


def address(port: socket.socket) -> str:
    return f"http://127.0.0.1:{port.getsockname()[1]}/"


async def serve_app(port: socket.socket) -> None:
    """An app of one page, until cancelled."""
    body = b"<!doctype html><title>Notes</title><h1>Welcome to your notes</h1>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with await anyio.abc.SocketListener.from_socket(port.dup()) as listener:

        async def answer(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                    await stream.receive()
                    await stream.send(head + body)
                    await stream.send_eof()
                    await stream.receive()

        await listener.serve(answer)


async def test_a_browser_follows_the_boot_and_ends_on_the_app(browser: Chromium, port: socket.socket) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    holder.tell(WAITING)
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        async with anyio.create_task_group() as holding:
            await holding.start(holder.run)
            await tab.call("Page.navigate", url=address(port))
            first = await tab.until("notes is starting")
            assert "postgres\nwaiting\nredis\nwaiting" in first
            holder.tell(NEARLY)
            assert "postgres\ndone\nredis\nwaiting\n\nredis does not answer yet" in await tab.until("done")
            holder.tell(CRASHED)
            assert "line 39 of its output" in await tab.until("notes is not running")
            holding.cancel_scope.cancel()
        group.start_soon(serve_app, port)
        assert (await tab.until("Welcome to your notes")).startswith("Notes\n")
        assert await tab.value("location.href") == address(port)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("holding", [NEARLY, CRASHED], ids=["starting", "failed"])
async def test_the_page_fits_a_phone_in_light_and_dark(
    browser: Chromium, port: socket.socket, holding: Holding
) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    holder.tell(holding)
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        await group.start(holder.run)
        await tab.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=2, mobile=True)
        grounds = []
        for scheme in ("light", "dark"):
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            await tab.call("Page.navigate", url=address(port))
            await tab.until("notes is")
            assert await tab.value("document.documentElement.scrollWidth") == 320
            grounds.append(await tab.value("getComputedStyle(document.body).backgroundColor"))
        group.cancel_scope.cancel()
    light, dark = (sum(map(int, ground.strip("rgb()").split(","))) for ground in grounds)
    assert light > 700 > 100 > dark


async def test_the_page_moves_only_where_motion_is_welcome(browser: Chromium, port: socket.socket) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    holder.tell(WAITING)
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        await group.start(holder.run)
        moving = []
        for motion in ("no-preference", "reduce"):
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": motion}])
            await tab.call("Page.navigate", url=address(port))
            await tab.until("notes is")
            moving.append(await tab.value("document.getAnimations().length"))
        group.cancel_scope.cancel()
    assert moving == [3, 0]


async def test_the_policy_has_nothing_against_the_page_and_all_against_more(
    browser: Chromium, port: socket.socket
) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        await group.start(holder.run)
        await tab.call("Page.navigate", url=address(port))
        await tab.until("notes is")
        assert "Content Security Policy" not in await tab.complaints()
        await tab.value("document.head.append(Object.assign(document.createElement('style'), {textContent: 'a {}'}))")
        assert "Content Security Policy" in await tab.complaints()
        group.cancel_scope.cancel()
