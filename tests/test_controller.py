"""One turn at a time, and how requests merge."""

from __future__ import annotations

import anyio
import pytest

from supervisor.controller import MAX_WAITING, Controller
from supervisor.core.errors import MigrationError, RejectedError, RolledBackError
from supervisor.core.events import Event, ReloadFinished, ReloadRequested
from supervisor.core.requests import Canary, Outcome, Request, Result, Verb

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


async def test_a_reload_of_the_only_app_joins_one_of_all_and_of_one_of_several_does_not() -> None:
    by_name = Request(Verb.RELOAD, "api", "app")
    alone = Controller(Work(), lambda event: None, apps=["app"])
    assert alone.post(RELOAD) is alone.post(by_name)
    assert alone.post(Request(Verb.STOP, "api", "app")).request.target == "app"
    several = Controller(Work(), lambda event: None, apps=["app", "web"])
    assert several.post(RELOAD) is not several.post(by_name)


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
    ("error", "result"),
    [
        (RejectedError("no"), Result.REJECTED),
        (RolledBackError("no"), Result.ROLLED_BACK),
        (MigrationError("no"), Result.FAILED),
    ],
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


async def test_reload_that_can_start_over_is_joined_and_shared() -> None:
    work, events, overs = Work(), list[Event](), list[Request]()

    def start_over(request: Request) -> bool:
        overs.append(request)
        return True

    controller = Controller(work, events.append, start_over=start_over)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        first = controller.post(RELOAD)
        await work.began.wait()
        assert controller.post(RELOAD) is first
        work.may_end.set()
        await first.done.wait()
        group.cancel_scope.cancel()
    assert overs == [RELOAD]
    assert len(work.begun) == 1
    assert [event.merged for event in events if isinstance(event, ReloadRequested)] == [False, True]


@pytest.mark.parametrize(
    "other", [Request(Verb.RELOAD, "api", canary=Canary(5, 60)), Request(Verb.RESTART, "api", "app")]
)
async def test_request_for_something_else_never_starts_the_one_in_hand_over(other: Request) -> None:
    work = Work()
    controller = Controller(work, lambda event: None, start_over=lambda request: True)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        controller.post(RELOAD)
        await work.began.wait()
        turn = controller.post(other)
        work.may_end.set()
        await turn.done.wait()
        group.cancel_scope.cancel()
    assert work.begun == [RELOAD, other]


async def test_reload_joins_the_one_that_waits_rather_than_the_one_in_hand() -> None:
    work, may = Work(), [False, True]
    controller = Controller(work, lambda event: None, start_over=lambda request: may.pop(0))
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        controller.post(RELOAD)
        await work.began.wait()
        waiting = controller.post(RELOAD)
        assert controller.post(RELOAD) is waiting
        group.cancel_scope.cancel()
    assert may == [True]


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.ABORT])
async def test_decision_on_a_canary_is_made_at_once_beside_the_turn_in_hand(verb: Verb) -> None:
    work, decided = Work(), list[Request]()

    def decide(request: Request) -> Outcome:
        decided.append(request)
        return Outcome(result=Result.OK)

    controller = Controller(work, lambda event: None, decide=decide)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        controller.post(RELOAD)
        await work.began.wait()
        assert (await controller.submit(Request(verb, "api"))).ok
        group.cancel_scope.cancel()
    assert [request.verb for request in decided] == [verb]
    assert work.begun == [RELOAD]


async def test_decision_without_a_canary_is_rejected() -> None:
    outcome = await Controller(Work(), lambda event: None).submit(Request(Verb.PROMOTE, "api"))
    assert (outcome.result, outcome.reason) == (Result.REJECTED, "cannot decide on a canary: none is running")


async def test_roll_back_is_published_with_phases_and_generations() -> None:
    events: list[Event] = []
    apps = {"app": {"generation": 1}}

    async def work(request: Request) -> Outcome:
        return Outcome(result=Result.ROLLED_BACK, reason="it died", phases={"gap": 0.5}, detail={"apps": apps})

    controller = Controller(work, events.append)
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        await controller.submit(RELOAD)
        group.cancel_scope.cancel()
    finished = events[-1]
    assert isinstance(finished, ReloadFinished)
    assert (finished.result, finished.reason, finished.gap_seconds) == ("rolled_back", "it died", 0.5)
    assert finished.apps == apps


async def test_an_order_that_waits_hurries_the_one_in_hand() -> None:
    hurried: list[int] = []
    started, release = anyio.Event(), anyio.Event()

    async def carry_out(request: Request) -> Outcome:
        started.set()
        await release.wait()
        return Outcome(result=Result.OK)

    controller = Controller(carry_out, lambda event: None, hurry=lambda: hurried.append(1))
    async with anyio.create_task_group() as group:
        await group.start(controller.run)
        controller.request(Request(Verb.RELOAD, "test", canary=Canary(5, 3600)))
        await started.wait()
        before = len(hurried)
        controller.request(Request(Verb.RELOAD, "test"))
        assert len(hurried) == before + 1
        release.set()
        group.cancel_scope.cancel()
