"""The daemon as one supervised child: prepared, started, proved, and ended with one TERM."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping

import anyio

from supervisor.core.errors import EngineError, SupervisorError
from supervisor.engine.dockerd import hints, ping
from supervisor.engine.dockerd.ending import end_by_force, wait_for_containerd
from supervisor.engine.dockerd.preparation import DockerdOptions, Preparation
from supervisor.engine.dockerd.record import record_of, write_record
from supervisor.probe.verdict import Verdict, waiting
from supervisor.process.child import Child, Command, Exit, RunProgram, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

START_SECONDS = 60.0
"""How long it may be silent in its log before it is given up; while the log shows progress, up to ten minutes."""
RECOVERY_SECONDS = 540.0


class Dockerd:
    """Runs our daemon, as a service's backend; the data root stays locked until `release`.

    After a crash the shims and containers it left are spared: the next daemon takes care of them. `report` gets one
    line for people at a time. `before_spawn` is given the daemon's environment; a daemon runs what it ran before as
    soon as it is up, so what must be there earlier is made there.
    """

    def __init__(
        self,
        options: DockerdOptions,
        *,
        reaper: Reaper,
        ring: Ring,
        run: RunProgram,
        environ: Mapping[str, str],
        report: Callable[[str], None],
        before_spawn: Callable[[Mapping[str, str]], Awaitable[None]] | None = None,
    ) -> None:
        self.ring = ring
        self.attempt = 0
        self.failure: EngineError | None = None
        """Why the last one that was never ready ended."""
        self._options = options
        self._places = options.places
        self._reaper = reaper
        self._report = report
        self._before_spawn = before_spawn
        self._preparation = Preparation(options, run=run, environ=environ, reap=reaper.reap, report=report)
        self._child: Child | None = None
        self._told: Child | None = None
        self._proved: Child | None = None
        self._seen_line = 0

    @property
    def incarnation(self) -> str | None:
        """pid and start time of the running daemon."""
        return self._child.identity if self._child is not None and self._child.alive else None

    @property
    def pid(self) -> int | None:
        """The running daemon's pid."""
        return self._child.pid if self._child is not None and self._child.alive else None

    @property
    def last_stop_clean(self) -> bool | None:
        """Whether the daemon before this supervisor's first one ended in order; None before the first start."""
        return self._preparation.last_stop_clean

    async def prepare(self) -> Command:
        """Make the ground ready, clean what a dead daemon left, write its configuration. Idempotent.

        Raises EngineError: E08, E09, E10, E12, E21 to E24; E25 for an unusable daemon.json.
        """
        return await self._preparation.command()

    async def start(self) -> None:
        """Prepare and spawn; returns once it is spawned. Raises EngineError (E25 where it cannot be executed)."""
        if self._child is not None:
            if self._child.alive:
                raise SupervisorError(f"cannot start dockerd: it runs already as pid {self._child.pid}")
            await wait_for_containerd(self._child)
        command = await self.prepare()
        if self._before_spawn is not None:
            await self._before_spawn(command.env)
        self.attempt += 1
        self._seen_line = self.ring.number
        try:
            self._child = self._reaper.spawn(command, self.ring)
        except OSError as error:
            raise EngineError("E25", explain_spawn_error(command, error)) from error
        self._write_record(self._child)

    def _write_record(self, child: Child) -> None:
        places = self._places
        record = record_of(
            child, install_uuid=self._options.install_uuid, data_root=places.data_root, socket=places.socket
        )
        try:
            write_record(places.record, record)
        except OSError as error:
            self._report(f"cannot write {str(places.record)!r}: {error.strerror}; the daemon cannot be adopted later")

    async def probe(self) -> Verdict:
        """One probe: alive, ping, `/info`, our label."""
        child = self._child
        if child is None or not child.alive:
            return waiting("its process has ended")
        # What it wrote until now: a line that comes during the probe counts for the next one.
        progress = self._progressed()
        verdict = await ping.probe_daemon(
            self._places.socket, install_uuid=self._options.install_uuid, progress=progress
        )
        if verdict.good and child is not self._proved:
            self._proved = child
            self._write_record(child)  # again, as its socket is there now
        return verdict

    def _progressed(self) -> bool:
        lines = self.ring.since(self._seen_line)
        self._seen_line = self.ring.number
        return any(hints.shows_progress(line.text) for line in lines)

    async def wait_end(self) -> Exit:
        """Wait for its end; an end before it was ready is reported with its hint."""
        child = self._child
        assert child is not None
        end = await child.wait()
        if child not in (self._proved, self._told):
            self.failure = self.explain(end)
            self._preparation.say_once(str(self.failure))
        return end

    def explain(self, end: Exit) -> EngineError:
        """E25 for a daemon that ended: its last error line, and the hint for it."""
        lines = [line.text for line in self.ring.tail(hints.LAST_LINES)]
        return hints.failure(lines, ended=str(end), attempt=self.attempt, log="this log, lines of 'dockerd'")

    async def stop(self, grace_seconds: float) -> None:
        """One TERM (a second one makes dockerd quit without cleaning up), then wait; by force after the grace.

        It ends its containers in parallel, then containerd, and removes its socket and pid file itself. Cancelling
        ends it by force at once.
        """
        child = self._child
        if child is None:
            return
        try:
            if child is not self._told and child.signal(signal.SIGTERM):
                self._told = child
                child.signal(signal.SIGCONT)
            with anyio.move_on_after(grace_seconds):
                if (await child.wait()).clean:
                    self._mark_clean()
        finally:
            with anyio.CancelScope(shield=True):
                await end_by_force(child)

    async def abandon(self, grace_seconds: float) -> None:
        """Stop it."""
        await self.stop(grace_seconds)

    async def retire(self, grace_seconds: float) -> None:
        """Stop it, and let go of the data root: it ends with us."""
        await self.stop(grace_seconds)
        self.release()

    def _mark_clean(self) -> None:
        with contextlib.suppress(OSError):  # without it the next start only says that the stop was unclean
            self._preparation.last_stop.ended_in_order()

    def release(self) -> None:
        """Let go of the data root; after the last stop."""
        self._preparation.lock.drop()

    def sign_mark(self) -> int:
        """The number of the newest line of output."""
        return self.ring.number

    async def wait_sign(self, mark: int) -> None:
        """Return at a line newer than that."""
        await self.ring.wait_newer(mark)

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        """Ours when the process at the other end of the socket is our child; 0 is one outside our PID namespace."""
        if self._child is None or not self._child.alive:
            return "its process has ended"
        if verdict.peer_pid != self._child.pid:
            return f"the answer came from pid {verdict.peer_pid}, which is not ours"
        return ""
