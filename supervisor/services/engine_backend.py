"""Services that the engine runs: one backend over what differs between a Swarm service and a container.

Events of the engine wake it; a slow look now and then covers lost ones.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from supervisor.core.errors import SupervisorError
from supervisor.engine.client import Engine
from supervisor.engine.errors import Unavailable
from supervisor.engine.events import EngineEvent, Lost, StreamItem
from supervisor.probe.verdict import Verdict
from supervisor.process.child import Exit
from supervisor.process.intake import Intake
from supervisor.process.output import Ring

LOOK_SECONDS = 5.0
_TAIL_LINES = 100
_STOP_SPARE_SECONDS = 5.0
_FOLLOWED_KEPT = 32
_REPLACE_SECONDS = 15.0


@dataclass(frozen=True)
class Seen:
    """What the engine shows of a service. `container` is the newest one, ended or not; `text` is the engine's word.

    `since` tells the runs of one container apart: when this one began, in Unix seconds (0: there is one run only).
    That is noted after its first line may have come, so its output is what came after `output_since`.
    `exit_code` is that of the newest one that ended, None where it told none. `blocked` is why none can be made.
    """

    container: str = ""
    since: float = 0.0
    output_since: float = 0.0
    running: bool = False
    exit_code: int | None = None
    text: str = ""
    blocked: str = ""

    @property
    def run(self) -> str:
        """Tells this run from every other; empty before the first."""
        return f"{self.container} {self.since:f}" if self.container else ""


class Driver(Protocol):
    """What a kind of service needs of the engine. Everything raises the engine's errors."""

    name: str

    async def ensure(self) -> bool:
        """Make it be there, as it should be and wanted running; no call where it is. Raises ConfigurationError too.

        Whether what runs now will be replaced for that.
        """

    async def look(self) -> Seen:
        """How it stands."""

    async def halt(self, grace_seconds: float) -> None:
        """Make it be stopped, and stay so."""

    def concerns(self, event: EngineEvent) -> bool:
        """Whether the event may have changed what `look` gives."""


