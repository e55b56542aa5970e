"""The service orchestrator: starts services in dependency order, proves them, watches them, stops them in order.

Usable for anything that can be probed: `wait_for_healthy` and its kin need no service of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from supervisor.core.errors import ConfigurationError, RejectedError, SupervisorError, UnreachableError
from supervisor.core.events import Health, Publish
from supervisor.probe.exec import probe_exec
from supervisor.probe.http import probe_http
from supervisor.probe.tcp import probe_tcp
from supervisor.probe.verdict import Probe, Verdict, good, waiting
from supervisor.services import plan
from supervisor.services.backend import Backend
from supervisor.services.readiness import Limits, RunCommand, prove
from supervisor.services.runner import ServiceRunner, Watching
from supervisor.services.spec import ServiceSpec

HealthCheck = Callable[[], Awaitable[bool | Verdict]]


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What to wait for. Give one of `health_check` (coroutine function: True or a Verdict), `command`, `http`, `tcp`.

    `check_interval_seconds` None means the probe schedule; `retries` 0 means that only `timeout_seconds` bounds.
    """

    name: str
    health_check: HealthCheck | None = None
    command: tuple[str, ...] = ()
    http: str | None = None
    tcp: str | None = None
    check_interval_seconds: float | None = None
    timeout_seconds: float = 60.0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class ServiceResult:
    """What came of waiting: `attempts` probes, `elapsed_seconds`, `error` is empty on success."""

    success: bool
    service: str
    attempts: int
    elapsed_seconds: float
    error: str = ""


