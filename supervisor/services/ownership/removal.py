"""Taking a stack off an engine: what of it is ours, in which order it goes, and the calls that do it.

Only what bears the stack's label is looked at, and of that only what is this install's goes.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any

import anyio

from supervisor.core.errors import UnreachableError
from supervisor.engine.client import Engine
from supervisor.engine.errors import EngineRefused, NotFound
from supervisor.engine.labels import INSTALL, STACK
from supervisor.engine.swarm_plan import SwarmFacts
from supervisor.services.ownership.lease import LIVE_SECONDS, Claim, Holder, lease_name, read_claim, see_container

LET_GO_SECONDS = 30.0
"""How long a network or volume may be in use by what has just ended."""
_STOP_SECONDS = 10
_SPARE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_SERVICE_ID = "com.docker.swarm.service.id"
_NANOSECONDS = 1_000_000_000


class Kind(StrEnum):
    """Kinds of objects, in the order in which they go: each is used by those before it."""

    SERVICE = "service"
    CONTAINER = "container"
    SECRET = "secret"  # noqa: S105  (a kind)
    CONFIG = "config"
    NETWORK = "network"
    VOLUME = "volume"


_ORDER = tuple(Kind)


@dataclass(frozen=True)
class Thing:
    """One object of the stack. `install` is whose it is; `grace_seconds` what a service's tasks have to stop."""

    kind: Kind
    id: str
    name: str
    install: str
    grace_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class RemovalPlan:
    """What goes, in order; the volumes that stay as nobody asked for them; and what other installs own."""

    remove: tuple[Thing, ...]
    keep: tuple[Thing, ...] = ()
    others: tuple[Thing, ...] = ()


def plan_removal(found: Iterable[Thing], install: str, *, volumes: bool) -> RemovalPlan:
    """Sort what there is. Without an `install` (a state folder that is not here) the whole stack counts as ours."""
    ordered = sorted(found, key=lambda thing: (_ORDER.index(thing.kind), thing.name))
    ours = [thing for thing in ordered if not install or thing.install == install]
    return RemovalPlan(
        remove=tuple(thing for thing in ours if volumes or thing.kind is not Kind.VOLUME),
        keep=tuple(thing for thing in ours if thing.kind is Kind.VOLUME and not volumes),
        others=tuple(thing for thing in ordered if thing not in ours),
    )


async def things_of(engine: Engine, stack: str) -> list[Thing]:
    """Every object that bears the stack's label. Raises the engine's errors, NotAManager where it cannot be seen."""
    wanted = {"label": [f"{STACK}={stack}"]}
    cluster = await _things_of_cluster(engine, wanted)
    known = frozenset(thing.id for thing in cluster if thing.kind is Kind.SERVICE)
    return [
        *cluster,
        *(_container(each) for each in await engine.containers.find(wanted) if _task_of(each) not in known),
        *(_plain(Kind.NETWORK, each, str(each["Id"])) for each in await engine.networks.find(wanted)),
        *(_plain(Kind.VOLUME, each, str(each["Name"])) for each in await engine.volumes.find(wanted)),
    ]


async def _things_of_cluster(engine: Engine, wanted: Mapping[str, Sequence[str]]) -> list[Thing]:
    # Without a Swarm there are none, and asking is an error.
    if SwarmFacts.parse(await engine.info()).state == "inactive":
        return []
    return [
        *(_service(each) for each in await engine.services.find(wanted)),
        *(_payload(Kind.SECRET, each) for each in await engine.secrets.find(wanted)),
        *(_payload(Kind.CONFIG, each) for each in await engine.configs.find(wanted)),
    ]


def _task_of(container: Mapping[str, Any]) -> str:
    """The service that made a container: it goes with it."""
    return str((container.get("Labels") or {}).get(_SERVICE_ID, ""))


def _service(found: Mapping[str, Any]) -> Thing:
    container = found["Spec"]["TaskTemplate"].get("ContainerSpec") or {}
    grace_seconds = (container.get("StopGracePeriod") or 0) / _NANOSECONDS
    return Thing(Kind.SERVICE, str(found["ID"]), str(found["Spec"]["Name"]), _install(found["Spec"]), grace_seconds)


def _payload(kind: Kind, found: Mapping[str, Any]) -> Thing:
    return Thing(kind, str(found["ID"]), str(found["Spec"]["Name"]), _install(found["Spec"]))


def _container(found: Mapping[str, Any]) -> Thing:
    name = next(iter(found.get("Names") or ()), "").lstrip("/")
    return Thing(Kind.CONTAINER, str(found["Id"]), name or str(found["Id"])[:12], _install(found))


def _plain(kind: Kind, found: Mapping[str, Any], identity: str) -> Thing:
    return Thing(kind, identity, str(found["Name"]), _install(found))


def _install(labelled: Mapping[str, Any]) -> str:
    return str((labelled.get("Labels") or {}).get(INSTALL, ""))


async def live_lease(engine: Engine, stack: str, *, us: str = "") -> str:
    """Who runs this stack now by its lease, in words; "" where nobody does. `us` is our own container's id."""
    facts = SwarmFacts.parse(await engine.info())
    if facts.state == "inactive":
        return ""
    try:
        claim = read_claim((await engine.configs.inspect(lease_name(stack)))["Spec"].get("Labels"))
    except NotFound:
        return ""
    if claim is None or (us and claim.holder.container == us):
        return ""
    if not claim.holder.container:
        return _signed(claim, datetime.now(UTC))
    return await _running(engine, claim.holder, facts.node_id)


