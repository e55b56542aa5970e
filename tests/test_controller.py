"""One turn at a time, and how requests merge."""

from __future__ import annotations

import anyio
import pytest

from supervisor.controller import MAX_WAITING, Controller
from supervisor.core.errors import MigrationError, RejectedError
from supervisor.core.events import Event, ReloadFinished, ReloadRequested
from supervisor.core.requests import Outcome, Request, Result, Verb

pytestmark = pytest.mark.anyio

RELOAD = Request(Verb.RELOAD, "signal HUP")


class Work:
    """Carries requests out when the test says so, and remembers them."""

    def __init__(self) -> None:
        self.begun: list[Request] = []
        self.began = anyio.Event()
        self.may_end = anyio.Event()
        self.error: Exception | None = None
        self.running = 0

    async def __call__(self, request: Request) -> Outcome:
        assert self.running == 0, "two turns at once"
        self.running += 1
        self.begun.append(request)
        self.began.set()
        try:
            await self.may_end.wait()
            if self.error is not None:
                raise self.error
            return Outcome(result=Result.OK, reason=str(len(self.begun)))
        finally:
            self.running -= 1


async def test_a_request_gets_its_outcome() -> None:
    work, events = Work(), list[Event]()
    work.may_end.set()
    controller = Controller(work, events.append)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        assert (await controller.submit(RELOAD)).ok
        group.cancel_scope.cancel()
    assert [type(event) for event in events] == [ReloadRequested, ReloadFinished]


async def test_a_hundred_requests_during_a_reload_become_one_more() -> None:
    work = Work()
    controller = Controller(work, lambda event: None)
    outcomes: list[Outcome] = []

    async def ask() -> None:
        outcomes.append(await controller.submit(RELOAD))

    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            await work.began.wait()
            for _ in range(100):
                callers.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            work.may_end.set()
        group.cancel_scope.cancel()
    assert len(work.begun) == 2
    # The 100 waited for the reload that began after their request, not for the one that ran already.
    assert sorted(outcome.reason for outcome in outcomes) == ["1"] + ["2"] * 100


async def test_requests_made_before_the_loop_runs_are_kept_and_merged() -> None:
    work = Work()
    work.may_end.set()
    controller = Controller(work, lambda event: None)
    first, second = controller.post(RELOAD), controller.post(RELOAD)
    assert first is second
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        await first.done.wait()
        group.cancel_scope.cancel()
    assert len(work.begun) == 1


async def test_different_requests_do_not_merge_and_keep_their_order() -> None:
    work = Work()
    work.may_end.set()
    controller = Controller(work, lambda event: None)
    asked = [
        Request(Verb.STOP, "api", "redis"),
        Request(Verb.START, "api", "redis"),
        Request(Verb.STOP, "api", "redis"),
    ]
    turns = [controller.post(request) for request in asked]
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        for turn in turns:
            await turn.done.wait()
        group.cancel_scope.cancel()
    assert work.begun == asked


@pytest.mark.parametrize(
    ("error", "result"), [(RejectedError("no"), Result.REJECTED), (MigrationError("no"), Result.FAILED)]
)
async def test_our_errors_become_outcomes_and_the_loop_goes_on(error: Exception, result: Result) -> None:
    work = Work()
    work.error = error
    work.may_end.set()
    controller = Controller(work, lambda event: None)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        assert (await controller.submit(RELOAD)).result is result
        work.error = None
        assert (await controller.submit(RELOAD)).ok
        group.cancel_scope.cancel()


async def test_shutdown_cancels_the_turn_in_hand_and_answers_all_that_wait() -> None:
    work = Work()
    controller = Controller(work, lambda event: None)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        running = controller.post(RELOAD)
        await work.began.wait()
        waiting = controller.post(RELOAD)
        group.cancel_scope.cancel()
    assert running.outcome is not None
    assert waiting.outcome is not None
    assert running.outcome.result is waiting.outcome.result is Result.CANCELLED
    late = controller.post(RELOAD)
    assert late.outcome is not None
    assert late.outcome.result is Result.CANCELLED


async def test_the_queue_is_bounded() -> None:
    controller = Controller(Work(), lambda event: None)
    for number in range(MAX_WAITING):
        controller.post(Request(Verb.STOP, "api", str(number)))
    turn = controller.post(Request(Verb.STOP, "api", "one more"))
    assert turn.outcome is not None
    assert turn.outcome.result is Result.REJECTED