class ServiceOrchestrator:
    """Owns the services of a stack. Long-lived: `await group.start(orchestrator.run)`, then `launch`.

    `on_essential_failure` is called, once a failure, when an essential service is given up after it had been ready.
    """

    def __init__(
        self,
        publish: Publish,
        *,
        watching: Watching | None = None,
        run_command: RunCommand | None = None,
        on_essential_failure: Callable[[SupervisorError], None] | None = None,
    ) -> None:
        self._publish = publish
        self._watching = watching or Watching()
        self._run_command = run_command
        self._on_essential_failure = on_essential_failure
        self._runners: dict[str, ServiceRunner] = {}
        self._launched: set[str] = set()
        self._group: TaskGroup | None = None
        self._stopping = False

    def add(self, spec: ServiceSpec, backend: Backend) -> None:
        """Take a service in; before `launch`."""
        if spec.name in self._runners:
            raise ConfigurationError(f"cannot add service {spec.name!r}: there is one of that name")
        impossible = spec.restart.unreachable_limit()
        if impossible:
            raise ConfigurationError(f"cannot use the restart settings of {spec.name!r}: {impossible}")
        self._runners[spec.name] = ServiceRunner(spec, backend, self._publish, watching=self._watching)

    @property
    def names(self) -> list[str]:
        """All services, in no particular order."""
        return list(self._runners)

    @property
    def stop_seconds(self) -> float:
        """How long an orderly stop of all may take: the longest grace of each level, added up."""
        order = plan.levels(runner.spec for runner in self._runners.values())
        return sum(self._grace(level) for level in order)

    def _grace(self, level: Iterable[str]) -> float:
        """The longest that a level may take to stop with us."""
        specs = [self._runners[name].spec for name in level]
        return max(0.0 if spec.outlives else spec.stop_seconds for spec in specs)

    def trouble(self) -> str:
        """Which services do not work now, for a sentence; empty when all that should run do."""
        down = [
            name for name, runner in self._runners.items() if not runner.is_ready or runner.health is Health.UNHEALTHY
        ]
        return f"{', '.join(sorted(down))} is down" if down else ""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Supervise all services until cancelled (call `stop_all` first for an orderly stop)."""
        async with anyio.create_task_group() as self._group:
            for runner in self._runners.values():
                self._group.start_soon(runner.run, name=runner.spec.name)
                if runner.spec.essential:
                    self._group.start_soon(self._guard_essential, runner)
            task_status.started()

    def launch(self, names: Iterable[str] | None = None) -> None:
        """Start those services, or all that were not launched yet, each as soon as its own edges allow.

        Raises ConfigurationError for a bad plan.
        """
        assert self._group is not None, "run() must be running"
        plan.levels(runner.spec for runner in self._runners.values())
        for name in self._runners if names is None else names:
            if name not in self._launched:
                self._launched.add(name)
                self._group.start_soon(self._bring_up, self._runners[name], name=f"bring up {name}")

    async def _bring_up(self, runner: ServiceRunner) -> None:
        spec = runner.spec
        needed = [*spec.requires, *spec.wants]
        if needed:
            runner.waiting(f"for {', '.join(needed)}")
        for name in needed:
            await self._runners[name].settled.wait()
        for name in spec.requires:
            error = self._runners[name].failure
            if error is not None:
                runner.fail(UnreachableError(f"cannot start service {spec.name!r}: it requires {name!r}, which failed"))
                return
        if not self._stopping:
            runner.start()

    async def _guard_essential(self, runner: ServiceRunner) -> None:
        await runner.gave_up.wait()
        if self._on_essential_failure is not None and runner.failure is not None:
            self._on_essential_failure(runner.failure)

    async def wait_ready(self, names: Iterable[str]) -> list[ServiceResult]:
        """Wait until each named service settled. Raises the first error of one that is not optional, as it comes.

        An optional one that failed is in the results with its error: a degraded start.
        """
        results: list[ServiceResult] = []
        errors: list[SupervisorError] = []

        async def one(runner: ServiceRunner, scope: anyio.CancelScope) -> None:
            await runner.settled.wait()
            if runner.failure is not None and not runner.spec.optional:
                errors.append(runner.failure)
                scope.cancel()
            results.append(_result(runner))

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(one, self._runners[name], group.cancel_scope)
        if errors:
            raise errors[0]
        return results

    async def stop_all(self, total_seconds: float) -> None:
        """Stop everything that ends with us, in reverse order, level by level, parallel within one; leaves as soon as
        all is down.

        `total_seconds` is shared over the levels where their own graces together exceed it.
        """
        self._stopping = True
        order = list(reversed(plan.levels(runner.spec for runner in self._runners.values())))
        wanted = [self._grace(level) for level in order]
        for level, grace in zip(order, plan.share_budget(wanted, total_seconds), strict=True):
            async with anyio.create_task_group() as group:
                for name in level:
                    runner = self._runners[name]
                    group.start_soon(runner.retire, min(grace, runner.spec.stop_seconds))

    def runner(self, name: str) -> ServiceRunner:
        """The service of that name; RejectedError names those there are."""
        try:
            return self._runners[name]
        except KeyError:
            raise RejectedError(f"no service {name!r}; there are {', '.join(sorted(self._runners))}") from None

    async def wait_for_healthy(self, options: ServiceOptions) -> ServiceResult:
        """Probe until healthy (two good answers in a row) or out of time or retries; never raises for the service."""
        limits = Limits(
            timeout_seconds=options.timeout_seconds,
            retries=options.retries,
            interval_seconds=options.check_interval_seconds,
        )
        proof = await prove(self._probe_of(options), limits)
        return ServiceResult(
            success=proof.proved,
            service=options.name,
            attempts=proof.attempts,
            elapsed_seconds=proof.elapsed_seconds,
            error="" if proof.proved else proof.verdict.detail,
        )

    async def wait_for_multiple(self, options: Sequence[ServiceOptions]) -> list[ServiceResult]:
        """Wait for all in parallel; results in the order given."""
        results: dict[int, ServiceResult] = {}

        async def one(index: int, option: ServiceOptions) -> None:
            results[index] = await self.wait_for_healthy(option)

        async with anyio.create_task_group() as group:
            for index, option in enumerate(options):
                group.start_soon(one, index, option)
        return [results[index] for index in range(len(options))]

    async def wait_for_sequential(self, options: Sequence[ServiceOptions]) -> list[ServiceResult]:
        """Wait for one after the other; ends after the first that fails, so the result may be shorter."""
        results: list[ServiceResult] = []
        for option in options:
            results.append(await self.wait_for_healthy(option))
            if not results[-1].success:
                break
        return results

    def _probe_of(self, options: ServiceOptions) -> Probe:
        given = [check for check in (options.health_check, options.command, options.http, options.tcp) if check]
        if len(given) != 1:
            raise ConfigurationError(
                f"cannot check service {options.name!r}: give exactly one of health_check, command, http and tcp"
            )
        if options.health_check is not None:
            return partial(_probe_coroutine, options.health_check)
        if options.http is not None:
            return partial(_probe_url, options.http)
        if options.tcp is not None:
            host, _, port = options.tcp.rpartition(":")
            return partial(probe_tcp, host, int(port))
        if self._run_command is None:
            raise ConfigurationError(f"cannot check service {options.name!r}: commands need a run_command")
        return partial(probe_exec, partial(self._run_command, options.command))


def _result(runner: ServiceRunner) -> ServiceResult:
    proof = runner.proof
    return ServiceResult(
        success=runner.failure is None,
        service=runner.spec.name,
        attempts=proof.attempts if proof else 0,
        elapsed_seconds=proof.elapsed_seconds if proof else 0.0,
        error=str(runner.failure or ""),
    )


async def _probe_url(url: str) -> Verdict:
    return (await probe_http(url)).verdict


async def _probe_coroutine(check: HealthCheck) -> Verdict:
    """A user's own check: True is good; False, or anything it raises, is not yet."""
    try:
        answer = await check()
    except Exception as error:
        return waiting(f"{type(error).__name__}: {error}")
    if isinstance(answer, Verdict):
        return answer
    return good() if answer else waiting("the health check said no")
