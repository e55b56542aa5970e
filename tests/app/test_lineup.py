"""Who serves, who is warm, who drains: places, moves of traffic, and a front that fails or is slow just then."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio
import pytest

from supervisor.app.front.model import FrontError, Holding, Traffic
from supervisor.app.spec import Launch, ReloadLimits
from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.events import AppHealthChanged, GenerationState, Notice, Warned
from supervisor.process.child import Command
from tests.app.rig import crash, hung, open_room, until
from tests.process.children import is_gone

pytestmark = pytest.mark.anyio

LONG = ReloadLimits(bake_seconds=0, drain_seconds=60, stream_seconds=60)


async def test_generation_that_is_promoted_serves_and_the_one_before_is_given() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        assert await room.lineup.promote(new) is old
        assert room.front.serving == new.place
        assert room.lineup.is_serving
        assert room.lineup.served.is_set()


async def test_generation_that_died_is_not_promoted_and_the_old_one_serves_on() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        crash(new)
        await new.troubled.wait()
        with pytest.raises(FrontError, match="killed by SIGKILL"):
            await room.lineup.promote(new)
        assert (room.lineup.active, room.front.serving) == (old, old.place)


async def test_generation_that_dies_during_the_switch_breaks_nothing() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        switching = room.front.hang("switch")
        given: list[object] = []

        async def promote() -> None:
            given.append(await room.lineup.promote(new))

        async with anyio.create_task_group() as group:
            group.start_soon(promote)
            await switching.reached.wait()
            crash(new)
            await new.troubled.wait()
            switching.release.set()
        assert given == [old]
        assert not room.lineup.is_serving  # its trouble is told: whoever watches falls back
        room.lineup.keep_warm(old, "a new one serves")
        assert await room.lineup.fall_back("it died")
        assert room.lineup.is_serving
        assert room.front.serving == old.place


async def test_front_that_does_not_switch_leaves_the_old_one_serving() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        room.front.fail("switch")
        with pytest.raises(FrontError):
            await room.lineup.promote(new)
        assert room.lineup.active is old
        assert room.front.serving == old.place
        assert old.generation.is_serving


async def test_front_that_fails_once_does_not_cost_the_way_back() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        await room.lineup.promote(new)
        room.lineup.keep_warm(old, "a new one serves")
        room.front.fail("switch")
        hung(new)
        assert await room.lineup.fall_back("it hangs")
        assert (room.lineup.active, room.front.serving) == (old, old.place)


async def test_front_that_fails_for_good_is_told_and_there_is_no_way_back() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        await room.lineup.promote(new)
        room.lineup.keep_warm(old, "a new one serves")
        room.front.fail("switch", times=100)
        assert not await room.lineup.fall_back("it hangs")
        assert room.lineup.active is new
        assert [event.message for event in room.told(Warned)] == [
            "cannot switch 'app' back: cannot switch: told to fail"
        ]


async def test_warm_one_that_dies_is_no_way_back() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        await room.lineup.promote(new)
        room.lineup.keep_warm(old, "a new one serves")
        crash(old)
        await old.gone.wait()
        assert not await room.lineup.fall_back("it hangs")
        assert room.front.calls.count("switch") == 2
        assert room.front.serving == new.place


async def test_warm_one_that_dies_during_the_switch_back_breaks_nothing() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        await room.lineup.promote(new)
        room.lineup.keep_warm(old, "a new one serves")
        hung(new)
        switching = room.front.hang("switch")
        async with anyio.create_task_group() as group:
            group.start_soon(room.lineup.fall_back, "it hangs")
            await switching.reached.wait()
            crash(old)
            await old.troubled.wait()
            switching.release.set()
        assert not room.lineup.is_serving


async def test_place_of_one_that_crashed_in_the_bake_is_free_after_the_switch_back() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        await room.lineup.promote(new)
        room.lineup.keep_warm(old, "a new one serves")
        crash(new)
        await new.gone.wait()
        await room.lineup.fall_back("it died")
        await until(lambda: room.front.room == 2)


async def test_place_of_a_dead_one_is_kept_while_requests_wait_there() -> None:
    async with open_room() as room:
        run = await room.serve()
        crash(run)
        await run.gone.wait()
        assert room.front.serving == run.place
        assert room.front.room == 2
        await room.lineup.wait()
        assert room.front.room == 3


@pytest.mark.parametrize("move", ["wait", "answer"])
async def test_moves_for_want_of_anybody_leave_one_that_serves_by_now_alone(move: str) -> None:
    async with open_room() as room:
        new = await room.begin()
        switching = room.front.hang("switch")
        asked = {
            "wait": partial(room.lineup.wait, unless_served=True),
            "answer": partial(room.lineup.answer, Holding("restarting", "it crashed"), unless_served=True),
        }
        async with anyio.create_task_group() as group:
            group.start_soon(room.lineup.promote, new)
            await switching.reached.wait()
            group.start_soon(asked[move])
            await anyio.wait_all_tasks_blocked()
            switching.release.set()
        assert room.front.serving == new.place


async def test_front_that_cannot_be_told_is_only_reported() -> None:
    async with open_room() as room:
        room.front.fail("wait")
        room.front.fail("answer")
        await room.lineup.wait()
        await room.lineup.answer(Holding("failed", "why"))
        assert len(room.told(Warned)) == 2


async def test_begin_gives_the_place_back_where_the_program_cannot_be_started() -> None:
    async with open_room() as room:
        spec = replace(room.spec(), command=lambda launch: Command(name="app", argv=["/nowhere"], env={}))
        with pytest.raises(ConfigurationError, match="no program '/nowhere'"):
            await room.lineup.cohort.begin(spec)
        assert room.front.room == 3


async def test_begin_gives_the_place_back_where_the_command_cannot_be_made() -> None:
    def command(launch: Launch) -> Command:
        raise ConfigurationError("cannot read '.env'")

    async with open_room() as room:
        with pytest.raises(ConfigurationError):
            await room.lineup.cohort.begin(replace(room.spec(), command=command))
        assert room.front.room == 3


async def test_begin_that_is_cancelled_leaves_nothing() -> None:
    async with open_room() as room:
        taking = room.front.hang("take_place")
        async with anyio.create_task_group() as group:
            group.start_soon(room.lineup.cohort.begin, room.spec())
            await taking.reached.wait()
            group.cancel_scope.cancel()
        assert room.front.room == 3
        assert room.launches == []


async def test_retired_one_finishes_its_requests_before_it_is_stopped() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        room.front.counts[old.place] = Traffic(in_flight=1)
        await room.lineup.promote(new)
        room.lineup.cohort.retire(old, "replaced")
        await until(lambda: room.front.calls.count("traffic") > 20)  # that is after the least time
        assert old.child.alive
        room.front.counts[old.place] = Traffic()
        await old.gone.wait()
        await until(lambda: room.front.room == 2)
        assert room.states(1) == ["starting", "ready", "serving", "draining", "stopped"]


async def test_oldest_drain_is_ended_early_where_its_place_is_needed_and_only_that_one() -> None:
    async with open_room() as room:
        olds = []
        for _ in range(3):
            run = await room.begin(room.spec(limits=LONG), beside=True)
            before = await room.lineup.promote(run)
            if before is not None:
                room.front.counts[before.place] = Traffic(streams=1)
                room.lineup.cohort.retire(before, "replaced")
                olds.append(before)
        giving_back = room.front.hang("give_back")
        async with anyio.create_task_group() as group:
            group.start_soon(partial(room.lineup.cohort.begin, room.spec(), beside=True))
            await giving_back.reached.wait()
            await anyio.wait_all_tasks_blocked()
            giving_back.release.set()
        assert not olds[0].child.alive
        assert olds[1].child.alive
        told = [event.message for event in room.told(Notice) if "its place is needed" in event.message]
        assert told == ["generation 1 is ended early: its place is needed"]


async def test_drain_ends_with_the_one_that_drains() -> None:
    async with open_room() as room:
        old = await room.serve(room.spec(limits=LONG))
        new = await room.begin(beside=True)
        room.front.counts[old.place] = Traffic(streams=1)
        await room.lineup.promote(new)
        room.lineup.cohort.retire(old, "replaced")
        crash(old)
        await old.gone.wait()
        await until(lambda: not room.lineup.cohort.draining)


async def test_end_of_all_keeps_to_its_time_though_one_is_stopped_at_its_leisure() -> None:
    async with open_room() as room:
        run = await room.serve(room.spec("trap '' TERM; while :; do sleep 1; done", stop_seconds=60.0))
        run.dismiss("replaced")
        await until(lambda: run.generation.state is GenerationState.DRAINING)
        with anyio.fail_after(10):
            await room.lineup.end_all("stop", 0.1)
        assert is_gone(run.child.pid)
        assert room.front.room == 2 or room.front.serving == run.place


async def test_generation_that_nothing_can_end_is_told_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room() as room:
        run = await room.serve()

        async def stop(grace_seconds: float, reason: str) -> None:
            raise SupervisorError("cannot end 'app' (pid 1): not even KILL ended it")

        monkeypatch.setattr(run.generation, "stop", stop)
        await room.lineup.end_all("stop", 1.0)
        assert [event.message for event in room.told(Warned)] == ["cannot end 'app' (pid 1): not even KILL ended it"]
        assert await room.serve()


async def test_hung_one_that_is_replaced_is_ended_though_giving_back_is_cancelled() -> None:
    async with open_room() as room:
        dead = await room.serve()
        crash(dead)
        await dead.gone.wait()  # its place is given back by the next move
        old = room.lineup.active = await room.begin()
        old.generation.serve()
        hung(old)
        new = await room.begin()
        giving_back = room.front.hang("give_back")
        async with anyio.create_task_group() as group:
            group.start_soon(room.lineup.promote, new)
            await giving_back.reached.wait()
            group.cancel_scope.cancel()
        assert room.lineup.active is new
        await old.gone.wait()


async def test_health_is_told_of_the_one_that_serves_alone() -> None:
    async with open_room() as room:
        old = await room.serve()
        new = await room.begin(beside=True)
        room.lineup._answered(new, False, "500")
        room.lineup._answered(old, False, "500")
        room.lineup._answered(old, False, "500")
        assert [event.health.value for event in room.told(AppHealthChanged)] == ["healthy"]
        room.lineup._answered(old, False, "500")
        room.lineup._answered(old, True, "200")
        assert [event.health.value for event in room.told(AppHealthChanged)] == ["healthy", "unhealthy", "healthy"]
