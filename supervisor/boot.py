"""The phases of the boot, and of a reload, which repeats the last of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from supervisor.app.app import App
from supervisor.app.hooks import notify, run_hooks
from supervisor.app_plan import AppPlan
from supervisor.core.errors import (
    AppGaveUpError,
    MigrationError,
    SupervisorError,
    UnreachableError,
)
from supervisor.core.events import (
    BootFinished,
    LeftoverStopped,
    PhaseFinished,
    PhaseStarted,
    Publish,
    Warned,
)
from supervisor.core.groups import plain_errors
from supervisor.migrate import migrate
from supervisor.parts import Parts
from supervisor.process.leftovers import end_leftovers, find_leftovers
from supervisor.services.backend import run_to_end
from supervisor.services.orchestrator import ServiceResult
from supervisor.state import State

if TYPE_CHECKING:
    from supervisor.engine_stack import EngineStack

Retreat = Callable[[str], Awaitable[AppPlan | None]]
_LEFTOVER_SECONDS = 10.0
_LEADER_SECONDS = 60.0  # of a Postgres, or of a dockerd with its containers
_ROUTE_SECONDS = 15.0


async def end_earlier_processes(state: State, publish: Publish) -> None:
    """End what an earlier supervisor of this install, killed, left running: it is ours, and in the way."""
    leftovers = find_leftovers(state.spawned.earlier(), state.install.uuid)
    for leftover in leftovers:
        if leftover.leader:
            continue
        number = f"signal {int(leftover.stop_signal)}"
        publish(LeftoverStopped(process=leftover.name, pid=leftover.process.pid, signal=number))
    stuck = await end_leftovers(leftovers, grace_seconds=_LEFTOVER_SECONDS, leader_seconds=_LEADER_SECONDS)
    if stuck:
        pids = ", ".join(f"{left.name} (pid {left.process.pid})" for left in stuck)
        raise SupervisorError(f"cannot end processes of an earlier run: {pids}; end them and start again")
    state.spawned.clear()


class Boot:
    """Brings everything up once. `after` and `watch_routes` run beside the controller from then on.

    `on_trial` says whether what is started is a release on trial. `retreat` gives up such a one, and gives the plan of
    the good one; None where there is no other.
    """

    def __init__(self, parts: Parts, publish: Publish, *, on_trial: Callable[[], bool], retreat: Retreat) -> None:
        self._parts = parts
        self._on_trial = on_trial
        self._retreat = retreat
        self._publish = publish
        self._started = time.monotonic()

    async def run(self) -> None:
        """From nothing to a proved stack. Raises our errors; cancelling leaves running services to the orderly stop."""
        if self._parts.stack is not None:
            with plain_errors():
                await self._bring_engine_up(self._parts.stack)
        self._parts.orchestrator.launch()
        with plain_errors():
            await self._bring_up()
        async with self._phase("route"):
            await self.prove_routes(_ROUTE_SECONDS)
        elapsed = round(time.monotonic() - self._started, 3)
        self._publish(BootFinished(elapsed_seconds=elapsed, addresses=self._parts.addresses()))

    async def _bring_engine_up(self, stack: EngineStack) -> None:
        """Our own dockerd where there is one, then Swarm and network: what is wrong there is no service's fault."""
        async with self._phase("engine"):
            self._parts.orchestrator.launch(stack.required)
            try:
                await self._parts.orchestrator.wait_ready(stack.required)
            except UnreachableError as error:
                raise stack.failure or error from error
            if self._parts.placement.services:  # for nothing of ours no Swarm is begun
                await stack.ground()

    async def _bring_up(self) -> None:
        async with anyio.create_task_group() as group:
            # The proxy is proved beside the rest; only the route at the end needs it.
            beside = [name for name in self._parts.orchestrator.names if name == "traefik"]
            group.start_soon(self._wait_services, "proxy", beside)
            done = self._parts.stack.required if self._parts.stack is not None else ()
            names = [name for name in self._parts.orchestrator.names if name not in beside and name not in done]
            await self._wait_services("services", names)
            await self._first_start()

    @asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        self._publish(PhaseStarted(phase=name))
        started = time.monotonic()
        yield
        self._publish(PhaseFinished(phase=name, elapsed_seconds=round(time.monotonic() - started, 3)))

    async def _wait_services(self, phase: str, names: list[str]) -> None:
        if not names:
            return
        async with self._phase(phase):
            for result in await self._parts.orchestrator.wait_ready(names):
                self._warn_degraded(result)

    def _warn_degraded(self, result: ServiceResult) -> None:
        if not result.success:
            text = f"starting without service {result.service!r}, which is optional"
            self._publish(Warned(message=text, detail=result.error))

    async def _first_start(self) -> None:
        """Migrations and the app; where the app may be held, its failure, or theirs, ends the boot in that."""
        try:
            try:
                await self._migrate_and_start()
            except SupervisorError as error:
                plan = await self._retreat(str(error))
                if plan is None:
                    raise
                for app in self._parts.apps.values():
                    await app.stop(reason="its release did not start")
                    app.spec = plan.spec
                self._parts.plan = plan
                await self._migrate_and_start()
        except MigrationError as error:
            if not self._parts.hold:
                raise
            for app in self._parts.apps.values():
                await app.hold(str(error))

    async def _migrate_and_start(self) -> None:
        async with self._phase("migrations"):
            await migrate(self._parts.plan.migrations, self._publish)
        async with self._phase("app"):
            for app in self._parts.apps.values():
                await self._start_for_good(app)

    async def _start_for_good(self, app: App) -> None:
        """Start the app; after a failed first start the restart policy goes on, to serving or to giving up."""
        try:
            await app.start()
        except AppGaveUpError as error:
            if self._on_trial():
                raise
            self._publish(Warned(message="the app's first start failed", detail=str(error)))
            await app.wait_verdict()

    async def prove_routes(self, within_seconds: float) -> None:
        """Ask for each app through the proxy until it answers; what does not is only told."""
        for name, route in self._parts.routes.items():
            app = self._parts.apps[name]
            if not app.is_serving or not self._parts.orchestrator.runner("traefik").is_ready:
                continue
            verdict = await route.prove(app.health_path, within_seconds=within_seconds)
            if not verdict.good:
                self._publish(Warned(message=f"the app {name!r} is not reached through Traefik", detail=verdict.detail))

    async def watch_routes(self) -> None:
        """Ask through the proxy now and then."""
        interval = self._parts.settings.watch_interval_seconds
        async with anyio.create_task_group() as group:
            for name, route in self._parts.routes.items():
                app = self._parts.apps[name]
                group.start_soon(partial(route.watch, interval_seconds=interval, while_serving=app.serves))

    async def after(self) -> None:
        """Once every app serves: post-start hooks in parallel, then the notification; nothing of it fails the boot."""
        settings = self._parts.settings
        for app in self._parts.apps.values():
            await app.served.wait()
        if self._parts.stack is not None:
            await self._parts.stack.tenure.tidy()
        results = await run_hooks(
            settings.post_start_hooks,
            run_command=self._run_hook,
            limit_seconds=settings.hook_seconds,
            publish=self._publish,
        )
        if settings.webhook_url is not None:
            message: dict[str, object] = {
                "event": "boot.finished",
                "stack": settings.stack,
                "elapsed_seconds": round(time.monotonic() - self._started, 3),
                "addresses": self._parts.addresses(),
            }
            await notify(
                settings.webhook_url, message, results, limit_seconds=settings.hook_seconds, publish=self._publish
            )

    async def _run_hook(self, name: str, command: str, limit_seconds: float) -> tuple[int, str]:
        made = self._parts.plan.environment.one_shot(name, command)
        return await run_to_end(self._parts.reaper, made, self._parts.rings.ring(name), limit_seconds=limit_seconds)
