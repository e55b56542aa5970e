"""A Swarm service on the engine: made as wished, changed only where it differs, looked at by its tasks."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.engine.client import Engine
from supervisor.engine.errors import Conflict, NotFound, OutOfSequence
from supervisor.engine.events import EngineEvent
from supervisor.services.engine_backend import Seen
from supervisor.services.swarm.reconcile import Create, Foreign, Keep, Plan, Update, plan_service
from supervisor.services.swarm.spec import ServiceBody
from supervisor.services.swarm.tasks import TaskState, view_tasks

_TRIES = 6
_JITTER_SECONDS = 0.2
_REFUSALS = 3  # one may be chance; what a node refuses again and again it will go on refusing
_SERVICE_NAME = "com.docker.swarm.service.name"

Wish = Callable[[], Awaitable[ServiceBody]]
"""Makes the body anew before each start: images resolved, secrets and network there."""


class SwarmDriver:
    """See `Driver`. `report` is told every plan that changes something, and what others changed.

    `engine_started` is when the engine was last restarted: tasks rejected right after it are no failures.
    """

    def __init__(
        self,
        name: str,
        wish: Wish,
        engine: Engine,
        *,
        report: Callable[[str, Plan], None],
        adopt: Callable[[dict[str, Any]], bool] = lambda stored: False,
        engine_started: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self.name = name
        self._engine_started = engine_started
        self._wish = wish
        self._engine = engine
        self._report = report
        self._adopt = adopt
        self._container = ""

    async def ensure(self) -> bool:
        """Create or update; whether its task is replaced.

        Somebody else may do the same just now: then it is read and compared again.
        """
        wanted = await self._wish()
        for _ in range(_TRIES):
            try:
                return await self._apply(wanted)
            except (OutOfSequence, Conflict):
                await anyio.sleep(random.uniform(0, _JITTER_SECONDS))  # noqa: S311  (spreads tries, guards nothing)
        raise UnreachableError(
            f"cannot update service {self.name!r}: somebody else changed it {_TRIES} times meanwhile; "
            f"is there a second supervisor of this stack?"
        )

    async def _apply(self, wanted: ServiceBody) -> bool:
        stored = await self._stored()
        plan = plan_service(wanted, stored, adopt=stored is not None and self._adopt(stored))
        self._report(self.name, plan)
        match plan:
            case Create(body=body):
                await self._engine.services.create(body)
            case Update(body=body, version=version, restarts=restarts):
                await self._engine.services.update(self.name, version, body)
                return restarts
            case Foreign(owner=owner, image=image, created=created):
                raise ConfigurationError(
                    f"cannot use service {self.name!r}: it belongs to {owner} (image {image}, made {created}); "
                    f"choose another SUPERVISOR_STACK, remove that service, or take it over with SUPERVISOR_ADOPT=1"
                )
            case Keep():
                pass
        return False

    async def _stored(self) -> dict[str, Any] | None:
        try:
            return await self._engine.services.inspect(self.name)
        except NotFound:
            return None

    async def look(self) -> Seen:
        """Its tasks, and the container of one that was told to end: its task may be gone before it is."""
        try:
            tasks = await self._engine.tasks.of_service(self.name)
        except NotFound:
            tasks = []
        view = view_tasks(tasks, engine_started=self._engine_started())
        if view.state is TaskState.UP:
            self._container = view.container
        elif await self._still_runs(self._container):
            return Seen(container=self._container, running=True, text="stopping")
        return Seen(
            container=view.container or view.ended_container,
            running=view.state is TaskState.UP,
            exit_code=view.exit_code,
            text=view.error or view.text,
            blocked=view.blocked or (view.error if view.refused >= _REFUSALS else ""),
        )

    async def _still_runs(self, container: str) -> bool:
        if not container:
            return False
        try:
            return bool((await self._engine.containers.inspect(container))["State"].get("Running"))
        except NotFound:
            return False

    async def halt(self, grace_seconds: float) -> None:
        """No task: a task that is merely stopped would be replaced. The grace is the service's own."""
        for _ in range(_TRIES):
            stored = await self._stored()
            if stored is None:
                return
            body = {**stored["Spec"], "Mode": {"Replicated": {"Replicas": 0}}}
            try:
                await self._engine.services.update(self.name, int(stored["Version"]["Index"]), body)
            except OutOfSequence:
                await anyio.sleep(random.uniform(0, _JITTER_SECONDS))  # noqa: S311
            else:
                return

    def concerns(self, event: EngineEvent) -> bool:
        """Containers of its tasks, and the service itself."""
        attributes = event.attributes
        return self.name in (attributes.get(_SERVICE_NAME), attributes.get("name") if event.kind == "service" else None)
