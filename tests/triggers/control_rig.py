"""A real control server on a real unix socket, around fakes of what it serves; shared by the tests of both ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketStream, TaskGroup

from supervisor.client.control import Answer, ControlClient
from supervisor.core.requests import Outcome, Request, Result
from supervisor.observe.eventlog import EventLog
from supervisor.process.output import Ring
from supervisor.triggers.control import ControlServer

LIMIT_SECONDS = 10.0


class Rings:
    """The log source: a ring a name."""

    def __init__(self) -> None:
        self.rings: dict[str, Ring] = {}

    def ring(self, name: str) -> Ring:
        return self.rings.setdefault(name, Ring(name))

    def sources(self) -> list[str]:
        return sorted(self.rings)

    def get(self, name: str) -> Ring | None:
        return self.rings.get(name)


class Rig:
    """What the server is built on; `gate` holds submitted requests back until it is set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status: dict[str, Any] = {
            "state": "running",
            "reason": "",
            "apps": [{"app": "app"}],
            "services": [{"service": "postgres"}, {"service": "redis"}],
        }
        self.requests: list[Request] = []
        self.finished: list[Request] = []
        self.asked = anyio.Event()
        self.gate = anyio.Event()
        self.gate.set()
        self.outcome = Outcome(result=Result.OK, elapsed_seconds=0.5, phases={"start": 0.25})
        self.error: Exception | None = None
        self.events = EventLog()
        self.logs = Rings()
        self.client = ControlClient(str(path))
        self.options: dict[str, Any] = {}

    async def submit(self, request: Request) -> Outcome:
        self.requests.append(request)
        self.asked.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.finished.append(request)
        return self.outcome

    def server(self) -> ControlServer:
        return ControlServer(
            self.path,
            read_status=lambda: self.status,
            submit=self.submit,
            events=self.events,
            logs=self.logs,
            **self.options,
        )

    async def get(self, resource: str) -> Answer:
        return await anyio.to_thread.run_sync(self.client.get, resource, abandon_on_cancel=True)

    async def post(self, resource: str) -> Answer:
        return await anyio.to_thread.run_sync(self.client.post, resource, abandon_on_cancel=True)

    async def connect(self) -> SocketStream:
        return await anyio.connect_unix(self.path)

    @asynccontextmanager
    async def stream(self, resource: str, *headers: str) -> AsyncIterator[Reader]:
        """A GET whose answer is read as it comes; its head is read already."""
        async with await self.connect() as connection:
            head = "".join(f"{header}\r\n" for header in ("Host: supervisor", *headers))
            await connection.send(f"GET {resource} HTTP/1.1\r\n{head}\r\n".encode())
            reader = Reader(connection)
            await reader.until("\r\n\r\n")
            yield reader


class Reader:
    """Everything received so far, and waiting for more of it."""

    def __init__(self, connection: SocketStream) -> None:
        self._connection = connection
        self.text = ""

    async def until(self, wanted: str) -> str:
        """Read until `wanted` was received; raises TimeoutError when it is not."""
        with anyio.fail_after(LIMIT_SECONDS):
            while wanted not in self.text:
                self.text += (await self._connection.receive()).decode()
        return self.text

    async def to_end(self) -> str:
        """Read until the server closes; raises when it breaks off instead."""
        with anyio.fail_after(LIMIT_SECONDS):
            try:
                while True:
                    self.text += (await self._connection.receive()).decode()
            except anyio.EndOfStream:
                return self.text


@asynccontextmanager
async def serving(rig: Rig) -> AsyncIterator[TaskGroup]:
    """The server runs, and is cancelled at the end; a test has 10 s."""
    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            await group.start(rig.server().run)
            yield group
            group.cancel_scope.cancel()
