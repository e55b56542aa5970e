"""Letting a generation finish what it has."""

from __future__ import annotations

import anyio
import pytest

from supervisor.app.drain import LEAST_SECONDS, Drained, drain, is_through
from supervisor.app.front.model import Place, Traffic
from supervisor.app.spec import ReloadLimits
from tests.app.rig import FakeFront, until

LIMITS = ReloadLimits(drain_seconds=10, stream_seconds=100)
PLACE = Place("one", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("traffic", "elapsed", "through"),
    [
        (Traffic(), 0.0, False),
        (Traffic(), LEAST_SECONDS, True),
        (Traffic(in_flight=1), 9.9, False),
        (Traffic(in_flight=1), 10.0, True),
        (Traffic(streams=1), 99.9, False),
        (Traffic(streams=1), 100.0, True),
        (Traffic(in_flight=1, streams=1), 50.0, False),
        (Traffic(in_flight=1, streams=1), 100.0, True),
    ],
)
def test_requests_and_streams_have_limits_of_their_own(traffic: Traffic, elapsed: float, through: bool) -> None:
    assert is_through(traffic, elapsed, LIMITS) is through


def test_only_what_was_cut_is_told() -> None:
    assert str(Drained(3.0)) == ""
    assert str(Drained(3.0, 2, 1)) == "2 requests and 1 streams were cut after 3.0 s"


@pytest.mark.anyio
async def test_drain_ends_when_the_last_request_does() -> None:
    front = FakeFront()
    front.counts[PLACE] = Traffic(in_flight=1)
    found: list[Drained] = []

    async def wait() -> None:
        found.append(await drain(front, PLACE, LIMITS, anyio.Event()))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await until(lambda: front.calls.count("traffic") > 20)
        assert found == []
        front.counts[PLACE] = Traffic()
    assert (found[0].requests, found[0].streams) == (0, 0)
    assert found[0].elapsed_seconds >= LEAST_SECONDS


@pytest.mark.anyio
async def test_drain_that_is_hurried_ends_at_once_and_tells_what_is_cut() -> None:
    front, hurry = FakeFront(), anyio.Event()
    front.counts[PLACE] = Traffic(in_flight=2, streams=1)
    hurry.set()
    found = await drain(front, PLACE, LIMITS, hurry)
    assert (found.requests, found.streams) == (2, 1)


@pytest.mark.anyio
async def test_requests_are_not_cut_by_a_front_that_cannot_be_read_once() -> None:
    front = FakeFront()
    front.counts[PLACE] = Traffic(in_flight=1)
    front.fail("traffic")
    with anyio.move_on_after(0.3) as limit:
        await drain(front, PLACE, LIMITS, anyio.Event())
    assert limit.cancelled_caught


@pytest.mark.anyio
async def test_front_that_cannot_count_is_not_waited_for() -> None:
    class Blind(FakeFront):
        async def traffic(self, place: Place) -> Traffic | None:
            return None

    assert await drain(Blind(), PLACE, LIMITS, anyio.Event())
