"""The generations of one app that live: begun here, with their places; let finish, or ended, here."""

from __future__ import annotations

import errno
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import replace
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from supervisor.app.drain import drain
from supervisor.app.front.model import Front, Place
from supervisor.app.generation import Generation
from supervisor.app.notify import Readiness
from supervisor.app.run import Run
from supervisor.app.spec import AppSpec, Launch
from supervisor.core.errors import ConfigurationError, TransientError
from supervisor.core.events import Notice, Publish, Warned
from supervisor.process.child import Child, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

_KILL_SECONDS = 0.5
_TRANSIENT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE})


class Cohort:
    """`group` is where their tasks live; set before the first `begin`.

    `free` is given the place of one that is gone; `on_answer` what a probe of one said (`Run`).
    """

    def __init__(
        self,
        name: str,
        front: Front,
        *,
        reaper: Reaper,
        ring: Ring,
        publish: Publish,
        free: Callable[[Place], Awaitable[None]],
        on_answer: Callable[[Run, bool, str], None],
    ) -> None:
        self.name = name
        self.group: TaskGroup | None = None
        self.newest: Generation | None = None
        self._front = front
        self._living: set[Run] = set()
        self._drains: dict[Run, anyio.Event] = {}
        self._number = 0
        self._reaper = reaper
        self._ring = ring
        self._publish = publish
        self._free = free
        self._on_answer = on_answer

    @property
    def living(self) -> Set[Run]:
        """Those that run, a candidate and those that drain among them."""
        return self._living

    @property
    def draining(self) -> Mapping[Run, anyio.Event]:
        """Those that finish what they have; setting the event ends that early."""
        return self._drains

    async def begin(self, spec: AppSpec, *, beside: bool = False) -> Run:
        """Start the next generation.

        Raises ConfigurationError (78) where it cannot be, TransientError where it cannot be just now, FrontError
        without a place for it.
        """
        await self._make_room()
        place = await self._front.take_place()
        self._number += 1
        readiness, listening = spec.readiness(self._number), anyio.CancelScope()
        assert self.group is not None, "the app's task must be running"
        since = self._ring.number
        try:
            await self.group.start(self._listen, readiness, listening)
            child = self._spawn(spec, Launch(self._number, place, readiness, overlapping=beside))
        except BaseException:
            listening.cancel()
            with anyio.CancelScope(shield=True):
                await self._front.give_back(place)
            raise
        readiness.spawned()
        self.newest = Generation(self.name, self._number, child, self._publish)
        run = Run(spec, place, self.newest, readiness, listening, since=since, on_answer=self._on_answer, baking=beside)
        self._living.add(run)
        self.group.start_soon(self._live, run, name=f"{self.name} generation {run.number}")
        return run

    @staticmethod
    async def _listen(readiness: Readiness, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        """Hear what the generation says of itself; without that it is only deaf."""
        with scope:
            await readiness.run(task_status=task_status)

    def _spawn(self, spec: AppSpec, launch: Launch) -> Child:
        command = spec.command(launch)
        try:
            return self._reaper.spawn(command, self._ring)
        except OSError as error:
            kind = TransientError if error.errno in _TRANSIENT else ConfigurationError
            raise kind(explain_spawn_error(command, error)) from error

    async def _live(self, run: Run) -> None:
        try:
            await run.live()
        finally:
            with anyio.CancelScope(shield=True):
                await self._free(run.place)
            if run.left:
                self._publish(Warned(message=run.left))
            self._living.discard(run)
            self._drains.pop(run, anyio.Event()).set()
            run.gone.set()

    async def _make_room(self) -> None:
        """A place for one more: the oldest drain is hurried where there is none."""
        while self._front.room < 1 and self._drains:
            run, hurry = next(iter(self._drains.items()))
            self._publish(Notice(message=f"generation {run.number} is ended early: its place is needed"))
            hurry.set()
            await run.gone.wait()
            await anyio.lowlevel.checkpoint()

    def retire(self, run: Run, reason: str) -> None:
        """Let it finish what it has, beside everything else, then end it."""
        assert self.group is not None
        hurry = self._drains.setdefault(run, anyio.Event())
        run.generation.drain(reason)
        self.group.start_soon(partial(self._retire, run, reason, hurry), name=f"drain {self.name} {run.number}")

    async def _retire(self, run: Run, reason: str, hurry: anyio.Event) -> None:
        try:
            drained = await drain(self._front, run.place, run.spec.limits, hurry) if run.child.alive else None
            if drained is not None and str(drained):
                self._publish(Notice(message=f"generation {run.number} of {self.name!r}: {drained}"))
            run.dismiss(reason)
            await run.gone.wait()
        finally:
            self._drains.pop(run, None)

    async def empty(self, within_seconds: float) -> None:
        """Wait until no request is in flight, at most `within_seconds`; streams are not waited for."""
        async with anyio.create_task_group() as group:
            for run in self._living:
                if run.is_fit:
                    limits = replace(run.spec.limits, drain_seconds=within_seconds, stream_seconds=0)
                    group.start_soon(drain, self._front, run.place, limits, anyio.Event())

    async def end(self, runs: Set[Run], reason: str, grace_seconds: float | None) -> None:
        """End these, in order; returns when all are gone.

        `grace_seconds` is a bound for all, those that are being stopped with a longer grace already among them.
        """
        for run in runs:
            run.dismiss(reason, grace_seconds if run.decided.is_set() else 1.0)
        if grace_seconds is not None:
            with anyio.move_on_after(grace_seconds + _KILL_SECONDS):
                await _all_gone(runs)
            for run in runs & self._living:
                run.child.signal_group(signal.SIGKILL)
        await _all_gone(runs)


async def _all_gone(runs: Iterable[Run]) -> None:
    for run in runs:
        await run.gone.wait()
