"""One service's life: start, prove, watch, restart, stop; one loop, the decisions taken from pure functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from supervisor.core.errors import ExitCode, SupervisorError, UnreachableError
from supervisor.core.events import Health, Publish, ServiceChanged, ServiceGaveUp, ServiceHealthChanged, ServiceState
from supervisor.core.machine import Machine
from supervisor.probe.verdict import Answer, Verdict, waiting
from supervisor.process import restart
from supervisor.process.child import Exit
from supervisor.process.restart import Again, Done, End, GiveUp
from supervisor.services.backend import TAIL_LINES, Backend
from supervisor.services.readiness import Limits, Proof, prove
from supervisor.services.spec import ServiceSpec

S = ServiceState
MOVES: dict[ServiceState, frozenset[ServiceState]] = {
    S.STOPPED: frozenset({S.WAITING, S.STARTING}),
    S.WAITING: frozenset({S.STARTING, S.FAILED, S.STOPPED}),
    S.STARTING: frozenset({S.RUNNING, S.BACKOFF, S.FAILED, S.STOPPING, S.STOPPED}),
    S.RUNNING: frozenset({S.STARTING, S.BACKOFF, S.FAILED, S.STOPPING, S.STOPPED}),
    S.BACKOFF: frozenset({S.STARTING, S.FAILED, S.STOPPING, S.STOPPED}),
    S.STOPPING: frozenset({S.STOPPED, S.STARTING}),
    S.FAILED: frozenset({S.STARTING, S.STOPPING, S.STOPPED}),
}


@dataclass(frozen=True)
class Watching:
    """How a running service is watched: seconds between probes, limit of one, failures in a row that count."""

    interval_seconds: float = 10.0
    timeout_seconds: float = 3.0
    retries: int = 3


@dataclass(frozen=True)
class _Ended:
    """One run is over: its exit where the process ended, an error where it never became ready."""

    reason: str
    exit: Exit | None = None
    ready_seconds: float | None = None
    fatal: SupervisorError | None = None


class ServiceRunner:
    """Keeps one service in its desired state. A manual stop sticks until a start.

    `run` lives as long as the daemon; cancelling it stops the service by force, so stop in order first.
    """

    RETRY_SECONDS = 30.0

    def __init__(
        self,
        spec: ServiceSpec,
        backend: Backend,
        publish: Publish,
        *,
        watching: Watching | None = None,
    ) -> None:
        self.spec = spec
        self.backend = backend
        self._publish = publish
        self._watching = watching or Watching()
        self._machine = Machine(S.STOPPED, MOVES)
        self._health = Health.NONE
        self._ends: list[End] = []
        self._last_verdict = ""
        self._wanted = False
        self._changed = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._stop_seconds = spec.stop_seconds
        self._retiring = False
        self._stopping: anyio.CancelScope | None = None
        self._at_rest = anyio.Event()
        self._at_rest.set()
        self.ever_ready = False
        self.settled = anyio.Event()
        """Set once the first start has either succeeded or failed for good."""
        self.failure: SupervisorError | None = None
        self.gave_up = anyio.Event()
        """Set at the first giving up after it had been ready."""
        self._proof: Proof | None = None

    @property
    def state(self) -> ServiceState:
        """The state now."""
        return self._machine.state

    @property
    def is_ready(self) -> bool:
        """Whether it is proved and running."""
        return self.state is S.RUNNING

    @property
    def health(self) -> Health:
        """Health now."""
        return self._health

    @property
    def proof(self) -> Proof | None:
        """How the last successful start was proved."""
        return self._proof

    def waiting(self, reason: str) -> None:
        """It is wanted and waits for others."""
        self._to(S.WAITING, reason)

    def fail(self, error: SupervisorError) -> None:
        """It cannot be started at all (a service it requires failed)."""
        self.failure = error
        self._to(S.FAILED, str(error))
        self.settled.set()

    def start(self) -> None:
        """Want it running. From `failed` it is tried again at once, with a fresh restart budget."""
        if self._wanted and self.state is not S.FAILED:
            return
        self._ends.clear()
        if self.settled.is_set():
            self.settled, self.failure = anyio.Event(), None
        if self._wanted and self._scope is not None:
            self._scope.cancel()  # it sleeps between two tries; `run` goes straight on, as it is still wanted
        elif not self._wanted:
            self._wanted = True
            self._at_rest = anyio.Event()
        self._wake()

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Want it stopped, and wait until it is; it stays so until `start`."""
        await self._end_run(grace_seconds)

    async def retire(self, grace_seconds: float) -> None:
        """The same at our own end: what outlives us is let go instead."""
        self._retiring = True
        if self.spec.outlives and self._stopping is not None:
            self._stopping.cancel()  # the engine finishes what it was told; our end must not wait for that
        await self._end_run(grace_seconds)

    async def restart(self, grace_seconds: float | None = None) -> None:
        """Stop it and start it again; returns when it is ready, raises UnreachableError when it is not."""
        await self._end_run(grace_seconds)
        self.start()
        await self.wait_ready()

    async def wait_ready(self) -> None:
        """Wait until the first start (or the one just asked for) settled; raises the error of a failed one."""
        await self.settled.wait()
        if self.failure is not None:
            raise self.failure

    async def _end_run(self, grace_seconds: float | None) -> None:
        self._wanted = False
        self._stop_seconds = self.spec.stop_seconds if grace_seconds is None else grace_seconds
        if self._scope is not None:
            self._scope.cancel()
        self._wake()
        await self._at_rest.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Supervise until cancelled."""
        while True:
            if self._wanted:
                with anyio.CancelScope() as self._scope:
                    await self._keep_running()
                self._scope = None
                if not self._wanted:
                    await self._stop_backend()
                    self._to(S.STOPPED)
                    self._set_health(Health.NONE)
                    self.settled.set()
            if not self._wanted:
                self._at_rest.set()
                await self._changed.wait()

    async def _keep_running(self) -> None:
        """Run it again and again until its policy or a cancellation ends that."""
        while True:
            ended = await self._one_run()
            now = anyio.current_time()
            self._ends = restart.forget_old(self.spec.restart, [*self._ends, self._as_end(ended)], now)
            step = restart.decide(self.spec.restart, self._ends, now)
            if ended.fatal is not None:
                step = GiveUp(ended.reason)
            match step:
                case Again(delay_seconds=delay):
                    self._to(S.BACKOFF, ended.reason, ended.exit, restart_in_seconds=delay)
                    await anyio.sleep(delay)
                case GiveUp(reason=reason):
                    self._give_up(ended, reason)
                    await self._shielded(self.backend.abandon)
                    await anyio.sleep(self.RETRY_SECONDS)
                case Done():
                    self._wanted = False
                    return

    def _as_end(self, ended: _Ended) -> End:
        """A run that was ready for as long as the longest backoff counts as healthy, and so does a first ready one."""
        ready = ended.ready_seconds
        healthy = ready is not None and (ready >= self.spec.restart.cap_seconds or not self._ends)
        clean = ended.exit is not None and ended.exit.clean
        return End(at=anyio.current_time(), clean=clean, was_healthy=healthy)

    async def _one_run(self) -> _Ended:
        """Start it, prove it, watch it to its end."""
        self._to(S.STARTING)
        self._set_health(Health.STARTING)
        try:
            ended = await self._start_and_watch()
        except SupervisorError as error:
            final = error.exit_code in (ExitCode.CONFIGURATION, ExitCode.PRIVILEGE)
            ended = _Ended(str(error), fatal=error if final else None)
        except anyio.get_cancelled_exc_class():
            if self._wanted:  # not by hand: all of us is being ended
                await self._shielded(self.backend.retire)
            raise
        # What runs after an end by itself is the engine's replacement for it: the next start takes that.
        if ended.exit is None:
            await self._shielded(self.backend.abandon)
        return ended

    async def _start_and_watch(self) -> _Ended:
        await self.backend.start()
        self._to_starting_with_pid()
        proof, ended = await self._prove_or_end()
        if ended is not None:
            return ended
        assert proof is not None
        return await self._watch(anyio.current_time())

    def _to_starting_with_pid(self) -> None:
        self._publish(ServiceChanged(service=self.spec.name, state=S.STARTING, reason="spawned", pid=self.backend.pid))

    async def _stop_backend(self) -> None:
        """By hand, or at our own end; also between two runs, as an engine may be about to start it again."""
        if self.backend.incarnation is not None:
            self._to(S.STOPPING)
        await self._shielded(self.backend.retire if self._retiring else self.backend.stop)

    async def _shielded(self, end: Callable[[float], Awaitable[None]]) -> None:
        """Let an end finish; only `retire` cuts it short."""
        with anyio.CancelScope(shield=True) as self._stopping:
            await end(self._stop_seconds)
        self._stopping = None

    async def _prove_or_end(self) -> tuple[Proof | None, _Ended | None]:
        """Prove it while its process lives; gives the proof, or how the run ended instead."""
        proof: Proof | None = None
        end: Exit | None = None
        async with anyio.create_task_group() as group:

            async def until_end() -> None:
                nonlocal end
                end = await self.backend.wait_end()
                group.cancel_scope.cancel()

            group.start_soon(until_end)
            limits = Limits(
                timeout_seconds=self.spec.start_seconds,
                recovery_seconds=self.spec.recovery_seconds,
                retries=self.spec.retries,
                interval_seconds=self.spec.check_interval_seconds,
            )
            proof = await prove(
                self.spec.probe, limits, subject=self.backend, port=self.spec.port, on_verdict=self._note
            )
            group.cancel_scope.cancel()
        if proof is None:
            return None, _Ended(f"{end} before it was ready ({self._last_verdict})", exit=end)
        if not proof.proved:
            return None, self._unproved(proof)
        self.ever_ready = True
        self.failure = None
        self._proof = proof
        self._to(S.RUNNING, elapsed_seconds=round(proof.elapsed_seconds, 3))
        self._set_health(Health.HEALTHY, attempts=proof.attempts)
        self.settled.set()
        return proof, None

    def _unproved(self, proof: Proof) -> _Ended:
        why = f"cannot use service {self.spec.name!r}: {proof.verdict.detail}"
        if proof.verdict.answer is Answer.FATAL:
            return _Ended(why, fatal=UnreachableError(why))
        late = f"not ready after {proof.elapsed_seconds:.1f} s and {proof.attempts} probes; last answer: "
        return _Ended(late + proof.verdict.detail, fatal=UnreachableError(why))

    def _note(self, verdict: Verdict) -> None:
        self._last_verdict = verdict.detail

    async def _watch(self, ready_at: float) -> _Ended:
        """Probe now and then; returns when the process ended, or hangs."""
        end: Exit | None = None
        hung = ""
        async with anyio.create_task_group() as group:

            async def until_hung() -> None:
                nonlocal hung
                hung = await self._watch_health()
                group.cancel_scope.cancel()

            group.start_soon(until_hung)
            end = await self.backend.wait_end()
            group.cancel_scope.cancel()
        reason = str(end) if end is not None else f"it hangs: {hung}"
        self._set_health(Health.UNHEALTHY, error=reason)
        return _Ended(reason, exit=end, ready_seconds=anyio.current_time() - ready_at)

    async def _watch_health(self) -> str:
        """Returns why it counts as hung, where that is for us to end."""
        failures = 0
        while True:
            await anyio.sleep(self._watching.interval_seconds)
            verdict = await self._probe_once()
            failures = 0 if verdict.good else failures + 1
            if verdict.good:
                self._set_health(Health.HEALTHY)
            elif failures >= self._watching.retries:
                self._set_health(Health.UNHEALTHY, error=verdict.detail)
            if failures >= self.spec.hung_after > 0:
                return verdict.detail

    async def _probe_once(self) -> Verdict:
        with anyio.move_on_after(self._watching.timeout_seconds):
            return await self.spec.probe()
        return waiting(f"no answer within {self._watching.timeout_seconds:g} s")

    def _give_up(self, ended: _Ended, reason: str) -> None:
        text = ended.reason if ended.fatal is not None else f"{reason}; last: {ended.reason}"
        self._to(S.FAILED, text, ended.exit)
        self._set_health(Health.UNHEALTHY, error=text)
        report = self.report(ended)
        self._publish(ServiceGaveUp(service=self.spec.name, error=text, report=report))
        self.failure = ended.fatal or UnreachableError(f"cannot start service {self.spec.name!r}: {text}\n{report}")
        self.settled.set()
        if self.ever_ready:
            self.gave_up.set()

    def report(self, ended: _Ended) -> str:
        """The failure report: last probe error, exit, last 20 lines of its output."""
        lines = [f"{line.stream}: {line.text}" for line in self.backend.ring.tail(TAIL_LINES)]
        parts = [f"  last probe: {self._last_verdict or 'none'}", f"  process: {ended.exit or 'still running'}"]
        parts.append(f"  last {len(lines)} lines of its output:" if lines else "  it wrote no output")
        return "\n".join([*parts, *(f"    {line}" for line in lines)])

    def _set_health(self, health: Health, *, error: str = "", attempts: int | None = None) -> None:
        if health is not self._health:
            self._health = health
            self._publish(ServiceHealthChanged(service=self.spec.name, health=health, error=error, attempts=attempts))

    def _to(
        self,
        state: ServiceState,
        reason: str = "",
        end: Exit | None = None,
        *,
        restart_in_seconds: float | None = None,
        elapsed_seconds: float | None = None,
    ) -> None:
        if state is self._machine.state:
            return
        self._machine.to(state, reason)
        self._publish(
            ServiceChanged(
                service=self.spec.name,
                state=state,
                reason=reason,
                pid=self.backend.pid,
                exit_code=end.code if end else None,
                signal=end.signal_name if end else None,
                restart_in_seconds=None if restart_in_seconds is None else round(restart_in_seconds, 3),
                elapsed_seconds=elapsed_seconds,
            )
        )
