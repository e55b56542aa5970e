"""What a start on the engine may touch: decided by a driver of the test's own; the real ones are in the contracts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.engine.errors import Unavailable
from supervisor.engine.events import EngineEvent, Opened
from supervisor.engine.streams import Output
from supervisor.process.meter import Rate
from supervisor.process.output import GAP, Ring
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
    """Has the given output to follow, none by default, and ends it at `ends`."""

    def __init__(self, output: list[Output] | None = None) -> None:
        self.containers = self
        self.output = output or []
        self.ends = anyio.Event()
        self.since: list[float] = []
        self.breaks = 0
        if not self.output:
            self.ends.set()

    @asynccontextmanager
    async def follow(self, name: str, **options: Any) -> AsyncIterator[AsyncIterator[Any]]:
        self.since.append(options["since"])

        async def pieces() -> AsyncIterator[Output]:
            for piece in self.output:
                yield piece
                await anyio.lowlevel.checkpoint()
            if self.breaks:
                self.breaks -= 1
                raise Unavailable("gone for a moment")
            await self.ends.wait()

        yield pieces()


@asynccontextmanager
async def running(
    driver: Driver, engine: Engine | None = None, ring: Ring | None = None
) -> AsyncIterator[EngineBackend]:
    made = ring or Ring("postgres")
    backend = EngineBackend(driver, engine or Engine(), made, look_seconds=0.01)  # type: ignore[arg-type]
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


async def _shown(ring: Ring, text: str) -> None:
    with anyio.fail_after(10):
        while not any(line.text == text for line in ring.tail(100_000)):
            await ring.wait_newer(ring.number)


def _flood() -> list[Output]:
    """A frame a line, as the engine sends them; the last line comes in two of them."""
    lines = [Output("stdout", b"%06d\n" % number) for number in range(20_000)]
    return [*lines, Output("stderr", b"an error\n"), Output("stdout", b"the last "), Output("stdout", b"one\n")]


async def test_a_container_that_floods_is_cut_counted_and_told_and_its_last_words_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.process.meter.PAUSE_SECONDS", 0.3)
    told: list[int] = []
    ring = Ring("postgres", rate=Rate(lines=1000, bytes=0), on_dropped=lambda dropped: told.append(dropped.lines))
    async with running(Driver(OLD), Engine(_flood()), ring):
        await _shown(ring, "the last one")
    texts = [line.text for line in ring.tail(100_000) if line.stream == "stdout"]
    assert texts[:1000] == [f"{number:06}" for number in range(1000)]
    assert len(texts) + ring.lines_dropped == 20_001
    assert len(texts) < 5000
    assert sum(told) == ring.lines_dropped
    assert [line.text for line in ring.tail(100_000) if line.stream == "stderr"] == ["an error"]
    assert any(line.stream == GAP for line in ring.tail(100_000))


async def test_what_a_container_that_ends_in_a_flood_said_last_is_shown_at_once() -> None:
    ring = Ring("postgres", rate=Rate(lines=1000, bytes=0))
    engine = Engine(_flood())
    engine.ends.set()
    async with running(Driver(OLD), engine, ring):
        await _shown(ring, "the last one")
    texts = [line.text for line in ring.tail(100_000) if line.stream == "stdout"]
    assert len(texts) + ring.lines_dropped == 20_001


async def test_of_a_run_that_is_found_all_is_followed_since_we_are_there() -> None:
    """It may be years old; or the engine began it, a moment after us and before our first look."""
    before = time.time()
    engine, driver = Engine([Output("stdout", b"ready\n")]), Driver(OLD)
    async with running(driver, engine) as backend:
        await _shown(backend.ring, "ready")
        assert [before <= since <= time.time() for since in engine.since] == [True]
        driver.seen = NEW
        backend.on_event(Opened())
        with anyio.fail_after(5):
            while len(engine.since) < 2:
                await anyio.sleep(0.01)
        assert engine.since[1] == 0.0, "of a new one all of it"


async def test_a_connection_that_breaks_is_taken_up_where_it_was() -> None:
    engine = Engine([Output("stdout", b"ready\n")])
    engine.breaks = 1
    before = time.time()
    async with running(Driver(OLD), engine):
        with anyio.fail_after(5):
            while len(engine.since) < 2:
                await anyio.sleep(0.01)
    assert before <= engine.since[0] < engine.since[1] <= time.time()
