"""One app: starts generations through the gate, restarts what crashes or hangs, holds when it gives up.

`front = restart` for now: the old generation is stopped, then the new one is started on the same port.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum

import anyio
from anyio.abc import TaskGroup, TaskStatus

from supervisor.app import gate
from supervisor.app.gate import HealthCheck, Passed
from supervisor.app.generation import Generation
from supervisor.app.hold import Holder
from supervisor.core.errors import AppGaveUpError, ConfigurationError, SupervisorError
from supervisor.core.events import AppHealthChanged, AppHeld, AppRestarting, Health, Notice, Publish, Warned
from supervisor.process import restart
from supervisor.process.child import Child, Command, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.procfs import describe_port_owner
from supervisor.process.reaper import Reaper
from supervisor.process.restart import Again, Done, End, GiveUp, RestartPolicy

_PORT_FREE_TRIES = 100  # 2 s
TAIL_LINES = 20


class OnUnhealthy(StrEnum):
    """What a hung app leads to."""

    RESTART = "restart"
    NONE = "none"
    EXIT = "exit"


@dataclass(frozen=True, kw_only=True)
class AppSpec:
    """What to run and how to judge it; seconds throughout. `command` gives the Command of generation n."""

    name: str
    command: Callable[[int], Command]
    check: HealthCheck
    start_seconds: float = 60.0
    stop_seconds: float = 10.0
    interval_seconds: float = 10.0
    retries: int = 3
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    on_unhealthy: OnUnhealthy = OnUnhealthy.RESTART
    hold: bool = False
    excuse: gate.Excuse = lambda: ""


@dataclass(frozen=True)
class _Ended:
    """How a run ended: `clean` is exit 0 by itself, `hung` a failed liveness."""

    reason: str
    clean: bool = False
    hung: bool = False
    final: SupervisorError | None = None


class App:
    """Long-lived: `await group.start(app.run)`, then `start`. Orders come one at a time (the controller's turn).

    `on_end` is called when the app ended for good and is not held: None for an orderly exit 0, else the error.
    """

    def __init__(
        self,
        spec: AppSpec,
        *,
        reaper: Reaper,
        ring: Ring,
        publish: Publish,
        on_end: Callable[[SupervisorError | None], None],
    ) -> None:
        self.spec = spec
        self._reaper = reaper
        self._ring = ring
        self._publish = publish
        self._on_end = on_end
        self._group: TaskGroup | None = None
        self._scope: anyio.CancelScope | None = None
        self._idle = anyio.Event()
        self._idle.set()
        self._settled = anyio.Event()
        self._verdict = anyio.Event()
        self._failure: SupervisorError | None = None
        self.served = anyio.Event()
        """Set when a generation serves for the first time."""
        self._number = 0
        self._ends: list[End] = []
        self._generation: Generation | None = None
        self._health = Health.NONE
        self._old_path = ""
        self._bad_answers = 0
        self._grace: float | None = None
        self._reason = ""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the app's tasks until cancelled; cancelling kills the app (stop it in order first)."""
        async with anyio.create_task_group() as self._group:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""
        return self._generation

    @property
    def is_serving(self) -> bool:
        """Whether a generation serves now."""
        return self._generation is not None and self._generation.is_serving

    def serves(self) -> bool:
        """Whether a generation serves now, as a function."""
        return self.is_serving

    @property
    def health_path(self) -> str:
        """The path the last generation answered on; empty before, and without HTTP."""
        return self._old_path

    async def wait_verdict(self) -> None:
        """After a failed first start: wait until the restart policy ended in serving, in holding, or in giving up."""
        await self._verdict.wait()

    async def start(self) -> None:
        """Start it and wait until it serves; raises AppGaveUpError (or 78) when this start failed.

        After a failed start the restart policy goes on by itself, until it gives up or holds.
        """
        await self._end_keeper("replaced")
        self._ends.clear()
        self._settled, self._verdict, self._failure = anyio.Event(), anyio.Event(), None
        self._reason, self._grace = "", None
        self._launch(self._generations())
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self, grace_seconds: float | None = None, reason: str = "stop") -> None:
        """Stop it and leave it stopped; returns when its tree is empty. No-op when it does not run."""
        self._grace = grace_seconds
        await self._end_keeper(reason)

    async def _end_keeper(self, reason: str) -> None:
        self._reason = reason
        if self._scope is not None:
            self._scope.cancel()
        await self._idle.wait()

    def signal(self, number: int) -> bool:
        """Hand a signal to the serving process; False when there is none."""
        return self._generation is not None and self._generation.child.signal(number)

    async def hold(self, reason: str) -> None:
        """Answer 503 with `reason` on the app's port until the next `start` or `stop`."""
        await self._end_keeper("held")
        self._launch(self._hold(reason))

    def _launch(self, work: Coroutine[object, object, None]) -> None:
        # The scope is made here, not in the task, so that a stop that comes before the task's first step counts too.
        assert self._group is not None, "run() must be running"
        self._scope, self._idle = anyio.CancelScope(), anyio.Event()
        self._group.start_soon(self._keep, self._scope, work, name=f"app {self.spec.name}")

    async def _keep(self, scope: anyio.CancelScope, work: Coroutine[object, object, None]) -> None:
        """Run the app, or hold its port, until that ends or is cancelled; always leaves an empty tree."""
        try:
            with scope:
                await work
        finally:
            self._scope = None
            self._settle(AppGaveUpError(f"cannot start app {self.spec.name!r}: {self._reason or 'it was stopped'}"))
            self._idle.set()

    async def _generations(self) -> None:
        while True:
            ended = await self._one_generation()
            now = anyio.current_time()
            self._ends = restart.forget_old(self.spec.restart, [*self._ends, self._as_end(ended)], now)
            step = restart.decide(self.spec.restart, self._ends, now)
            if ended.final is not None or (ended.hung and self.spec.on_unhealthy is OnUnhealthy.EXIT):
                step = GiveUp(ended.reason)
            self._settle(ended.final or AppGaveUpError(f"cannot start app {self.spec.name!r}: {ended.reason}"))
            match step:
                case Again(delay_seconds=delay):
                    restarting = AppRestarting(
                        app=self.spec.name, reason=ended.reason, restart_in_seconds=round(delay, 3)
                    )
                    self._publish(restarting)
                    await anyio.sleep(delay)
                case Done():
                    self._on_end(None)
                    return
                case GiveUp(reason=reason):
                    await self._give_up(ended, reason)
                    return

    def _settle(self, error: SupervisorError | None) -> None:
        if not self._settled.is_set():
            self._failure = error
            self._settled.set()

    def _as_end(self, ended: _Ended) -> End:
        served = self._generation.served_seconds if self._generation else 0.0
        first = served > 0 and not self._ends
        healthy = (served >= self.spec.restart.cap_seconds or first) and not ended.hung
        return End(at=anyio.current_time(), clean=ended.clean, was_healthy=healthy)

    async def _give_up(self, ended: _Ended, reason: str) -> None:
        text = ended.reason if reason == ended.reason else f"{reason}; last: {ended.reason}"
        if self.spec.hold:
            await self._hold(text)
        if ended.final is not None:
            self._on_end(ended.final)
            return
        lines = "\n".join(f"    {line.text}" for line in self._ring.tail(TAIL_LINES))
        report = f"\n  last lines of its output:\n{lines}" if lines else "\n  it wrote no output"
        self._on_end(AppGaveUpError(f"cannot keep app {self.spec.name!r} running: {text}{report}"))

    async def _hold(self, reason: str) -> None:
        """Never returns where the port can be had; a port somebody else took is reported, and nothing is served."""
        self._publish(AppHeld(app=self.spec.name, reason=reason))
        self._verdict.set()
        try:
            await Holder(self.spec.name, self.spec.check.port, reason).run()
        except OSError as error:
            self._publish(Warned(message=f"cannot answer on port {self.spec.check.port}: {error.strerror}"))
            await anyio.sleep_forever()

    async def _one_generation(self) -> _Ended:
        """Start one, gate it, serve it, watch it to its end; stopped in order when cancelled."""
        try:
            await self._wait_port_free()
            child = self._spawn()
        except SupervisorError as error:
            return _Ended(str(error), final=error)
        generation = Generation(self.spec.name, self._number, child, self._publish)
        self._generation = generation
        try:
            refused, path = await self._gate(generation)
            if refused:
                return _Ended(refused)
            return await self._serve(generation, path)
        finally:
            with anyio.CancelScope(shield=True):
                grace = self.spec.stop_seconds if self._grace is None else self._grace
                await generation.stop(grace, self._reason)

    def _spawn(self) -> Child:
        self._number += 1
        command = self.spec.command(self._number)
        try:
            return self._reaper.spawn(command, self._ring)
        except OSError as error:
            raise ConfigurationError(explain_spawn_error(command, error)) from error

    async def _wait_port_free(self) -> None:
        """The port may be closing still; a stranger on it is an error that names it."""
        if self.spec.check.kind == "none":
            return
        port = self.spec.check.port
        for _ in range(_PORT_FREE_TRIES):
            if port_is_free(port):
                return
            await anyio.sleep(0.02)
        raise ConfigurationError(
            f"cannot start app {self.spec.name!r}: port {port} is taken by {describe_port_owner(port)}; "
            f"stop that or choose another with PORT"
        )

    async def _gate(self, generation: Generation) -> tuple[str, str]:
        """(why it was refused, "") or ("", the path that answered)."""
        result: list[gate.Passed | gate.Refused] = []
        async with anyio.create_task_group() as group:

            async def until_end() -> None:
                await generation.child.wait()
                group.cancel_scope.cancel()

            group.start_soon(until_end)
            result.append(
                await gate.pass_gate(generation.child, self.spec.check, start_seconds=self.spec.start_seconds)
            )
            group.cancel_scope.cancel()
        if not result:
            refused = f"{generation.child.exit} before it was healthy"
        elif isinstance(result[0], Passed):
            return "", self._passed(generation, result[0])
        else:
            refused = f"{result[0].reason}; {self._advice()}"
        generation.fail(refused)
        return refused, ""

    def _advice(self) -> str:
        return (
            f"it must listen on the port in PORT ({self.spec.check.port}); set SUPERVISOR_APP_HEALTH_PATH, or "
            f"SUPERVISOR_APP_HEALTH=tcp or none for an app without HTTP"
        )

    def _passed(self, generation: Generation, passed: Passed) -> str:
        asked = self.spec.check.path
        answered = f"answered on {passed.path}" if passed.path else self.spec.check.kind
        generation.ready(answered)
        if passed.path and passed.path not in (asked, self._old_path):
            text = f"the health path {asked} answers 404, so {passed.path} is asked instead"
            self._publish(Notice(message=text, detail="set SUPERVISOR_APP_HEALTH_PATH to a path of the app's own"))
        self._old_path = passed.path
        return passed.path

    async def _serve(self, generation: Generation, path: str) -> _Ended:
        generation.serve()
        self._verdict.set()
        self.served.set()
        self._set_health(Health.HEALTHY)
        self._settle(None)
        ended: list[_Ended] = []
        async with anyio.create_task_group() as group:

            async def until_hung() -> None:
                reason = await self._wait_hung(path)
                ended.append(_Ended(f"hung: {reason}", hung=True))
                group.cancel_scope.cancel()

            if self.spec.check.kind != "none":
                group.start_soon(until_hung)
            end = await generation.child.wait()
            ended.append(_Ended(str(end), clean=end.clean))
            group.cancel_scope.cancel()
        generation.fail(ended[0].reason)
        self._set_health(Health.UNHEALTHY, ended[0].reason)
        return ended[0]

    async def _wait_hung(self, path: str) -> str:
        """Why the app counts as hung; with `on_unhealthy = none` it is only reported, and watched on."""
        while True:
            reason = await gate.watch_liveness(
                self.spec.check,
                path,
                interval_seconds=self.spec.interval_seconds,
                retries=self.spec.retries,
                on_answer=self._answered,
                excuse=self.spec.excuse,
            )
            self._set_health(Health.UNHEALTHY, reason)
            if self.spec.on_unhealthy is not OnUnhealthy.NONE:
                return reason

    def _answered(self, good: bool, detail: str) -> None:
        self._bad_answers = 0 if good else self._bad_answers + 1
        if good:
            self._set_health(Health.HEALTHY)
        elif self._bad_answers >= self.spec.retries:
            self._set_health(Health.UNHEALTHY, detail)

    def _set_health(self, health: Health, error: str = "") -> None:
        if health is not self._health:
            self._health = health
            self._publish(AppHealthChanged(app=self.spec.name, health=health, error=error))


def port_is_free(port: int, host: str = "0.0.0.0") -> bool:
    """Whether `port` can be bound now. SO_REUSEADDR, as servers set it: connections closing still are no obstacle."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EACCES:
                return True  # the app may have what we lack; its own error will say
            raise
    return True
