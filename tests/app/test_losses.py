"""What a generation that crashed had in its hands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import pytest

from supervisor.app.front.model import Front, FrontError, Place, Traffic
from supervisor.app.losses import Losses
from supervisor.app.run import Run

pytestmark = pytest.mark.anyio


@dataclass
class Counting:
    """A front of which only the counts are asked: one after the other, the last one for ever; None cannot be asked."""

    answers: list[Traffic | None]
    asked: int = 0

    async def traffic(self, place: Place) -> Traffic | None:
        await anyio.lowlevel.checkpoint()
        found = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if found is None:
            raise FrontError("not now")
        return found


@dataclass(eq=False)
class Ran:
    place: Place = field(default_factory=lambda: Place("g1", "127.0.0.1", 1))


async def counted(*answers: Traffic | None, other: bool = False) -> tuple[int | None, Counting]:
    """Watched until the first answer, then ended."""
    front, run = Counting(list(answers)), cast(Any, Ran())
    losses = Losses(cast(Front, front))
    async with anyio.create_task_group() as group:
        group.start_soon(losses.watch, run)
        with anyio.fail_after(5):
            while not front.asked:
                await anyio.sleep(0)
            await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    return await losses.of(cast(Run, Ran()) if other else run, 0.1), front


async def test_what_was_lost_before_is_not_counted_again() -> None:
    assert (await counted(Traffic(lost=5), Traffic(lost=7)))[0] == 2


async def test_it_is_counted_once_nothing_is_in_flight() -> None:
    lost, front = await counted(Traffic(), Traffic(in_flight=2, lost=1), Traffic(streams=1, lost=2), Traffic(lost=3))
    assert (lost, front.asked) == (3, 4)


async def test_what_stays_in_flight_is_waited_for_within_a_bound() -> None:
    with anyio.fail_after(2):
        assert (await counted(Traffic(), Traffic(in_flight=1, lost=1)))[0] == 1


async def test_a_place_that_was_given_back_has_lost_what_it_had() -> None:
    assert (await counted(Traffic(lost=1), Traffic(in_flight=1, lost=3), Traffic()))[0] == 2


@pytest.mark.parametrize("answers", [(None,), (None, Traffic(lost=3))])
async def test_without_a_first_count_it_is_not_known(answers: tuple[Traffic | None, ...]) -> None:
    assert (await counted(*answers))[0] is None


async def test_one_that_ends_before_the_first_count_has_lost_all_there_is() -> None:
    assert (await counted(Traffic(), Traffic(lost=3), other=True))[0] == 3


async def test_nothing_is_known_of_one_whose_front_cannot_count() -> None:
    assert (await counted(Traffic(), None, other=True))[0] is None


async def test_a_front_that_cannot_be_asked_any_more_leaves_what_is_known() -> None:
    assert (await counted(Traffic(lost=2), Traffic(in_flight=1, lost=3), None))[0] == 1
