"""A reload of one app: what passes, what is refused, rolled back or cancelled, and what each leaves behind."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from supervisor.app import reload as reload_module
from supervisor.app.front.model import Holding, Traffic
from supervisor.app.reload import STARTS, Reload
from supervisor.app.spec import AppSpec, ReloadLimits
from supervisor.core.errors import AppGaveUpError, RejectedError, RolledBackError, SupervisorError
from supervisor.core.events import GenerationState
from supervisor.core.requests import Canary
from supervisor.process.restart import RestartPolicy
from tests.app.rig import LIMIT_SECONDS, FakeFront, Room, Word, crash, open_room, until

pytestmark = pytest.mark.anyio

BAKED = ReloadLimits(bake_seconds=60, drain_seconds=5, stream_seconds=5)
CANARY = Canary(10, 60)


@asynccontextmanager
async def started(front: FakeFront | None = None, script: str = "exec sleep 60", **changes: Any) -> AsyncIterator[Room]:
    """An app whose first generation serves."""
    async with open_room(front, script, **changes) as room:
        await room.app.start()
        yield room


async def going(room: Room) -> Reload:
    """The reload in hand."""
    await until(lambda: room.app._reload is not None)
    assert room.app._reload is not None
    return room.app._reload


async def phase(room: Room, name: str) -> Reload:
    """The reload in hand is in that phase."""
    reload = await going(room)
    await until(lambda: reload.phase == name)
    return reload


async def as_before(room: Room) -> None:
    """Only generation 1 is there, and it serves."""
    await until(lambda: len(room.lineup.cohort.living) == 1 and room.front.room == 2)
    assert room.active.number == 1
    assert room.lineup.is_serving
    assert room.front.serving == room.active.place
    assert room.front.shared is None


class Outcome:
    """How a reload in a task ended."""

    def __init__(self) -> None:
        self.error: SupervisorError | None = None
        self.over = anyio.Event()

    async def of(self, room: Room, spec: AppSpec | None = None, canary: Canary | None = None, **more: Any) -> None:
        try:
            await room.app.reload(spec, canary, **more)
        except SupervisorError as error:
            self.error = error
        finally:
            self.over.set()


async def test_reload_brings_a_new_generation_and_ends_the_old_one() -> None:
    async with started() as room:
        old = room.active
        spec = room.spec("exec sleep 61")
        await room.app.reload(spec)
        await old.gone.wait()
        assert room.active.number == 2
        assert room.app.spec is spec
        report = room.app.last_reload
        assert (report.before, report.after) == (1, 2)
        assert {"gate", "switch", "bake"} <= set(report.phases)
        assert [launch.overlapping for launch in room.launches] == [False, True]


@pytest.mark.parametrize("script", ["echo no such module >&2; exit 1", "exec sleep 60"])
async def test_generation_that_never_gets_healthy_changes_nothing_and_says_why(script: str) -> None:
    async with started() as room:
        before = room.app.spec
        with pytest.raises(RejectedError, match="generation 2 was refused") as error:
            await room.app.reload(room.spec(script, says=False, start_seconds=0.3))
        await as_before(room)
        assert room.app.spec is before
        if "exit" in script:
            assert "no such module" in str(error.value)


@pytest.mark.parametrize("call", ["take_place", "switch"])
async def test_front_that_fails_once_changes_nothing(call: str) -> None:
    async with started() as room:
        room.front.fail(call)
        with pytest.raises(RejectedError, match="told to fail"):
            await room.app.reload()
        await as_before(room)
        await room.app.reload()
        assert room.active.number > 1


async def test_candidate_that_dies_between_gate_and_switch_is_refused() -> None:
    async with started() as room:
        outcome = Outcome()
        await room.lineup._moving.acquire()
        try:
            room.group.start_soon(outcome.of, room)
            await phase(room, "switch")
            candidate = next(run for run in room.lineup.cohort.living if run.number == 2)
            crash(candidate)
            await candidate.gone.wait()
        finally:
            room.lineup._moving.release()
        await outcome.over.wait()
        assert isinstance(outcome.error, RejectedError)
        await as_before(room)


async def test_candidate_that_dies_in_the_switch_is_rolled_back() -> None:
    async with started(limits=BAKED) as room:
        outcome, switching = Outcome(), room.front.hang("switch")
        room.group.start_soon(outcome.of, room)
        await switching.reached.wait()
        candidate = next(run for run in room.lineup.cohort.living if run.number == 2)
        crash(candidate)
        await candidate.troubled.wait()
        switching.release.set()
        await outcome.over.wait()
        assert isinstance(outcome.error, RejectedError | RolledBackError)
        await as_before(room)


async def test_crash_in_the_bake_is_rolled_back_and_says_why() -> None:
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        crash(room.active)
        await outcome.over.wait()
        assert isinstance(outcome.error, RolledBackError)
        assert "generation 1 serves again, generation 2 failed: killed by SIGKILL" in str(outcome.error)
        assert room.app.last_reload.after == 1
        await as_before(room)


async def test_bad_answers_in_the_bake_are_rolled_back() -> None:
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.front.counts[room.active.place] = Traffic(answered=1000)
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        room.front.counts[room.active.place] = Traffic(answered=100, failed=50)
        await outcome.over.wait()
        assert isinstance(outcome.error, RolledBackError)
        assert "50 of 100 requests failed" in str(outcome.error)
        await as_before(room)


async def test_tries_without_a_connection_are_held_against_nobody_who_takes_connections() -> None:
    """As the proxy counts them on a machine that has no time: 9 of 10, and none of them lost."""
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.front.counts[room.active.place] = Traffic(answered=114)
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        with socket.create_server(("127.0.0.1", room.active.place.port)):
            room.front.counts[room.active.place] = Traffic(answered=1, unreached=9)
            asked = room.front.calls.count("traffic")
            await until(lambda: room.front.calls.count("traffic") > asked + 3)
            assert not outcome.over.is_set()
        room.front.counts[room.active.place] = Traffic(answered=100, failed=50, unreached=9)
        await outcome.over.wait()
        assert "50 of 100 requests failed (50 %: 50 answers 5xx)" in str(outcome.error)


async def test_front_that_cannot_be_read_for_a_moment_ends_no_bake() -> None:
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        room.front.fail("traffic", times=5)
        asked = room.front.calls.count("traffic")
        await until(lambda: room.front.calls.count("traffic") > asked + 6)
        assert not outcome.over.is_set()


async def test_roll_back_is_made_though_the_front_fails_at_first() -> None:
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        room.front.fail("switch", times=3)
        crash(room.active)
        await outcome.over.wait()
        assert isinstance(outcome.error, RolledBackError)
        await as_before(room)


async def test_bake_that_ends_during_the_switch_back_does_not_end_what_it_goes_back_to() -> None:
    limits = ReloadLimits(bake_seconds=0.2, drain_seconds=5, stream_seconds=5)
    async with started(limits=limits) as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        switching = room.front.hang("switch")
        crash(room.active)
        await switching.reached.wait()
        await until(lambda: bool(room.lineup._moving.statistics().tasks_waiting))  # the bake is over
        switching.release.set()
        await outcome.over.wait()
        assert isinstance(outcome.error, RolledBackError)
        await as_before(room)
        assert room.active.generation.is_serving


async def test_no_way_back_is_a_failure_and_not_told_as_a_roll_back() -> None:
    async with started(limits=BAKED, restart=RestartPolicy(base_seconds=0.01)) as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room)
        await phase(room, "bake")
        warm = room.lineup.warm
        assert warm is not None
        crash(warm)
        await warm.gone.wait()
        crash(room.active)
        await outcome.over.wait()
        assert not isinstance(outcome.error, RolledBackError)
        assert room.active.number == 3
        assert room.app.last_reload.after == 3


async def test_app_that_crashed_and_waits_for_its_restart_is_mended_by_a_reload() -> None:
    policy = RestartPolicy(base_seconds=50, cap_seconds=60, limit=0)
    async with started(restart=policy) as room:
        crash(room.active)
        await until(lambda: room.lineup.is_serving and room.active.number == 2)
        crash(room.active)
        await until(lambda: room.front.calls.count("wait") == 2)
        await room.app.reload()
        assert room.active.number == 3
        assert room.front.serving == room.active.place
        crash(room.active)  # and it is kept
        await until(lambda: room.lineup.is_serving and room.active.number == 4)


async def test_app_that_is_held_from_the_start_is_mended_by_a_reload_and_kept_from_then_on() -> None:
    async with open_room() as room:
        await room.app.hold("cannot apply 0001.sql")
        await until(lambda: room.front.held is not None)
        await room.app.reload()
        assert room.front.serving == room.active.place
        crash(room.active)
        await until(lambda: room.lineup.is_serving and room.active.number == 2)


async def test_start_over_begins_with_what_is_on_disk_by_then() -> None:
    async with started() as room:
        renewed = room.spec("exec sleep 62")
        outcome = Outcome()

        async def renew() -> AppSpec:
            return renewed

        room.group.start_soon(partial(outcome.of, room, room.spec(says=False), renew=renew))
        await until(lambda: len(room.launches) == 2)
        assert room.app.start_over()
        await outcome.over.wait()
        assert outcome.error is None
        assert room.active.number == 3
        assert room.active.spec is room.app.spec is renewed
        assert room.app._keeper is not None
        assert room.app._keeper.spec is renewed


async def test_start_over_that_is_granted_is_never_forgotten() -> None:
    """Also in the very moment in which the candidate passes the gate."""
    async with started() as room:
        outcome = Outcome()
        room.words[2] = Word(False)
        room.group.start_soon(outcome.of, room)
        await until(lambda: len(room.launches) == 2)
        candidate = next(run for run in room.lineup.cohort.living if run.number == 2)
        granted: list[bool] = []

        async def ask() -> None:
            await candidate.decided.wait()
            granted.append(room.app.start_over())

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            room.words[2].ready = True
        await outcome.over.wait()
        assert room.active.number == (3 if granted == [True] else 2)


async def test_start_over_is_granted_no_more_often_than_said() -> None:
    async with started() as room:
        outcome = Outcome()
        spec = room.spec(says=False)
        room.group.start_soon(outcome.of, room, spec)
        for count in range(1, STARTS):
            await until(lambda count=count: len(room.launches) == 1 + count)  # type: ignore[misc]
            assert room.app.start_over()
        await until(lambda: len(room.launches) == 1 + STARTS)
        assert not room.app.start_over()
        room.words[1 + STARTS].ready = True
        await outcome.over.wait()
        assert outcome.error is None
        assert not room.app.start_over()


async def test_renewal_that_fails_refuses_the_reload() -> None:
    async with started() as room:
        outcome = Outcome()

        async def renew() -> AppSpec:
            raise RejectedError("line 3 is not KEY=VALUE")

        room.group.start_soon(partial(outcome.of, room, room.spec(says=False), renew=renew))
        await until(lambda: len(room.launches) == 2)
        assert room.app.start_over()
        await outcome.over.wait()
        assert isinstance(outcome.error, RejectedError)
        await as_before(room)


@pytest.mark.parametrize("when", ["begin", "gate", "switch", "canary", "bake"])
async def test_stop_in_the_midst_of_a_reload_leaves_nothing(when: str) -> None:
    async with started(limits=BAKED) as room:
        async with anyio.create_task_group() as group:
            hangs = {"begin": "take_place", "switch": "switch"}
            hang = room.front.hang(hangs[when]) if when in hangs else None
            spec = room.spec(says=when != "gate", limits=BAKED)
            group.start_soon(Outcome().of, room, spec, CANARY if when == "canary" else None)
            await (hang.reached.wait() if hang is not None else phase(room, when))
            if when == "gate":
                await until(lambda: len(room.launches) == 2)
            group.cancel_scope.cancel()
        await room.app.stop(2.0)
        assert not room.lineup.cohort.living
        assert room.front.room == 3
        assert room.front.held is not None


async def test_canary_gets_its_share_and_then_all() -> None:
    async with started() as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room, None, CANARY)
        await phase(room, "canary")
        await until(lambda: room.front.shared is not None)
        assert room.front.shared is not None
        assert room.front.shared[1] == 10
        assert room.app.decide(promote=True)
        await outcome.over.wait()
        assert outcome.error is None
        assert room.active.number == 2
        assert not room.app.decide(promote=True)


async def test_canary_goes_on_by_itself_after_its_time() -> None:
    async with started() as room:
        await room.app.reload(None, Canary(10, 0.1))
        assert room.active.number == 2


@pytest.mark.parametrize("why", ["aborted", "crash", "errors", "promotion"])
async def test_canary_that_ends_badly_gives_its_share_back_and_finishes_its_requests(why: str) -> None:
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.group.start_soon(outcome.of, room, None, CANARY)
        await phase(room, "canary")
        await until(lambda: room.front.shared is not None)
        assert room.front.shared is not None
        place = room.front.shared[0]
        candidate = next(run for run in room.lineup.cohort.living if run.number == 2)
        room.front.fail("share")  # and it is insisted on
        match why:
            case "aborted":
                room.front.counts[place] = Traffic(in_flight=1)
                assert room.app.decide(promote=False)
            case "crash":
                crash(candidate)
            case "errors":
                room.front.counts[place] = Traffic(in_flight=1, answered=50, failed=40)
            case "promotion":
                room.front.counts[place] = Traffic(in_flight=1)
                room.front.fail("switch")
                assert room.app.decide(promote=True)
        await outcome.over.wait()
        assert isinstance(outcome.error, RejectedError)
        assert "told to fail" not in str(outcome.error) or why == "promotion"
        assert room.front.shared is None
        if why != "crash":
            assert candidate.child.alive
            room.front.counts[place] = Traffic()
        await candidate.gone.wait()
        await as_before(room)


async def test_canary_gets_all_where_the_old_one_dies() -> None:
    async with started(restart=RestartPolicy(base_seconds=50, cap_seconds=60, limit=0)) as room:
        outcome = Outcome()
        room.words[3] = Word(False)
        room.group.start_soon(outcome.of, room, None, CANARY)
        await phase(room, "canary")
        crash(room.active)
        await outcome.over.wait()
        assert outcome.error is None
        await until(lambda: len(room.lineup.cohort.living) == 1)
        assert (room.active.number, room.front.serving) == (2, room.active.place)


async def test_canary_that_cannot_be_shared_out_changes_nothing() -> None:
    async with started() as room:
        room.front.fail("share")
        with pytest.raises(RejectedError, match="requests could not be shared out"):
            await room.app.reload(None, CANARY)
        await as_before(room)


@pytest.mark.parametrize("overlap", [True, False])
async def test_canary_is_refused_where_there_is_nothing_to_be_beside(overlap: bool) -> None:
    async with open_room(FakeFront(overlap=overlap)) as room:
        with pytest.raises(RejectedError, match="a canary needs two generations"):
            await room.app.reload(None, CANARY)
        assert room.launches == []


async def test_no_room_for_two_copies_refuses_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(child: object) -> str:
        return "cannot run two copies: 900 MiB needed, 10 MiB free"

    monkeypatch.setattr(reload_module, "no_room_beside", no_room)
    async with started() as room:
        with pytest.raises(RejectedError, match="900 MiB needed"):
            await room.app.reload()
        assert len(room.launches) == 1


async def test_one_after_the_other_finishes_what_is_in_flight_while_requests_wait() -> None:
    async with started(overlap=False) as room:
        old, outcome = room.active, Outcome()
        room.front.counts[old.place] = Traffic(in_flight=1)
        room.group.start_soon(outcome.of, room)
        await until(lambda: room.front.calls.count("traffic") > 20)
        assert "wait" in room.front.calls
        assert old.child.alive
        room.front.counts[old.place] = Traffic()
        await outcome.over.wait()
        assert outcome.error is None
        assert not old.child.alive
        assert room.front.serving == room.active.place
        assert {"stop", "start", "gap"} <= set(room.app.last_reload.phases)


async def test_one_after_the_other_that_fails_to_start_is_said_and_tried_again() -> None:
    async with started(overlap=False) as room:
        with pytest.raises(AppGaveUpError, match="exited with 4"):
            await room.app.reload(room.spec("exit 4", overlap=False, restart=RestartPolicy(base_seconds=0.01)))
        await until(lambda: len(room.launches) > 2)


async def test_stop_in_a_reload_of_one_after_the_other_keeps_to_its_time() -> None:
    async with started(script="trap '' TERM; while :; do sleep 0.1; done", overlap=False, stop_seconds=60.0) as room:
        async with anyio.create_task_group() as group:
            old = room.active
            group.start_soon(Outcome().of, room)
            await until(lambda: old.generation.state is GenerationState.DRAINING)
            group.cancel_scope.cancel()
        with anyio.fail_after(8):
            await room.app.stop(1.0)
        assert not room.lineup.cohort.living


async def test_most_waiting_is_the_most_that_was_seen() -> None:
    async with started(overlap=False) as room:
        room.front._waiting = 7
        await room.app.reload()
        assert room.app.last_reload.as_detail() == {"generation_before": 1, "generation": 2, "most_waiting": 7}


async def test_app_that_is_stopped_is_started_by_a_reload_and_its_clients_were_told() -> None:
    async with started() as room:
        await room.app.stop()
        assert room.front.held == Holding("stopped", "stop")
        await room.app.reload()
        assert room.lineup.is_serving


async def test_stopped_app_stays_stopped() -> None:
    async with started() as room:
        run = room.active
        await room.app.stop()
        assert not run.child.alive
        assert not room.app.is_serving
        assert room.states(1)[-1] == "stopped"
        assert room.ends == []
        assert not room.app.signal(1)


async def test_fifty_reloads_leave_as_much_open_as_one(soak: bool) -> None:
    async with started(limit_seconds=600 if soak else LIMIT_SECONDS) as room:

        async def reload(times: int) -> tuple[int, int]:
            """Descriptors and tasks once all is at rest again."""
            for _ in range(times):
                await room.app.reload()
            await until(lambda: len(room.lineup.cohort.living) == 1 and not room.lineup.cohort.draining)
            await anyio.wait_all_tasks_blocked()
            return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

        before = await reload(1)
        assert await reload(1000 if soak else 50) == before
        assert room.front.room == 2
        assert len(room.front.places) == 1


@pytest.mark.parametrize("when", ["gate", "canary"])
async def test_canary_is_ended_for_an_order_that_waits_behind_it(when: str) -> None:
    async with started(limits=BAKED) as room:
        outcome = Outcome()
        room.group.start_soon(partial(outcome.of, room, canary=Canary(5, 3600)))
        await phase(room, when)
        room.app.end_canary("another request came")
        await outcome.over.wait()
        assert isinstance(outcome.error, RejectedError)
        assert "another request came" in str(outcome.error)
        await as_before(room)
