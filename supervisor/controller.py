"""One turn at a time: takes requests, merges reloads that wait, carries each out, answers each."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import anyio
from anyio.abc import TaskStatus

from supervisor.core.errors import RejectedError, StoppingError, SupervisorError
from supervisor.core.events import Publish, ReloadFinished, ReloadRequested
from supervisor.core.requests import DECISIONS, Outcome, Request, Result, Verb, result_of

MAX_WAITING = 64
NOTHING_TO_DECIDE = Outcome(result=Result.REJECTED, reason="cannot decide on a canary: none is running")

CarryOut = Callable[[Request], Awaitable[Outcome]]
Work = Callable[[], Awaitable[None]]


@dataclass(eq=False)
class _Turn:
    """A request that waits or runs; `done` is set with its outcome. Merged requests share one turn."""

    request: Request
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Outcome | None = None
    work: Work | None = None
    error: SupervisorError | None = None

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.done.set()


def _same(one: Request, other: Request) -> bool:
    return (one.verb, one.target, one.canary) == (other.verb, other.target, other.canary)


class Controller:
    """Long-lived: `await group.start(controller.run)`; requests made before that wait.

    Of the only one of `apps` a reload is one of all, however it was asked for, so that these join each other.
    A reload asked for while one waits joins it; asked for while one runs, it becomes the next, unless the one in hand
    can still `start_over`. So a caller always gets the outcome of a reload that read the disk after its request.
    Shutdown does not queue: cancelling `run` cancels the turn in hand and answers all that wait.
    """

    def __init__(
        self,
        carry_out: CarryOut,
        publish: Publish,
        *,
        apps: Sequence[str] = (),
        start_over: Callable[[Request], bool] = lambda request: False,
        decide: Callable[[Request], Outcome] = lambda request: NOTHING_TO_DECIDE,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        self._carry_out = carry_out
        self._publish = publish
        self._apps = tuple(apps)
        self._start_over = start_over
        self._decide = decide
        self._hurry = hurry
        self._current: _Turn | None = None
        self._waiting: deque[_Turn] = deque()
        self._arrived = anyio.Event()
        self._closed = False

    async def submit(self, request: Request) -> Outcome:
        """Ask, and wait for the outcome. Cancelling the wait does not take the request back."""
        turn = self.post(request)
        await turn.done.wait()
        assert turn.outcome is not None
        return turn.outcome

    async def turn(self, request: Request, work: Work) -> None:
        """Have `work` done in a turn of its own, which nothing joins; raises what it raised.

        Raises RejectedError where there is no turn to be had, StoppingError where it was cut short. Cancelling the wait
        does not take it back.
        """
        turn = _Turn(request, work=work)
        self._enqueue(turn)
        await turn.done.wait()
        if turn.error is not None:
            raise turn.error
        assert turn.outcome is not None
        if turn.outcome.result is Result.CANCELLED:
            raise StoppingError(turn.outcome.reason)
        if not turn.outcome.ok:
            raise RejectedError(turn.outcome.reason)

    def request(self, request: Request) -> None:
        """Ask, without interest in the outcome (it is published all the same)."""
        self.post(request)

    def post(self, request: Request) -> _Turn:
        """Ask without waiting; the turn tells when it is done."""
        if request.verb is Verb.RELOAD and (request.target,) == self._apps:
            request = replace(request, target="")
        if request.verb in DECISIONS:
            decided = _Turn(request)
            decided.finish(self._decide(request))
            return decided
        joined = self._join(request)
        if request.verb is Verb.RELOAD:
            self._publish(ReloadRequested(source=request.source, target=request.target, merged=joined is not None))
        if joined is not None:
            return joined
        turn = _Turn(request)
        self._enqueue(turn)
        return turn

    def _enqueue(self, turn: _Turn) -> None:
        if self._closed:
            turn.finish(Outcome(result=Result.CANCELLED, reason="the supervisor is stopping"))
        elif len(self._waiting) >= MAX_WAITING:
            turn.finish(Outcome(result=Result.REJECTED, reason=f"{MAX_WAITING} requests wait already"))
        else:
            self._waiting.append(turn)
            self._arrived.set()
            self._hurry()

    def _join(self, request: Request) -> _Turn | None:
        """The turn that will do what is asked anyway: the last one waiting, or the one in hand that starts over."""
        last = self._waiting[-1] if self._waiting else None
        if last is not None:
            return last if last.work is None and _same(last.request, request) else None
        current = self._current
        if (
            current is not None
            and current.work is None
            and _same(current.request, request)
            and self._start_over(request)
        ):
            return current
        return None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry out one request after the other until cancelled."""
        task_status.started()
        turn: _Turn | None = None
        try:
            while True:
                while not self._waiting:
                    self._arrived = anyio.Event()
                    await self._arrived.wait()
                turn = self._current = self._waiting.popleft()
                outcome = await (self._answer(turn.request) if turn.work is None else self._work(turn, turn.work))
                self._current = None
                turn.finish(outcome)
        finally:
            self._close(turn)

    @staticmethod
    async def _work(turn: _Turn, work: Work) -> Outcome:
        try:
            await work()
        except SupervisorError as error:
            turn.error = error
        return Outcome(result=Result.OK)

    async def _answer(self, request: Request) -> Outcome:
        started = anyio.current_time()
        try:
            outcome = await self._carry_out(request)
        except SupervisorError as error:
            outcome = Outcome(result=result_of(error), reason=str(error))
        if request.verb is Verb.RELOAD:
            self._publish(
                ReloadFinished(
                    source=request.source,
                    result=outcome.result.value,
                    reason=outcome.reason,
                    elapsed_seconds=round(anyio.current_time() - started, 3),
                    gap_seconds=outcome.phases.get("gap"),
                    phases=outcome.phases,
                    apps=outcome.detail.get("apps", {}),
                )
            )
        return outcome

    def _close(self, current: _Turn | None) -> None:
        self._closed = True
        cancelled = Outcome(result=Result.CANCELLED, reason="the supervisor is stopping")
        for turn in [current, *self._waiting]:
            if turn is not None and not turn.done.is_set():
                turn.finish(cancelled)
        self._waiting.clear()
