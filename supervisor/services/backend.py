"""Who runs a service: the protocol, and the child process (swarm service and container come with the engine)."""

from __future__ import annotations

import os
from typing import Protocol

import anyio

from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.probe.verdict import Verdict
from supervisor.process import procfs
from supervisor.process.child import Child, Command, Exit, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.spec import Prepare

TAIL_LINES = 20


class Backend(Protocol):
    """Runs one service. `start` returns once it is spawned, not once it is ready; the other calls never raise."""

    ring: Ring

    @property
    def incarnation(self) -> str | None:
        """Identity of what runs now (it changes with every restart), None while nothing runs."""

    @property
    def pid(self) -> int | None:
        """Its process where it is one of ours."""

    async def start(self) -> None:
        """Start it. Raises our errors: 77 and 78 mean that trying again cannot help."""

    async def wait_end(self) -> Exit:
        """Wait until what runs now has ended."""

    async def stop(self, grace_seconds: float) -> None:
        """Stop it in order, by force after the grace; nothing is left when this returns. No-op when it does not run."""

    async def abandon(self, grace_seconds: float) -> None:
        """A start failed, or what it started does: stop that. What a start only found there goes on."""

    async def retire(self, grace_seconds: float) -> None:
        """We end: stop it as `stop` does, unless somebody else keeps it running for us."""

    def sign_mark(self) -> int:
        """Where the signs stand now, for `wait_sign`."""

    async def wait_sign(self, mark: int) -> None:
        """Return at a line of its output, or another event worth a probe, that came after `mark`."""

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        """Why a good answer did not come from what we started; empty when it did."""


class ChildBackend:
    """A service as a supervised child process."""

    def __init__(self, name: str, prepare: Prepare, *, reaper: Reaper, ring: Ring) -> None:
        self.ring = ring
        self._name = name
        self._prepare = prepare
        self._reaper = reaper
        self._child: Child | None = None

    @property
    def incarnation(self) -> str | None:
        """pid and start time of the running child."""
        return self._child.identity if self._child is not None and self._child.alive else None

    @property
    def pid(self) -> int | None:
        """The running child's pid."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def start(self) -> None:
        """Prepare and spawn; ConfigurationError where the program cannot be executed."""
        if self._child is not None and self._child.alive:
            raise SupervisorError(f"cannot start {self._name!r}: it runs already as pid {self._child.pid}")
        await self._end_rest()
        command: Command = await self._prepare()
        try:
            self._child = self._reaper.spawn(command, self.ring)
        except OSError as error:
            raise ConfigurationError(explain_spawn_error(command, error)) from error

    async def _end_rest(self) -> None:
        """End what a crashed leader left: a worker that still holds the port would make the next start fail."""
        if self._child is not None and self._child.survivors:
            await self._child.kill()

    async def wait_end(self) -> Exit:
        """Wait for the child's end."""
        assert self._child is not None
        return await self._child.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Stop signal, grace, KILL, for the child and what it left."""
        if self._child is not None and (self._child.alive or self._child.survivors):
            await self._child.stop(grace_seconds=grace_seconds)

    async def abandon(self, grace_seconds: float) -> None:
        """Stop it: a child is there only where it was started."""
        await self.stop(grace_seconds)

    async def retire(self, grace_seconds: float) -> None:
        """Stop it: a child ends with us."""
        await self.stop(grace_seconds)

    def sign_mark(self) -> int:
        """The number of the newest line of output."""
        return self.ring.number

    async def wait_sign(self, mark: int) -> None:
        """Return at a line newer than that."""
        await self.ring.wait_newer(mark)

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        """Ours when the pid the server names, or the listener of its port, is our child or below it."""
        child = self._child
        if child is None or not child.alive:
            return "its process has ended"
        if verdict.peer_pid:
            if procfs.read_stat(verdict.peer_pid) is None or procfs.descends_from(verdict.peer_pid, child.pid):
                # A backend that is gone by now proves nothing against it; the incarnation check still holds.
                return ""
            return f"the answer came from pid {verdict.peer_pid}, which is not ours"
        if port is None:
            return ""
        return disowned_port(port, child)


def disowned_port(port: int, child: Child) -> str:
    """Why the listener on `port` is not `child` or what it started; empty when it is.

    A listener we may not look into (another uid without CAP_SYS_PTRACE) cannot be told from a stranger; as the port was
    free right before the spawn, it is taken for ours.
    """
    owners = procfs.port_owners(port)
    if owners is None:
        return f"nothing listens on port {port}"
    entry = f"SUPERVISOR_SPAWN={child.marker}".encode()
    if not owners or any(procfs.descends_from(pid, child.pid) or procfs.has_environ(pid, entry) for pid in owners):
        return ""
    if os.getpid() in owners:
        return f"port {port} is held by the supervisor itself"
    return f"port {port} belongs to pid {owners[0]} ({procfs.command_line(owners[0])}), which is not ours"


async def run_to_end(reaper: Reaper, command: Command, ring: Ring, *, limit_seconds: float) -> tuple[int, str]:
    """Run a command to its end; gives its status (127 where it cannot start, 124 at the limit) and its last line.

    Bounded: at the limit, or when cancelled, it is stopped with all it started.
    """
    try:
        child = reaper.spawn(command, ring)
    except OSError as error:
        return 127, explain_spawn_error(command, error)
    with anyio.move_on_after(limit_seconds):
        try:
            end = await child.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await child.stop(grace_seconds=1.0)
            raise
        last = ring.tail(1)
        return end.status, last[0].text if last else ""
    return 124, f"no end within {limit_seconds:g} s"


async def run_and_quote(reaper: Reaper, command: Command, ring: Ring, *, limit_seconds: float) -> tuple[int, str]:
    """As `run_to_end`, with the last lines it wrote, 20 at most, for an error to quote."""
    before = ring.number
    status, last = await run_to_end(reaper, command, ring, limit_seconds=limit_seconds)
    return status, "\n".join(line.text for line in ring.since(before)[-TAIL_LINES:]) or last
