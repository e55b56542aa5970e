"""What keeps one generation serving, against reloads, a failing front, and each other."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from supervisor.app.front.model import Holding
from supervisor.app.spec import OnUnhealthy, ReloadLimits
from supervisor.core.errors import AppGaveUpError, ConfigurationError
from supervisor.core.events import AppHeld, AppRestarting, Warned
from supervisor.process.child import Command
from supervisor.process.restart import RestartMode, RestartPolicy
from tests.app.rig import FakeFront, Room, crash, hung, open_room, until

pytestmark = pytest.mark.anyio

NEVER = RestartPolicy(mode=RestartMode.NO)
LONG_HOLD = ReloadLimits(bake_seconds=0, hold_seconds=60)
SLOW = RestartPolicy(base_seconds=30, cap_seconds=60, limit=0)


async def serving(room: Room, number: int) -> None:
    """Generation `number` serves."""
    await until(lambda: room.lineup.is_serving and room.active.number == number)


async def test_crashed_one_is_replaced_and_requests_wait_meanwhile() -> None:
    async with open_room() as room:
        await room.kept()
        crash(room.active)
        await serving(room, 2)
        assert room.front.calls.count("wait") == 1
        assert room.front.serving == room.active.place
        assert room.front.room == 2


async def test_hung_one_serves_until_its_replacement_does() -> None:
    async with open_room() as room:
        await room.kept(room.spec(limits=LONG_HOLD))
        old = room.active
        room.words[2] = type(room.words[1])(False)
        hung(old)
        await until(lambda: len(room.launches) == 2)
        assert room.front.serving == old.place
        assert old.child.alive
        room.words[2].ready = True
        await serving(room, 2)
        await old.gone.wait()


async def test_hung_one_goes_first_where_two_must_not_run() -> None:
    async with open_room() as room:
        await room.kept(room.spec(overlap=False))
        old = room.active
        hung(old)
        await until(lambda: len(room.launches) == 2)
        assert not old.child.alive
        await serving(room, 2)


async def test_what_a_crashed_one_left_goes_first_where_two_must_not_run() -> None:
    """A worker that outlives its master may have the port still."""
    async with open_room(FakeFront(overlap=False)) as room:
        script = "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & sleep 0.3; exit 1"
        await room.kept(room.spec(script, stop_seconds=0.5))
        old = room.active
        await old.child.wait()
        assert old.child.survivors
        await until(lambda: len(room.launches) == 2)
        assert old.child.survivors == []


async def test_crash_during_the_switch_of_a_reload_does_not_stop_what_it_brought() -> None:
    async with open_room() as room:
        await room.kept()
        old = room.active
        new = await room.begin(beside=True)
        switching = room.front.hang("switch")
        async with anyio.create_task_group() as group:
            group.start_soon(room.lineup.promote, new)
            await switching.reached.wait()
            crash(old)
            await old.gone.wait()
            await anyio.wait_all_tasks_blocked()
            switching.release.set()
        await anyio.wait_all_tasks_blocked()
        assert room.front.serving == new.place
        assert room.told(AppRestarting) == []
        assert len(room.launches) == 2
        crash(new)  # and it is watched
        await serving(room, 3)


async def test_holding_answer_that_comes_too_late_is_not_given() -> None:
    async with open_room() as room:
        # Long enough for the next generation to come to its switch first, on a machine that is busy too.
        await room.kept(room.spec(limits=ReloadLimits(bake_seconds=0, hold_seconds=1.5)))
        switching = room.front.hang("switch")
        crash(room.active)
        await switching.reached.wait()
        await until(lambda: bool(room.lineup._moving.statistics().tasks_waiting))  # it is to be given now
        switching.release.set()
        await serving(room, 2)
        await anyio.wait_all_tasks_blocked()
        assert (room.front.serving, room.front.held) == (room.active.place, None)


async def test_holding_answer_is_given_after_the_hold_time() -> None:
    async with open_room() as room:
        await room.kept(room.spec(limits=ReloadLimits(bake_seconds=0, hold_seconds=0.01), restart=SLOW))
        crash(room.active)
        await serving(room, 2)
        crash(room.active)
        await until(lambda: room.front.held is not None)
        assert room.front.held == Holding("restarting", "killed by SIGKILL")


async def test_reload_that_is_through_first_ends_the_replacement() -> None:
    async with open_room() as room:
        await room.kept()
        old = room.active
        candidate = await room.begin(beside=True)
        room.words[3] = type(room.words[1])(False)
        crash(old)
        await until(lambda: len(room.launches) == 3)
        await room.lineup.promote(candidate)
        await until(lambda: len(room.lineup.cohort.living) == 1)
        assert room.active is candidate
        assert room.front.serving == candidate.place
        assert room.front.room == 2


async def test_way_back_is_taken_and_the_old_code_is_what_is_restarted() -> None:
    async with open_room() as room:
        old_spec, new_spec = room.spec("exec sleep 61"), room.spec("exec sleep 62")
        keeper = await room.kept(old_spec)
        old = room.active
        new = await room.begin(new_spec, beside=True)
        await room.lineup.promote(new)
        room.lineup.keep_warm(old, "new code serves")
        keeper.promoted(new_spec)
        crash(new)
        await serving(room, 1)
        assert keeper.fallen == "killed by SIGKILL"
        crash(old)
        await serving(room, 3)
        assert room.active.spec is old_spec


async def test_crash_of_what_served_long_is_not_judged_by_a_candidate_of_the_same_time() -> None:
    policy = RestartPolicy(base_seconds=20, cap_seconds=0.2, limit=0)
    async with open_room() as room:
        await room.kept(room.spec(restart=policy))
        crash(room.active)
        await serving(room, 2)
        await room.lineup.cohort.begin(room.spec(says=False), beside=True)
        await until(lambda: room.active.generation.served_seconds > policy.cap_seconds)
        crash(room.active)
        await serving(room, 4)
        assert [event.restart_in_seconds for event in room.told(AppRestarting)] == [0.0, 0.0]


async def test_first_start_that_is_refused_says_why_and_is_tried_again() -> None:
    async with open_room() as room:
        keeper = room.keeper(room.spec("exit 7"))
        room.group.start_soon(keeper.keep)
        await keeper.settled.wait()
        assert "exited with 7 before it was healthy" in str(keeper.failure)
        await until(lambda: len(room.launches) == 3)


async def test_first_start_that_the_front_fails_is_tried_again() -> None:
    async with open_room() as room:
        room.front.fail("take_place")
        keeper = room.keeper()
        room.group.start_soon(keeper.keep)
        await keeper.settled.wait()
        assert "told to fail" in str(keeper.failure)
        await serving(room, 1)


async def test_program_that_is_not_there_ends_it_at_once() -> None:
    async with open_room() as room:
        keeper = room.keeper(replace(room.spec(), command=lambda launch: Command(name="app", argv=["/no"], env={})))
        room.group.start_soon(keeper.keep)
        await until(lambda: bool(room.ends))
        assert isinstance(keeper.failure, ConfigurationError)
        assert isinstance(room.ends[0], ConfigurationError)


async def test_clean_exit_ends_it_and_is_told_as_such() -> None:
    async with open_room() as room:
        await room.kept(room.spec("sleep 0.2; exit 0"))
        await until(lambda: bool(room.ends))
        assert room.ends == [None]


async def test_giving_up_tells_the_last_lines_of_its_output() -> None:
    async with open_room() as room:
        await room.kept(room.spec("echo last words; sleep 0.2; exit 3", restart=NEVER))
        await until(lambda: bool(room.ends))
        assert isinstance(room.ends[0], AppGaveUpError)
        assert "last words" in str(room.ends[0])


async def test_hung_one_ends_it_where_that_is_asked() -> None:
    async with open_room() as room:
        await room.kept(room.spec(on_unhealthy=OnUnhealthy.EXIT))
        hung(room.active)
        await until(lambda: bool(room.ends))
        assert isinstance(room.ends[0], AppGaveUpError)


async def test_held_app_says_why_and_what_a_reload_brings_is_kept() -> None:
    async with open_room() as room:
        await room.kept(room.spec("sleep 0.2; exit 3", restart=NEVER, hold=True))
        await until(lambda: room.front.held is not None)
        assert room.front.held is not None
        assert room.front.held.phase == "failed"
        assert len(room.told(AppHeld)) == 1
        await room.serve(room.spec())
        await anyio.wait_all_tasks_blocked()
        crash(room.active)
        await until(lambda: room.front.held is not None)
        assert room.ends == []


async def test_holding_spares_the_candidate_of_a_reload_and_does_not_take_its_requests() -> None:
    async with open_room() as room:
        stubborn = "trap '' TERM; while :; do sleep 0.05; done"
        await room.kept(room.spec(stubborn, restart=NEVER, hold=True, stop_seconds=0.5))
        old = room.active
        candidate = await room.begin(beside=True)
        hung(old)
        await until(lambda: bool(room.told(AppHeld)))
        await room.lineup.promote(candidate)
        await old.gone.wait()
        await anyio.wait_all_tasks_blocked()
        assert candidate.child.alive
        assert (room.front.serving, room.front.held) == (candidate.place, None)


async def test_front_that_fails_once_at_each_call_costs_no_more_than_a_try() -> None:
    async with open_room() as room:
        await room.kept()
        for name in ("wait", "take_place", "switch", "answer", "traffic"):
            room.front.fail(name)
        crash(room.active)
        await until(lambda: room.lineup.is_serving and room.active.number > 1)
        assert room.front.serving == room.active.place
        assert room.ends == []
        assert room.told(Warned)


@pytest.mark.parametrize("call", ["take_place", "switch", "wait"])
async def test_keeper_cancelled_in_a_call_of_the_front_leaves_nothing(call: str) -> None:
    async with open_room() as room:
        keeper = room.keeper()
        async with anyio.create_task_group() as group:
            group.start_soon(keeper.keep)
            await keeper.settled.wait()
            hang = room.front.hang(call)
            crash(room.active)
            await hang.reached.wait()
            group.cancel_scope.cancel()
        await room.lineup.end_all("stop", 1.0)
        await room.lineup.answer(Holding("stopped", "stop"))
        assert room.front.room == 3
        assert not room.lineup.cohort.living
