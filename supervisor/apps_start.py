"""The last phase of the boot: each app's migrations, then the app, each after those that it requires. Wiring."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio

from supervisor.core.errors import AppGaveUpError, MigrationError, SupervisorError
from supervisor.core.events import PhaseFinished, PhaseStarted, Publish, Warned
from supervisor.core.groups import plain_errors
from supervisor.migrate import migrate
from supervisor.planning.part import AppPart
from supervisor.planning.plan import AppPlan


@asynccontextmanager
async def phase(publish: Publish, name: str) -> AsyncIterator[None]:
    """A part of the boot with a name of its own; one that fails has no end."""
    publish(PhaseStarted(phase=name))
    started = time.monotonic()
    yield
    publish(PhaseFinished(phase=name, elapsed_seconds=round(time.monotonic() - started, 3)))


class Trials(Protocol):
    """What is known of one app's release on trial."""

    def is_on_trial(self) -> bool:
        """Whether what is started was not confirmed yet."""

    async def retreat(self, reason: str) -> AppPlan | None:
        """Give up a release on trial that does not start; gives the plan of the good one, None where there is none."""


@dataclass(eq=False)
class _Start:
    part: AppPart
    settled: anyio.Event


class AppsStart:
    """Starts all. With `hold`, an app that cannot be started is held, and so is what requires it."""

    def __init__(self, parts: Iterable[AppPart], trials: Mapping[str, Trials], publish: Publish, *, hold: bool) -> None:
        self._starts = {part.name: _Start(part, anyio.Event()) for part in parts}
        self._trials = trials
        self._publish = publish
        self._hold = hold
        self._migrating = anyio.Lock()

    async def run(self) -> None:
        """Raises what an app's migrations or first start raised, where it is not held."""
        with plain_errors():
            async with anyio.create_task_group() as group:
                for start in self._starts.values():
                    group.start_soon(self._start, start)

    async def _start(self, start: _Start) -> None:
        for name in start.part.requires:
            await self._starts[name].settled.wait()
        lacking = [name for name in start.part.requires if not self._starts[name].part.app.is_serving]
        if lacking:
            why = f"it requires {', '.join(lacking)}, which did not start; mend that, then reload"
            await start.part.app.hold(why)
        else:
            await self._first_start(start.part)
        start.settled.set()

    async def _first_start(self, part: AppPart) -> None:
        """Where the app may be held, the failure of its migrations ends in that."""
        try:
            try:
                await self._migrate_and_start(part)
            except SupervisorError as error:
                plan = await self._trials[part.name].retreat(str(error))
                if plan is None:
                    raise
                await part.app.stop(reason="its release did not start")
                part.plan, part.app.spec = plan, plan.spec
                await self._migrate_and_start(part)
        except MigrationError as error:
            if not self._hold:
                raise
            await part.app.hold(str(error))

    async def _migrate_and_start(self, part: AppPart) -> None:
        async with self._migrating, phase(self._publish, self._named("migrations", part)):
            await migrate(part.name, part.plan.migrations, self._publish)
        async with phase(self._publish, self._named("app", part)):
            await self._start_for_good(part)

    def _named(self, word: str, part: AppPart) -> str:
        return word if len(self._starts) == 1 else f"{word} {part.name}"

    async def _start_for_good(self, part: AppPart) -> None:
        """Start the app; after a failed first start the restart policy goes on, to serving or to giving up."""
        try:
            await part.app.start()
        except AppGaveUpError as error:
            if self._trials[part.name].is_on_trial():
                raise
            self._publish(Warned(message=f"the first start of {part.name!r} failed", detail=str(error)))
            await part.app.wait_verdict()
