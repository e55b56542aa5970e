"""Keeps one generation serving: the first start, restarts of what crashes or hangs, giving up, holding."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from supervisor.app.front.model import FrontError, Holding
from supervisor.app.lineup import Lineup
from supervisor.app.losses import Losses
from supervisor.app.run import Ended, Run
from supervisor.app.spec import AppSpec, OnUnhealthy
from supervisor.core.errors import AppGaveUpError, ConfigurationError, SupervisorError, TransientError
from supervisor.core.events import AppHeld, AppRestarting, Publish, Warned
from supervisor.process import restart
from supervisor.process.output import Ring
from supervisor.process.restart import Again, Done, End, GiveUp

TAIL_LINES = 20
_COUNT_SECONDS = 0.1
_COUNT_BESIDE_SECONDS = 0.5

OnEnd = Callable[[SupervisorError | None], None]


class Keeper:
    """One life of an app, from a start to a stop. `settled` tells how the first try ended (`failure`).

    `verdict` is set once it serves, or is held; `on_end` is called when the app ended for good and is not held.
    """

    def __init__(self, spec: AppSpec, lineup: Lineup, *, ring: Ring, publish: Publish, on_end: OnEnd) -> None:
        self.spec = spec
        self.settled = anyio.Event()
        self.verdict = anyio.Event()
        self.failure: SupervisorError | None = None
        self.fallen = ""
        """Why traffic went back to the warm generation; empty when it did not."""
        self._lineup = lineup
        self._ring = ring
        self._publish = publish
        self._on_end = on_end
        self._ends: list[End] = []
        self._tried: Run | None = None
        self._losses = Losses(lineup.front)

    async def keep(self, held: str = "") -> None:
        """Until the app ends for good, or this is cancelled; generations are ended by the caller.

        With `held` nothing is started: clients are told that, until a reload brings something that serves.
        """
        ended = await (self.hold(held) if held else self._raise_one())
        while True:
            if ended is None:
                self.verdict.set()
                self.settle(None)
                ended = await self._trouble()
            step = self._decide(ended)
            self.settle(ended.final or AppGaveUpError(f"cannot start app {self.spec.name!r}: {ended.reason}"))
            match step:
                case Again(delay_seconds=delay):
                    ended = await self._again(ended, delay)
                case Done():
                    self._on_end(None)
                    return
                case GiveUp(reason=reason):
                    await self._give_up(ended, reason)
                    ended = None

    def settle(self, error: SupervisorError | None) -> None:
        """The first try is over; later calls count for nothing."""
        if not self.settled.is_set():
            self.failure = error
            self.settled.set()

    def promoted(self, spec: AppSpec) -> None:
        """New code serves, brought by a reload: what its forerunner did is forgotten."""
        self.spec = spec
        self._ends.clear()
        self.fallen = ""
        self.verdict.set()

    async def _raise_one(self) -> Ended | None:
        """Start one and put it into service; None when it serves, else why not."""
        try:
            run = await self._lineup.cohort.begin(self.spec)
        except ConfigurationError as error:
            return Ended(str(error), final=error)
        except (FrontError, TransientError) as error:
            return Ended(str(error))
        self._tried = run
        try:
            return await self._put_into_service(run)
        finally:
            # Also where a stop, or a reload that was through first, cut this short.
            if self._lineup.active is not run:
                run.dismiss("it does not serve")

    async def _put_into_service(self, run: Run) -> Ended | None:
        await run.decided.wait()
        if run.refusal:
            run.dismiss("it did not become healthy")
            await run.gone.wait()
            return run.trouble or Ended(run.refusal)
        try:
            await self._lineup.promote(run)
        except FrontError as error:
            run.dismiss("it cannot be switched to")
            await run.gone.wait()
            return run.trouble or Ended(str(error))
        return None

    async def _trouble(self) -> Ended:
        """Wait until whoever serves must not any longer, and no warm one takes over."""
        while True:
            run, changed = self._lineup.active, self._lineup.changed
            if run is None:
                await changed.wait()
                continue
            await self._until_either(run, changed)
            if run is not self._lineup.active or run.trouble is None:
                continue
            self._lineup.trouble(run.trouble)
            if await self._fall_back(run, run.trouble.reason):
                continue
            if run is not self._lineup.active:
                continue  # a reload was through meanwhile
            self._tried = run
            run.generation.fail(run.trouble.reason)
            return run.trouble

    async def _until_either(self, run: Run, changed: anyio.Event) -> None:
        """Trouble or a promotion."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._losses.watch, run)
            await _first(run.troubled, changed)
            group.cancel_scope.cancel()

    async def _fall_back(self, run: Run, reason: str) -> bool:
        """Whether the warm one took over."""
        lost: list[int | None] = []

        async def count() -> None:
            lost.append(await self._losses.of(run, _COUNT_BESIDE_SECONDS))

        async with anyio.create_task_group() as group:
            group.start_soon(count)  # beside: it must not cost the way back any time
            if not await self._lineup.fall_back(reason):
                group.cancel_scope.cancel()
                return False
            self.fallen = reason
            if self._lineup.active is not None:
                self.spec = self._lineup.active.spec  # a restart must not bring the new code again
        if lost[0]:
            what = "request" if lost[0] == 1 else "requests"
            self._publish(Warned(message=f"{lost[0]} {what} got no answer as generation {run.number} ended"))
        return True

    def _decide(self, ended: Ended) -> restart.Again | restart.Done | restart.GiveUp:
        now = anyio.current_time()
        self._ends = restart.forget_old(self.spec.restart, [*self._ends, self._as_end(ended)], now)
        if ended.final is not None or (ended.hung and self.spec.on_unhealthy is OnUnhealthy.EXIT):
            return GiveUp(ended.reason)
        return restart.decide(self.spec.restart, self._ends, now)

    def _as_end(self, ended: Ended) -> End:
        served = self._tried.generation.served_seconds if self._tried else 0.0
        first = served > 0 and not self._ends
        healthy = (served >= self.spec.restart.cap_seconds or first) and not ended.hung
        return End(at=anyio.current_time(), clean=ended.clean, was_healthy=healthy)

    async def _again(self, ended: Ended, delay_seconds: float) -> Ended | None:
        """Replace it after the delay, requests waiting within their bound; a reload that is through first wins."""
        lost = await self._losses.of(self._tried, _COUNT_SECONDS) if self._tried is not None else None
        self._publish(
            AppRestarting(
                app=self.spec.name, reason=ended.reason, restart_in_seconds=round(delay_seconds, 3), lost=lost
            )
        )
        result: list[Ended | None] = [None]
        changed = self._lineup.changed
        if not ended.hung:
            await self._lineup.wait(unless_served=True)
        async with anyio.create_task_group() as group:

            async def replace() -> None:
                await anyio.sleep(delay_seconds)
                await self._end_before()
                result[0] = await self._raise_one()
                group.cancel_scope.cancel()

            async def unless_promoted() -> None:
                await changed.wait()
                group.cancel_scope.cancel()

            group.start_soon(self._answer_after_hold, ended.reason)
            group.start_soon(unless_promoted)
            group.start_soon(replace)
        return None if self._lineup.is_serving else result[0]

    async def _end_before(self) -> None:
        """Where two must not run, all that is left of the one before goes first, what it started included (that may
        have the port); else a hung one stays until the other one serves.
        """
        active = self._lineup.active
        if active is None or (self._lineup.front.overlap and self.spec.overlap):
            return
        if active.child.alive:
            await self._lineup.wait()
        active.dismiss("replaced")
        await active.gone.wait()

    async def _answer_after_hold(self, reason: str) -> None:
        await anyio.sleep(self.spec.limits.hold_seconds)
        await self._lineup.answer(Holding("restarting", reason), unless_served=True)

    async def _give_up(self, ended: Ended, reason: str) -> None:
        """Hold, and return when a reload brought something that serves; without holding, tell, and stay."""
        text = ended.reason if reason == ended.reason else f"{reason}; last: {ended.reason}"
        if not self.spec.hold:
            self._on_end(ended.final or self._gave_up(text))
            await anyio.sleep_forever()
        await self.hold(text)

    async def hold(self, reason: str) -> None:
        """Tell the clients why nobody serves, until a reload brought something that does."""
        self._publish(AppHeld(app=self.spec.name, reason=reason))
        changed = self._lineup.changed
        # Not what a reload is just proving: it may be the mend.
        await self._lineup.end_all("held", None, but_candidates=True)
        await self._lineup.answer(Holding("failed", reason), unless_served=True)
        self.verdict.set()
        await changed.wait()

    def _gave_up(self, text: str) -> AppGaveUpError:
        lines = "\n".join(f"    {line.text}" for line in self._ring.tail(TAIL_LINES))
        report = f"\n  last lines of its output:\n{lines}" if lines else "\n  it wrote no output"
        return AppGaveUpError(f"cannot keep app {self.spec.name!r} running: {text}{report}")


async def _first(*events: anyio.Event) -> None:
    """Wait for whichever is set first."""
    async with anyio.create_task_group() as group:

        async def one(event: anyio.Event) -> None:
            await event.wait()
            group.cancel_scope.cancel()

        for event in events:
            group.start_soon(one, event)