def _signed(claim: Claim, now: datetime) -> str:
    """A plain process, or one in a container of its own engine, cannot be looked at: its signature counts."""
    age_seconds = (now - claim.signed).total_seconds()
    if abs(age_seconds) >= LIVE_SECONDS:
        return ""
    return f"a supervisor on {claim.holder.hostname!r}, which signed its lease {max(0.0, age_seconds):.0f} s ago,"


async def _running(engine: Engine, holder: Holder, node: str) -> str:
    if holder.node and holder.node != node:
        return f"container {holder.container[:12]!r} on Swarm node {holder.node!r}"
    try:
        sight = see_container(await engine.containers.inspect(holder.container))
    except NotFound:
        return ""
    return sight.text if sight.runs else ""


def app_alias(stack: str) -> str:
    """The name of a supervisor's own container on the stack's network."""
    return f"{stack}-app"


class Removal:
    """Carries a plan out; `tell` gets a line for each thing that is gone.

    Cancelled or failed, it leaves what was not removed yet; run again, it goes on there.
    """

    def __init__(self, engine: Engine, stack: str, *, tell: Callable[[str], None]) -> None:
        self._engine = engine
        self._stack = stack
        self._tell = tell
        self._removers: Mapping[Kind, Callable[[Thing], Awaitable[None]]] = {
            Kind.SERVICE: lambda thing: engine.services.remove(thing.id),
            Kind.CONTAINER: self._remove_container,
            Kind.SECRET: lambda thing: engine.secrets.remove(thing.id),
            Kind.CONFIG: lambda thing: engine.configs.remove(thing.id),
            Kind.NETWORK: self._remove_network,
            Kind.VOLUME: partial(self._remove_unused, remove=engine.volumes.remove),
        }

    async def run(self, plan: RemovalPlan) -> None:
        """Remove it all, and wait for it: seconds, a minute where Postgres needs its whole grace.

        Raises UnreachableError for what is still in use by others, naming them.
        """
        services = [thing for thing in plan.remove if thing.kind is Kind.SERVICE]
        rest = [thing for thing in plan.remove if thing.kind is not Kind.SERVICE]
        for thing in services:
            await self._remove(thing)
        for thing in services:
            await self._await_tasks(thing)
        for thing in rest:
            await self._remove(thing)

    async def _remove(self, thing: Thing) -> None:
        try:
            await self._removers[thing.kind](thing)
        except NotFound:
            return  # somebody else was quicker
        self._tell(f"removed {thing}")

    async def _await_tasks(self, service: Thing) -> None:
        """Until its containers are gone: a service is gone at once, what it ran stops within its grace."""
        limit_seconds = math.ceil(service.grace_seconds) + _SPARE_SECONDS
        wanted = {"label": [f"{_SERVICE_ID}={service.id}"]}
        with anyio.move_on_after(limit_seconds):
            while True:
                if not await self._engine.containers.find(wanted):
                    return
                await anyio.sleep(_POLL_SECONDS)
        raise UnreachableError(
            f"cannot remove {service}: its containers have not ended within {limit_seconds:g} s; look at that engine's "
            f"log, and run this again"
        )

    async def _remove_container(self, thing: Thing) -> None:
        await self._engine.containers.stop(thing.id, grace_seconds=_STOP_SECONDS)
        await self._engine.containers.remove(thing.id, force=True)

    async def _remove_network(self, thing: Thing) -> None:
        for container, name in await self._supervisors_on(thing):
            await self._engine.networks.disconnect(thing.id, container, force=True)
            self._tell(f"disconnected container {name} from {thing}")
        await self._remove_unused(thing, remove=self._engine.networks.remove)
        with anyio.move_on_after(LET_GO_SECONDS), suppress(NotFound):
            while True:  # the cluster has let go of it at once, its node a moment later
                await self._engine.networks.inspect(thing.id)
                await anyio.sleep(_POLL_SECONDS)

    async def _supervisors_on(self, network: Thing) -> list[tuple[str, str]]:
        """Stopped containers that ran a supervisor there: an engine does not start one whose network is gone."""
        found: list[tuple[str, str]] = []
        for each in await self._engine.containers.find({"network": [network.id], "status": ["exited", "created"]}):
            container = await self._engine.containers.inspect(str(each["Id"]))
            endpoint = (container["NetworkSettings"].get("Networks") or {}).get(network.name) or {}
            if app_alias(self._stack) in (endpoint.get("Aliases") or ()):
                found.append((str(container["Id"]), str(container["Name"]).lstrip("/")))
        return found

    async def _remove_unused(self, thing: Thing, *, remove: Callable[[str], Awaitable[None]]) -> None:
        """Remove it once what used it has let go, which takes an engine a moment."""
        refused: EngineRefused | None = None
        with anyio.move_on_after(LET_GO_SECONDS):
            while True:
                try:
                    return await remove(thing.id)
                except NotFound:
                    raise
                except EngineRefused as error:
                    refused = error
                await anyio.sleep(_POLL_SECONDS)
        users = await self._users(thing)
        raise UnreachableError(
            f"cannot remove {thing}: it is in use by {', '.join(users) or 'others'} "
            f"({refused.message if refused else 'no answer'}); stop and remove them, and run this again"
        )

    async def _users(self, thing: Thing) -> list[str]:
        listed = await self._engine.containers.find({thing.kind.value: [thing.id]})
        return [f"container {next(iter(each.get('Names') or ()), each['Id'][:12]).lstrip('/')}" for each in listed]