class EngineBackend:
    """See `Backend`. `run` must be running; it follows the service's output into the ring.

    `when_up` returns once the engine answers: a start waits for it rather than spend tries while it is restarted.
    """

    pid: int | None = None

    def __init__(
        self,
        driver: Driver,
        engine: Engine,
        ring: Ring,
        *,
        when_up: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.ring = ring
        self._driver = driver
        self._engine = engine
        self._when_up = when_up
        self._look_seconds = look_seconds
        self._seen = Seen()
        self._found: str | None = None  # the run of the first look, which may be older than we are, or newer
        self._began = time.time()  # output before this is in older logs; the engine may have begun a run since
        self._started_as: str | None = None
        self._made = False
        self._died = ("", 0)
        self._signs = 0
        self._asked = anyio.Event()
        self._changed = anyio.Event()
        self._looking = anyio.Lock()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the view fresh and follow the output, until cancelled."""
        followed: deque[str] = deque(maxlen=_FOLLOWED_KEPT)
        async with anyio.create_task_group() as group:
            task_status.started()
            while True:
                asked = self._asked
                with contextlib.suppress(SupervisorError):
                    await self._look()
                seen = self._seen
                if seen.run and seen.run not in followed:
                    followed.append(seen.run)
                    group.start_soon(self._follow, seen)
                with anyio.move_on_after(self._look_seconds):
                    await asked.wait()

    def on_event(self, item: StreamItem) -> None:
        """Take what came on the engine's event stream."""
        if isinstance(item, Lost) or (isinstance(item, EngineEvent) and not self._driver.concerns(item)):
            return
        if isinstance(item, EngineEvent) and item.action == "die":
            # The engine forgets the tasks of a service that was stopped, and their exit codes with them.
            self._died = (item.id, int(item.attributes.get("exitCode", "255")))
        self._asked.set()
        self._asked = anyio.Event()
        self._sign()

    def _sign(self) -> None:
        self._signs += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def _look(self) -> Seen:
        async with self._looking:
            seen = await self._driver.look()
            if self._found is None:
                self._found = seen.run
            if seen != self._seen:
                self._seen = seen
                self._sign()
            return seen

    async def _follow(self, seen: Seen) -> None:
        """The output of one run to its end, line by line; a connection that breaks is taken up again."""
        intakes = {name: Intake(self.ring, name) for name in ("stdout", "stderr")}
        since = seen.output_since if seen.run != self._found else max(seen.output_since, self._began)
        async with anyio.create_task_group() as late:
            while True:
                try:
                    async with self._engine.containers.follow(seen.container, tail=_TAIL_LINES, since=since) as pieces:
                        async for piece in pieces:
                            intake = intakes.get(piece.stream, intakes["stdout"])
                            held = intake.holds
                            intake.feed(piece.data)
                            if intake.holds and not held:
                                late.start_soon(intake.show_when_open)
                    break
                except Unavailable:
                    since = time.time()
                    await anyio.sleep(self._look_seconds)
                except SupervisorError:
                    break  # it is gone, and its output with it
            late.cancel_scope.cancel()
        for intake in intakes.values():
            intake.close()

    @property
    def container(self) -> str | None:
        """The running container's id; None while none runs."""
        return self._seen.container if self._seen.running else None

    @property
    def incarnation(self) -> str | None:
        """The running container's id, and which of its runs it is."""
        return self._seen.run if self._seen.running else None

    async def start(self) -> None:
        """Make it be as it should be; returns once it runs, or has run. Raises our errors where the engine refuses."""
        await self._when_up()
        self._made = False
        before = (await self._look()).run
        replaced = await self._driver.ensure()
        self._made = True
        # Bounded, as an engine may find that a change needs no other task after all.
        replaced_by = anyio.current_time() + (_REPLACE_SECONDS if replaced else 0.0)
        while True:
            changed = self._changed
            seen = await self._look()
            if seen.blocked:
                raise SupervisorError(f"cannot start {self._driver.name!r}: {seen.blocked}")
            if (seen.running and anyio.current_time() >= replaced_by) or (seen.run and seen.run != before):
                self._started_as = seen.run
                return
            with anyio.move_on_after(self._look_seconds):
                await changed.wait()

    async def wait_end(self) -> Exit:
        """Wait until the container that `start` saw runs no more."""
        assert self._started_as is not None
        while True:
            changed = self._changed
            if self.incarnation != self._started_as:
                container, code = self._died
                known = self._started_as.startswith(f"{container} ") if container else False
                return Exit(code if known else self._seen.exit_code, None, time.monotonic())
            await changed.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Stop it and keep it stopped; returns once its container has ended. An engine that is gone took it along."""
        with anyio.move_on_after(grace_seconds + _STOP_SPARE_SECONDS), contextlib.suppress(SupervisorError):
            await self._driver.halt(grace_seconds)
            while (await self._look()).running:
                with anyio.move_on_after(self._look_seconds):
                    await self._changed.wait()

    async def abandon(self, grace_seconds: float) -> None:
        """Stop it where the last start got as far as the engine; else what is there was not touched, and may be
        somebody else's."""
        if self._made:
            await self.stop(grace_seconds)

    async def retire(self, grace_seconds: float) -> None:
        """Let it run on: the engine keeps it, and a stop of the engine stops it in order."""

    def sign_mark(self) -> int:
        """Lines and events so far."""
        return self.ring.number + self._signs

    async def wait_sign(self, mark: int) -> None:
        """Return at a line or an event after that."""
        while self.sign_mark() <= mark:
            async with anyio.create_task_group() as group:
                group.start_soon(self._wait_then_end, self._changed.wait, group.cancel_scope)
                await self.ring.wait_newer(self.ring.number)
                group.cancel_scope.cancel()

    async def _wait_then_end(self, wait: Callable[[], Awaitable[object]], scope: anyio.CancelScope) -> None:
        await wait()
        scope.cancel()

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        """The engine routes the address to its container; all that can be told is whether that one still runs."""
        if self.incarnation is None or self.incarnation != self._started_as:
            return "its container has ended"
        return ""
