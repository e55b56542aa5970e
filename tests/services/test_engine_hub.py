"""One connection for all who live by the engine's events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from supervisor.engine.client import Endpoint
from supervisor.engine.errors import Unavailable
from supervisor.engine.events import EngineEvent, Lost, Opened, StreamItem
from supervisor.services import engine_hub
from supervisor.services.engine_hub import EngineHub

pytestmark = pytest.mark.anyio


class FakeEngine:
    """Gives the items that the test sends."""

    endpoint = Endpoint("unix:///nowhere.sock")

    def __init__(self) -> None:
        self.send, self._receive = anyio.create_memory_object_stream[StreamItem](8)

    @asynccontextmanager
    async def events(self, filters: Any = None) -> AsyncIterator[Any]:
        async with self._receive:
            yield self._receive


@asynccontextmanager
async def running() -> AsyncIterator[tuple[FakeEngine, EngineHub]]:
    engine = FakeEngine()
    hub = EngineHub(engine)  # type: ignore[arg-type]
    async with engine.send, anyio.create_task_group() as group:
        await group.start(hub.run)
        yield engine, hub
        group.cancel_scope.cancel()


async def test_every_listener_gets_every_item() -> None:
    async with running() as (engine, hub):
        heard: list[list[StreamItem]] = [[], []]
        for each in heard:
            hub.subscribe(each.append)
        items: list[StreamItem] = [Opened(), EngineEvent("container", "die", "c1"), Lost("gone")]
        for item in items:
            await engine.send.send(item)
        await anyio.wait_all_tasks_blocked()
        assert heard == [items, items]


async def test_a_start_waits_while_the_engine_is_away() -> None:
    async with running() as (engine, hub), anyio.create_task_group() as group:
        items: list[StreamItem] = [Opened(), Lost("gone")]
        for item in items:
            await engine.send.send(item)
        await anyio.wait_all_tasks_blocked()
        came = anyio.Event()

        async def wait() -> None:
            await hub.wait_up()
            came.set()

        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not came.is_set()
        await engine.send.send(Opened())
        with anyio.fail_after(5):
            await came.wait()


async def test_an_engine_that_stays_away_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_hub, "UP_SECONDS", 0.05)
    async with running() as (_, hub):
        with pytest.raises(Unavailable, match=r"cannot reach the engine at unix:///nowhere\.sock"):
            await hub.wait_up()


async def test_each_connection_counts_and_the_first_is_no_restart() -> None:
    async with running() as (engine, hub):
        await engine.send.send(Opened())
        await anyio.wait_all_tasks_blocked()
        assert (hub.opened, hub.engine_started) == (1, None)
        items: list[StreamItem] = [Lost("gone"), Opened()]
        for item in items:
            await engine.send.send(item)
        await anyio.wait_all_tasks_blocked()
        assert hub.opened == 2
        assert hub.engine_started is not None
