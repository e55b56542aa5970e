"""A real browser, spoken to by its debugging protocol; for tests of what people see. Every wait has a limit."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

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


@contextmanager
def chromium() -> Iterator[Chromium]:
    """One that runs within the block."""
    folder = Path(tempfile.mkdtemp())
    running = Chromium(folder)
    try:
        yield running
    finally:
        running.end()
        shutil.rmtree(folder)


@asynccontextmanager
async def open_tab(browser: Chromium) -> AsyncIterator[Tab]:
    """A new tab, for at most `LIMIT_SECONDS`; closed with the block."""
    with anyio.fail_after(LIMIT_SECONDS):
        target = (await browser.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await browser.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = Tab(browser, session)
        await tab.call("Page.enable")
        await tab.call("Log.enable")
        browser.events.clear()
        yield tab
        await browser.call("Target.closeTarget", targetId=target)
