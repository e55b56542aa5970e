"""The phases of the boot, and of a reload, which repeats the last of them."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from supervisor.app.hooks import notify, run_hooks
from supervisor.apps_start import AppsStart, phase
from supervisor.core.errors import (
    SupervisorError,
    UnreachableError,
)
from supervisor.core.events import (
    BootFinished,
    LeftoverStopped,
    Publish,
    Warned,
)
from supervisor.core.groups import plain_errors
from supervisor.parts import Parts
from supervisor.process.leftovers import end_leftovers, find_leftovers
from supervisor.services.backend import run_to_end
from supervisor.services.orchestrator import ServiceResult
from supervisor.state import State

if TYPE_CHECKING:
    from supervisor.stack.engine import EngineStack

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
    """Brings everything up once, the `apps` last. `after` and `watch_routes` run beside the controller from then on."""

    def __init__(self, parts: Parts, apps: AppsStart, publish: Publish) -> None:
        self._parts = parts
        self._apps = apps
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
        async with phase(self._publish, "route"):
            await self.prove_routes(_ROUTE_SECONDS)
        elapsed = round(time.monotonic() - self._started, 3)
        self._publish(BootFinished(elapsed_seconds=elapsed, addresses=self._parts.addresses()))

    async def _bring_engine_up(self, stack: EngineStack) -> None:
        """Our own dockerd where there is one, then Swarm and network: what is wrong there is no service's fault."""
        async with phase(self._publish, "engine"):
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
            await self._parts.settle_passwords()
            if self._parts.places.exist:
                async with phase(self._publish, "places"):
                    await self._parts.settle_places()
            await self._apps.run()

    async def _wait_services(self, word: str, names: list[str]) -> None:
        if not names:
            return
        async with phase(self._publish, word):
            for result in await self._parts.orchestrator.wait_ready(names):
                self._warn_degraded(result)

    def _warn_degraded(self, result: ServiceResult) -> None:
        if not result.success:
            text = f"starting without service {result.service!r}, which is optional"
            self._publish(Warned(message=text, detail=result.error))

    async def prove_routes(self, within_seconds: float) -> None:
        """Ask for each app through the proxy until it answers; what does not is only told."""
        for name, part in self._parts.apps.items():
            if part.route is None or not part.app.is_serving:
                continue
            if not self._parts.orchestrator.runner("traefik").is_ready:
                continue
            verdict = await part.route.prove(part.app.health_path, within_seconds=within_seconds)
            if not verdict.good:
                self._publish(Warned(message=f"the app {name!r} is not reached through Traefik", detail=verdict.detail))

    async def watch_routes(self) -> None:
        """Ask through the proxy now and then."""
        interval = self._parts.settings.watch_interval_seconds
        async with anyio.create_task_group() as group:
            for part in self._parts.apps.values():
                if part.route is not None:
                    watch = part.route.watch
                    group.start_soon(partial(watch, interval_seconds=interval, while_serving=part.app.serves))

    async def after(self) -> None:
        """Once every app serves: post-start hooks in parallel, then the notification; nothing of it fails the boot."""
        settings = self._parts.settings
        for part in self._parts.apps.values():
            await part.app.served.wait()
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
        made = self._parts.first.plan.environment.one_shot(name, command)
        return await run_to_end(self._parts.reaper, made, self._parts.rings.ring(name), limit_seconds=limit_seconds)
