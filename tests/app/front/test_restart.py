"""The front `restart`: one generation has the public port, and the holding answer only while nobody does."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from supervisor.app.front import restart
from supervisor.app.front.model import FrontError, Holding
from supervisor.app.front.restart import RestartFront, port_is_free
from supervisor.core.errors import ConfigurationError
from tests.app.front.http_app import app_at, ask
from tests.contracts.front_contract import FrontContract, OpenFront
from tests.e2e.harness import free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(*, in_use: bool = True) -> AsyncIterator[OpenFront]:
    port = free_port()
    async with anyio.create_task_group() as group:
        front = RestartFront("app", port, in_use=in_use)
        await group.start(front.run)
        yield OpenFront(front, port)
        group.cancel_scope.cancel()


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A listener on a port of its own."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        yield listener


class TestRestartFront(FrontContract):
    """Through what every front promises."""

    def open(self) -> AbstractAsyncContextManager[OpenFront]:
        return opened()

    async def test_a_front_that_holds_says_503_and_why_and_serves_again_after_it(self) -> None:
        """In the order that one port allows: the holding answer ends before a place is given."""
        async with self.open() as found:
            await found.front.answer(Holding("failed", "why"))
            assert (await ask(found.port)).status == 503
            place = await found.front.take_place()
            async with app_at(place.port, "again", host=place.host):
                await found.front.switch(place)
                assert (await ask(found.port)).app == "again"


async def test_failed_app_is_answered_for_with_the_reason_until_the_next_one_starts() -> None:
    async with opened() as found:
        await found.front.answer(Holding("failed", "it exited with 1"))
        held = await ask(found.port)
        assert held.status == 503
        assert b"it exited with 1" in held.body
        await found.front.answer(Holding("failed", "it exited with 2"))
        assert b"it exited with 2" in (await ask(found.port)).body
        place = await found.front.take_place()
        assert port_is_free(found.port)
        assert not place.private


@pytest.mark.parametrize("phase", ["starting", "stopped", "restarting"])
async def test_port_that_is_closed_on_purpose_stays_closed(phase: str) -> None:
    async with opened() as found:
        await found.front.answer(Holding("failed", "why"))
        await found.front.answer(Holding(phase, "why"))
        with pytest.raises(OSError, match=r"refused|attempts failed"):
            await ask(found.port)


async def test_app_without_a_port_is_never_answered_for() -> None:
    async with opened(in_use=False) as found:
        await found.front.answer(Holding("failed", "why"))
        assert port_is_free(found.port)


async def test_stranger_on_the_port_is_named(stranger: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "_FREE_TRIES", 2)
    front = RestartFront("app", stranger.getsockname()[1])
    with pytest.raises(ConfigurationError, match=r"cannot start app 'app': port \d+ is taken by .*pid \d+"):
        await front.take_place()
    assert front.room == 1


async def test_stranger_on_the_port_is_no_matter_for_an_app_without_one(stranger: socket.socket) -> None:
    front = RestartFront("app", stranger.getsockname()[1], in_use=False)
    assert (await front.take_place()).port == stranger.getsockname()[1]


async def test_holding_answer_that_cannot_be_given_is_an_error_of_the_front(stranger: socket.socket) -> None:
    front = RestartFront("app", stranger.getsockname()[1])
    with pytest.raises(FrontError, match="is taken by"):
        await front.answer(Holding("failed", "why"))


async def test_stale_place_takes_nothing_from_its_successor() -> None:
    async with opened() as found:
        first = await found.front.take_place()
        await found.front.give_back(first)
        second = await found.front.take_place()
        await found.front.give_back(first)
        assert found.front.room == 0
        await found.front.switch(second)
