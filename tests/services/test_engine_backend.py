"""What a start on the engine may touch: decided by a driver of the test's own; the real ones are in the contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.engine.events import EngineEvent, Opened
from supervisor.process.output import Ring
from supervisor.services import engine_backend
from supervisor.services.engine_backend import EngineBackend, Seen

pytestmark = pytest.mark.anyio

OLD = Seen(container="old", running=True)
NEW = Seen(container="new", running=True)


class Driver:
    """Does what its fields say."""

    name = "shop-postgres"

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.error: SupervisorError | None = None
        self.replaces = False
        self.halted = 0

    async def ensure(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.replaces

    async def look(self) -> Seen:
        return self.seen

    async def halt(self, grace_seconds: float) -> None:
        self.halted += 1
        self.seen = Seen()

    def concerns(self, event: EngineEvent) -> bool:
        return True


class Engine:
    """Has no output to follow."""

    def __init__(self) -> None:
        self.containers = self

    @asynccontextmanager
    async def follow(self, name: str, **options: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async def nothing() -> AsyncIterator[Any]:
            return
            yield

        yield nothing()


@asynccontextmanager
async def running(driver: Driver) -> AsyncIterator[EngineBackend]:
    backend = EngineBackend(driver, Engine(), Ring("postgres"), look_seconds=0.01)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        await group.start(backend.run)
        yield backend
        group.cancel_scope.cancel()


async def test_a_start_that_fails_before_it_changed_anything_stops_nothing() -> None:
    driver = Driver(OLD)
    driver.error = ConfigurationError("cannot use service 'shop-postgres': it belongs to somebody else")
    async with running(driver) as backend:
        with pytest.raises(ConfigurationError):
            await backend.start()
        assert backend.incarnation is not None
        await backend.abandon(1)
        assert driver.halted == 0
        await backend.stop(1)
        assert driver.halted == 1, "by hand it is stopped whatever became of the start"


async def test_what_was_started_is_stopped() -> None:
    driver = Driver(OLD)
    async with running(driver) as backend:
        await backend.start()
        await backend.abandon(1)
        assert driver.halted == 1
        assert backend.incarnation is None


async def test_a_start_that_replaces_what_runs_waits_for_its_successor() -> None:
    driver = Driver(OLD)
    driver.replaces = True
    async with running(driver) as backend, anyio.create_task_group() as group:
        group.start_soon(backend.start)
        await anyio.wait_all_tasks_blocked()
        assert backend.disowns(None, None)  # type: ignore[arg-type]
        driver.seen = NEW
        backend.on_event(Opened())
        with anyio.fail_after(5):
            while backend.disowns(None, None):  # type: ignore[arg-type]
                await anyio.sleep(0.01)


async def test_a_change_that_replaces_nothing_after_all_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_backend, "_REPLACE_SECONDS", 0.05)
    driver = Driver(OLD)
    driver.replaces = True
    async with running(driver) as backend:
        with anyio.fail_after(5):
            await backend.start()
        assert backend.container == "old"


async def test_what_cannot_be_placed_is_an_error_with_the_engines_reason() -> None:
    driver = Driver(Seen(blocked="no suitable node (host-mode port already in use)"))
    async with running(driver) as backend:
        with pytest.raises(SupervisorError, match="cannot start 'shop-postgres': no suitable node"):
            await backend.start()
