"""A container of ours on the engine: created, started after every start of the engine, made anew on a difference."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.engine.client import Engine
from supervisor.engine.errors import EngineRefused, NotFound
from supervisor.engine.events import EngineEvent
from supervisor.services.container.plan import (
    ContainerWish,
    Create,
    Foreign,
    Keep,
    Plan,
    Recreate,
    Start,
    container_body,
    plan_container,
)
from supervisor.services.engine_backend import Seen
from supervisor.services.swarm.tasks import moment

_PORT_TAKEN = ("port is already allocated", "address already in use")
# An engine that crashed may still hold the endpoint of a container that is gone.
_BROKEN_ENDPOINT = ("endpoint with name", "already exists in network", "not found", "is not connected")


@dataclass(frozen=True)
class Wanted:
    """The wish, and the id of the network in it."""

    wish: ContainerWish
    network_id: str


Wish = Callable[[], Awaitable[Wanted]]
Fill = Callable[[str], Awaitable[None]]
"""Writes files into the container of this id; called before every start, so it must be cheap the second time."""


class ContainerDriver:
    """See `Driver`. `report` is told every plan that changes something."""

    def __init__(
        self, name: str, wish: Wish, engine: Engine, *, fill: Fill, report: Callable[[str, Plan], None]
    ) -> None:
        self.name = name
        self._wish = wish
        self._engine = engine
        self._fill = fill
        self._report = report

    async def ensure(self) -> bool:
        """The right container, with its files, running; another one is gone by then.

        Raises ConfigurationError for a taken port or name.
        """
        wanted = await self._wish()
        plan = plan_container(wanted.wish, await self._found(), network_id=wanted.network_id)
        self._report(self.name, plan)
        match plan:
            case Keep(id=container):
                await self._fill(container)
            case Start(id=container, networks=networks):
                await self._start_or_recreate(container, wanted, networks)
            case Create():
                await self._create(wanted, ())
            case Recreate(id=container, networks=networks):
                await self._engine.containers.remove(container, force=True)
                await self._create(wanted, networks)
            case Foreign(image=image, created=created):
                raise ConfigurationError(
                    f"cannot use container {self.name!r}: it belongs to somebody else (image {image}, made {created}); "
                    f"choose another SUPERVISOR_STACK, or remove that container"
                )
        return False

    async def _found(self) -> dict[str, Any] | None:
        try:
            return await self._engine.containers.inspect(self.name)
        except NotFound:
            return None

    async def _create(self, wanted: Wanted, networks: tuple[str, ...]) -> None:
        container = await self._engine.containers.create(container_body(wanted.wish), self.name)
        for network in networks:
            await self._engine.networks.connect(network, container)
        await self._start(container, wanted.wish)

    async def _start_or_recreate(self, container: str, wanted: Wanted, networks: tuple[str, ...]) -> None:
        """After a crash of the engine a start may fail on what the engine remembers of its network."""
        try:
            await self._start(container, wanted.wish)
        except EngineRefused as error:
            if not any(text in error.message for text in _BROKEN_ENDPOINT):
                raise
            await self._let_go(wanted.wish.network)
            await self._engine.containers.remove(container, force=True)
            await self._create(wanted, networks)

    async def _let_go(self, network: str) -> None:
        with contextlib.suppress(EngineRefused):  # there may be nothing to let go
            await self._engine.networks.disconnect(network, self.name, force=True)

    async def _start(self, container: str, wish: ContainerWish) -> None:
        await self._fill(container)
        try:
            await self._engine.containers.start(container)
        except EngineRefused as error:
            if any(text in error.message for text in _PORT_TAKEN):
                ports = ", ".join(str(port.host) for port in wish.ports)
                raise ConfigurationError(
                    f"cannot start {self.name!r}: one of its ports {ports} is taken ({error.message}); stop what holds "
                    f"it, or set SUPERVISOR_HTTP_PORT and SUPERVISOR_HTTPS_PORT to free ones"
                ) from error
            raise

    async def look(self) -> Seen:
        """Its state; nothing while there is no such container."""
        found = await self._found()
        if found is None:
            return Seen()
        state = found["State"]
        running = bool(state.get("Running")) and not state.get("Restarting")
        code = None if running else state.get("ExitCode")
        return Seen(
            container=str(found["Id"]),
            since=_unix(state.get("StartedAt")),
            output_since=_unix(state.get("FinishedAt")) if running else max(0.0, _unix(state.get("StartedAt")) - 1.0),
            running=running,
            exit_code=code,
            text=str(state.get("Error") or state.get("Status", "")),
        )

    async def halt(self, grace_seconds: float) -> None:
        """Stop it; the engine does not start a stopped one again."""
        try:
            await self._engine.containers.stop(self.name, grace_seconds=round(grace_seconds))
        except NotFound:
            return

    def concerns(self, event: EngineEvent) -> bool:
        """Its own events."""
        return event.kind == "container" and event.attributes.get("name") == self.name


def _unix(text: object) -> float:
    """A time of the API; 0 for its zero time, which stands for never."""
    return max(0.0, moment(str(text or "")).timestamp())
