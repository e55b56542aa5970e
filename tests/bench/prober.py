"""The independent prober: `python -m tests.bench.prober STATE_DIR [--once] TARGET...` in a process of its own.

Targets: `postgres` and `redis` (with the app's own credentials, read from the state folder as soon as they are there),
`traefik`, and `http:PORT/PATH`. It asks every 2 ms while a target is down, every 10 ms while it is up, knows nothing of
the supervisor's code, and writes a JSON line for each change. Times are wall time, as those of the log.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

DOWN_SECONDS = 0.002
UP_SECONDS = 0.01
LIMIT_SECONDS = 2.0

Ask = Callable[[], Awaitable[bool]]
# The last is what a connection says that is lost at the wrong moment.
_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Postgres:
    """A login and a SELECT 1."""

    name = "postgres"

    def __init__(self, state: Path) -> None:
        self._port = _port(state, "postgres")
        self._password = (state / "secrets" / "postgres-app").read_text().strip()

    async def ask(self) -> bool:
        """Whether it answered."""
        if not accepts(self._port):
            return False
        try:
            connection: Any = await asyncpg.connect(
                host="127.0.0.1",
                port=self._port,
                user="dokploy",
                database="dokploy",
                password=self._password,
                timeout=LIMIT_SECONDS,
                ssl=False,
            )
        except _LOST:
            return False
        try:
            return bool(await connection.fetchval("SELECT 1", timeout=LIMIT_SECONDS) == 1)
        except _LOST:
            return False
        finally:
            connection.terminate()


class Redis:
    """AUTH and PING; LOADING is not ready. No library in between."""

    name = "redis"

    def __init__(self, state: Path) -> None:
        self._port = _port(state, "redis")
        self._password = (state / "secrets" / "redis").read_text().strip()

    async def ask(self) -> bool:
        """Whether it answered PONG."""
        if not accepts(self._port):
            return False
        text = f"AUTH {self._password}\r\nPING\r\n".encode()
        return b"+PONG" in await converse(self._port, text, until=lambda got: got.count(b"\r\n") >= 2)


class Http:
    """A GET that answers 200."""

    def __init__(self, name: str, port: int, path: str) -> None:
        self.name = name
        self._port = port
        self._path = path

    async def ask(self) -> bool:
        """Whether it answered 200."""
        if not accepts(self._port):
            return False
        text = f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        return (await converse(self._port, text, until=lambda got: b"\r\n" in got)).startswith(b"HTTP/1.1 200 ")


def _port(state: Path, name: str) -> int:
    return int(json.loads((state / "install.json").read_text())["ports"][name])


def accepts(port: int) -> bool:
    """Whether a connection is taken: on loopback this never waits, and it costs little while nothing listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def converse(port: int, text: bytes, *, until: Callable[[bytes], bool]) -> bytes:
    """Send `text` and give what comes back."""
    got = b""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(text)
                while not until(got):
                    chunk = await reader.read(4096)
                    if not chunk:
                        break
                    got += chunk
            finally:
                writer.close()
    except (OSError, TimeoutError):
        pass
    return got


async def made(make: Callable[[], Any]) -> Any:
    """Wait until the state folder has what a target needs."""
    while True:
        try:
            return make()
        except (OSError, KeyError, ValueError):
            await asyncio.sleep(DOWN_SECONDS)


async def watch(name: str, make: Callable[[], Any], *, once: bool) -> None:
    """Write a line at each change of one target. `began` is when the answered question was asked: the truth is between
    the last question that failed and the end of the first that did not."""
    target = await made(make)
    up = None
    last_bad = time.time()
    while True:
        began = time.time()
        good = await target.ask()
        ended = time.time()
        if good is not up:
            up = good
            line = {"target": name, "up": good, "began": began, "ended": ended, "last_bad": last_bad}
            print(json.dumps(line), flush=True)
            if good and once:
                return
        if not good:
            last_bad = ended
        await asyncio.sleep(UP_SECONDS if good else DOWN_SECONDS)


def maker(word: str, state: Path) -> Callable[[], Any]:
    """How to make the target named on the command line."""
    match word:
        case "postgres":
            return lambda: Postgres(state)
        case "redis":
            return lambda: Redis(state)
        case "traefik":
            return lambda: Http("traefik", _port(state, "traefik-ping"), "/ping")
        case _:
            port, _, path = word.removeprefix("http:").partition("/")
            return lambda: Http(word, int(port), f"/{path}")


async def main(arguments: list[str]) -> None:
    """Watch every target until all are up (`--once`), else until killed."""
    once = "--once" in arguments
    state, *words = (word for word in arguments if word != "--once")
    print(json.dumps({"target": "prober", "up": True}), flush=True)
    await asyncio.gather(*(watch(word, maker(word, Path(state)), once=once) for word in words))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
