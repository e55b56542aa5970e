"""One app: takes the orders of the controller's turn, one at a time, and carries them out with its lineup."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import TaskStatus

from supervisor.app.front.model import Front, FrontError, Holding
from supervisor.app.generation import Generation
from supervisor.app.keeper import Keeper
from supervisor.app.lineup import Lineup
from supervisor.app.reload import Commit, Reload, Renew, Report
from supervisor.app.spec import AppSpec
from supervisor.core.errors import AppGaveUpError, RejectedError, SupervisorError
from supervisor.core.events import Publish
from supervisor.core.groups import plain_errors
from supervisor.core.requests import Canary
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

COUNT_SECONDS = 0.05


class App:
    """Long-lived: `await group.start(app.run)`, then `start`. Orders come one at a time (the controller's turn).

    `on_end` is called when the app ended for good and is not held: None for an orderly exit 0, else the error.
    """

    def __init__(
        self,
        spec: AppSpec,
        *,
        front: Front,
        reaper: Reaper,
        ring: Ring,
        publish: Publish,
        on_end: Callable[[SupervisorError | None], None],
    ) -> None:
        self.spec = spec
        self.front = front
        self._ring = ring
        self._publish = publish
        self._on_end = on_end
        self._lineup = Lineup(spec.name, front, reaper=reaper, ring=ring, publish=publish)
        self.last_reload = Report()
        self._keeper: Keeper | None = None
        self._reload: Reload | None = None
        self._scope: anyio.CancelScope | None = None
        self._idle = anyio.Event()
        self._idle.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the app's tasks until cancelled; cancelling kills the app (stop it in order first)."""
        async with anyio.create_task_group() as self._lineup.cohort.group:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""
        return self._lineup.cohort.newest

    @property
    def served(self) -> anyio.Event:
        """Set when a generation serves for the first time."""
        return self._lineup.served

    @property
    def is_serving(self) -> bool:
        """Whether a generation serves now."""
        return self._lineup.is_serving

    @property
    def is_stopped(self) -> bool:
        """Whether it is not to run: never started, or stopped by hand."""
        return self._keeper is None

    async def alone(self) -> None:
        """Return once no generation is left but the one that serves: the others have finished what they had."""
        for run in set(self._lineup.cohort.living):
            if run is not self._lineup.active:
                await run.gone.wait()

    def serves(self) -> bool:
        """Whether a generation serves now, as a function."""
        return self.is_serving

    @property
    def health_path(self) -> str:
        """The path the serving generation answered on; empty before, and without HTTP."""
        return self._lineup.active.path if self._lineup.active is not None else ""

    async def wait_verdict(self) -> None:
        """After a failed first start: wait until the restart policy ended in serving, in holding, or in giving up."""
        assert self._keeper is not None
        await self._keeper.verdict.wait()

    async def start(self) -> None:
        """Start it and wait until it serves; raises AppGaveUpError (or 78) when this start failed.

        After a failed start the restart policy goes on by itself, until it gives up or holds.
        """
        await self._end("replaced", None)
        keeper = self._new_keeper()
        self._launch(keeper, keeper.keep())
        await keeper.settled.wait()
        if keeper.failure is not None:
            raise keeper.failure

    async def stop(self, grace_seconds: float | None = None, reason: str = "stop") -> None:
        """Finish what is in flight, stop it and leave it stopped; returns when its tree is empty.

        `grace_seconds` is for all of it, half of that for the requests in flight. No-op when it does not run.
        """
        await self._end_keeper()
        deadline = anyio.current_time() + (self.spec.stop_seconds if grace_seconds is None else grace_seconds)
        patience = min(self.spec.limits.drain_seconds, (deadline - anyio.current_time()) / 2)
        with anyio.move_on_after(patience):  # a front that does not answer has no more time than the requests
            await self._lineup.finish(Holding("stopped", reason), patience)
        await self._lineup.end_all(reason, max(0.5, deadline - anyio.current_time()))

    async def hold(self, reason: str) -> None:
        """Tell clients `reason` instead of running the app, until the next `start`, `reload` or `stop`."""
        await self._end("held", None)
        keeper = self._new_keeper()
        self._launch(keeper, keeper.keep(held=reason))

    async def restart(self) -> None:
        """Stop and start the same code; where the front can, requests wait meanwhile. Raises what `start` raises."""
        self.last_reload = Report()
        await self._replace(self.spec)

    def decide(self, *, promote: bool) -> bool:
        """End the canary in hand, one way or the other; False where there is none."""
        return self._reload is not None and self._reload.decide(promote=promote)

    def reject(self, reason: str) -> bool:
        """Go back from the code that is in its bake to the one before; False where none is."""
        return self._reload is not None and self._reload.reject(reason)

    def end_canary(self, reason: str) -> None:
        """Another order waits behind the canary in hand: end it."""
        if self._reload is not None:
            self._reload.end_canary(reason)

    async def reload(
        self,
        spec: AppSpec | None = None,
        canary: Canary | None = None,
        *,
        renew: Renew | None = None,
        commit: Commit | None = None,
    ) -> None:
        """Bring new code into service. Raises RejectedError, RolledBackError, or what `start` raises.

        Beside the one that serves where the front and the app allow that, else one after the other. What was done is
        in `last_reload`, also after an error. `renew` gives the spec anew where the reload starts over. `commit` is
        called before traffic moves; where one comes after the other, before the old one is stopped.
        """
        spec = spec or self.spec
        self.last_reload = Report()
        if self._keeper is None or not (self.front.overlap and spec.overlap):
            if canary is not None:
                raise RejectedError(
                    "a canary needs two generations beside each other: an app that runs, the front `proxy`, and "
                    "SUPERVISOR_OVERLAP not false"
                )
            if commit is not None:
                await commit()
            async with self._counting():
                await self._replace(spec)
            return
        self._reload = Reload(spec, self._lineup, self._keeper, self.last_reload, canary, renew, commit=commit)
        try:
            async with self._counting():
                await self._reload.run()
            self.spec = self._reload.spec
        finally:
            self._reload = None

    @asynccontextmanager
    async def _counting(self) -> AsyncIterator[None]:
        """Note how many requests wait at most while the block runs."""
        report = self.last_reload
        with plain_errors():
            async with anyio.create_task_group() as group:

                async def count() -> None:
                    while True:
                        with suppress(FrontError):
                            report.most_waiting = max(report.most_waiting, await self.front.waiting())
                        await anyio.sleep(COUNT_SECONDS)

                group.start_soon(count)
                yield
                group.cancel_scope.cancel()

    def start_over(self) -> bool:
        """Begin the candidate of the reload in hand anew; False where there is none, or it is too late."""
        return self._reload is not None and self._reload.start_over()

    def signal(self, number: int) -> bool:
        """Hand a signal to the serving process; False when there is none."""
        active = self._lineup.active
        return active is not None and active.child.signal(number)

    async def _replace(self, spec: AppSpec) -> None:
        """Stop, then start; where the front can, requests wait meanwhile."""
        report = self.last_reload
        report.before = self._lineup.active.number if self._lineup.active else None
        was_serving, stopping = self.is_serving, time.monotonic()
        await self._lineup.wait()
        async with self._answer_after_hold():
            await self._lineup.cohort.empty(min(self.spec.limits.drain_seconds, self.spec.limits.hold_seconds))
            await self._end("reload", None)
            stopped = time.monotonic()
            report.phases["stop"] = round(stopped - stopping, 4)
            self.spec = spec
            await self.start()
        report.phases["start"] = round(time.monotonic() - stopped, 4)
        if was_serving:
            report.phases["gap"] = round(time.monotonic() - stopping, 4)
        report.after = self._lineup.active.number if self._lineup.active else None

    @asynccontextmanager
    async def _answer_after_hold(self) -> AsyncIterator[None]:
        """Requests wait for the block's end at most the hold time; then they are told."""
        with plain_errors():
            async with anyio.create_task_group() as group:

                async def answer() -> None:
                    await anyio.sleep(self.spec.limits.hold_seconds)
                    await self._lineup.answer(Holding("restarting", "new code is started"), unless_served=True)

                group.start_soon(answer)
                yield
                group.cancel_scope.cancel()

    def _new_keeper(self) -> Keeper:
        self._keeper = Keeper(self.spec, self._lineup, ring=self._ring, publish=self._publish, on_end=self._on_end)
        return self._keeper

    def _launch(self, keeper: Keeper, work: Coroutine[object, object, None]) -> None:
        # The scope is made here, not in the task, so that a stop that comes before the task's first step counts too.
        assert self._lineup.cohort.group is not None, "run() must be running"
        self._scope, self._idle = anyio.CancelScope(), anyio.Event()
        self._lineup.cohort.group.start_soon(self._keep, self._scope, keeper, work, name=f"app {self.spec.name}")

    async def _keep(self, scope: anyio.CancelScope, keeper: Keeper, work: Coroutine[object, object, None]) -> None:
        try:
            with scope:
                await work
        finally:
            keeper.settle(AppGaveUpError(f"cannot start app {self.spec.name!r}: it was stopped"))
            self._scope = None
            self._idle.set()

    async def _end(self, reason: str, grace_seconds: float | None) -> None:
        await self._end_keeper()
        await self._lineup.end_all(reason, grace_seconds)

    async def _end_keeper(self) -> None:
        """From now on nothing is restarted."""
        if self._scope is not None:
            self._scope.cancel()
        await self._idle.wait()
        self._keeper = None
