"""What every backend promises: child process, Swarm service, container, and the fake that faster tests use."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import anyio
import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.probe.verdict import good
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.backend import Backend, ChildBackend
from tests.contracts.engine_made import container, swarm_service
from tests.contracts.plays import Play
from tests.engine_rig.engine import Share
from tests.services.fakes import FakeBackend

pytestmark = pytest.mark.anyio

CODES = {
    Play.SPEAKS: "import sys,time; print('up', flush=True); time.sleep(60)",
    Play.ENDS: "raise SystemExit(3)",
    Play.STUBBORN: "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
}
LIMIT_SECONDS = 30


def command(play: Play) -> Command:
    return Command(name="thing", argv=[sys.executable, "-S", "-c", CODES[play]], env={})


@asynccontextmanager
async def child(play: Play) -> AsyncIterator[Backend]:
    reaper = Reaper()

    async def prepare() -> Command:
        return command(play)

    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        yield ChildBackend("thing", prepare, reaper=reaper, ring=Ring("thing"))
        await reaper.end_all()
        group.cancel_scope.cancel()


@asynccontextmanager
async def fake(play: Play) -> AsyncIterator[Backend]:
    backend = FakeBackend()
    backend.says = "" if play is Play.ENDS else "up"
    backend.ends_with = 3 if play is Play.ENDS else None
    backend.ignores_stop = play is Play.STUBBORN
    yield backend


Make = Callable[[Play], AbstractAsyncContextManager[Backend]]
ON_ENGINE: dict[str, Callable[[Share, Play], AbstractAsyncContextManager[Backend]]] = {
    "swarm service": swarm_service,
    "container": container,
}
PLAIN: dict[str, Make] = {"child process": child, "fake": fake}


@pytest.fixture(params=[*PLAIN, *(pytest.param(name, marks=pytest.mark.engine) for name in ON_ENGINE)])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param in PLAIN:
        return PLAIN[request.param]
    return partial(ON_ENGINE[request.param], request.getfixturevalue("docker"))


async def test_nothing_runs_before_the_start(make: Make) -> None:
    async with make(Play.SPEAKS) as backend:
        assert backend.incarnation is None
        assert backend.pid is None
        await backend.stop(1)


async def test_it_runs_after_the_start_and_its_output_is_a_sign(make: Make) -> None:
    async with make(Play.SPEAKS) as backend:
        with anyio.fail_after(LIMIT_SECONDS):
            await backend.start()
            assert backend.incarnation
            while not backend.ring.tail(1):
                await backend.wait_sign(backend.sign_mark())
        assert backend.ring.tail(1)[0].text == "up"
        await backend.stop(5)


async def test_its_end_is_told_with_its_status(make: Make) -> None:
    async with make(Play.ENDS) as backend:
        with anyio.fail_after(LIMIT_SECONDS):
            await backend.start()
            end = await backend.wait_end()
        assert end.code == 3
        assert backend.incarnation is None


async def test_each_start_is_another_incarnation(make: Make) -> None:
    async with make(Play.SPEAKS) as backend:
        with anyio.fail_after(LIMIT_SECONDS):
            await backend.start()
            first = backend.incarnation
            await backend.stop(5)
            assert backend.incarnation is None
            await backend.start()
            assert backend.incarnation not in (None, first)
            await backend.stop(5)


async def test_a_stop_takes_a_stubborn_one_by_force_after_its_grace(make: Make) -> None:
    async with make(Play.STUBBORN) as backend:
        with anyio.fail_after(LIMIT_SECONDS):
            await backend.start()
            while not backend.ring.tail(1):
                await backend.wait_sign(backend.sign_mark())
            await backend.stop(0.2)
        assert backend.incarnation is None
        assert (await backend.wait_end()).status == 137


async def test_an_answer_is_not_ours_once_it_ended(make: Make) -> None:
    async with make(Play.ENDS) as backend:
        with anyio.fail_after(LIMIT_SECONDS):
            await backend.start()
            await backend.wait_end()
        assert backend.disowns(good(), None)


async def test_a_program_that_is_not_there_is_a_configuration_error() -> None:
    reaper = Reaper()

    async def prepare() -> Command:
        return Command(name="thing", argv=["/no/such/program"], env={})

    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        with pytest.raises(ConfigurationError, match="no program '/no/such/program'"):
            await ChildBackend("thing", prepare, reaper=reaper, ring=Ring("thing")).start()
        group.cancel_scope.cancel()


async def test_a_sign_that_came_after_the_mark_is_not_missed(make: Make) -> None:
    async with make(Play.SPEAKS) as backend:
        with anyio.fail_after(LIMIT_SECONDS):
            mark = backend.sign_mark()
            await backend.start()
            while not backend.ring.tail(1):
                await anyio.sleep(0.01)
            await backend.wait_sign(mark)
        await backend.stop(5)
