"""The overlay network that the stack shares: made or verified, never deleted; and our own container on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.engine import resources
from supervisor.engine.errors import Conflict, EngineRefused, NotFound
from supervisor.engine.labels import INSTALL, Ownership, ownership

ALLOCATION_SECONDS = 15.0
GATEWAY = "docker_gwbridge"
_POLL_SECONDS = 0.05
_MTU = "com.docker.network.driver.mtu"
_TASK_ID = "com.docker.swarm.task.id"


@dataclass(frozen=True)
class NetworkSpec:
    """The overlay that is wanted. `mtu` counts VXLAN's 50 bytes in: containers see 50 less."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    mtu: int | None = None

    def request(self) -> dict[str, Any]:
        """The API's request."""
        options = {_MTU: str(self.mtu)} if self.mtu is not None else {}
        return {
            "Name": self.name,
            "Driver": "overlay",
            "Attachable": True,
            "Labels": dict(self.labels),
            "Options": options,
        }


@dataclass(frozen=True)
class OverlayNetwork:
    """A network that serves. Specs store its id, so a network made anew leaves services behind: compare ids.

    `notes` are for people: what differs and does no harm.
    """

    id: str
    name: str
    owner: Ownership
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Differs:
    """A network of this name that cannot serve, and why."""

    id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Allocating:
    """Swarm has taken it down and has not yet given it driver and addresses: some milliseconds after its making."""


Judgement = OverlayNetwork | Differs | Allocating


def judge_network(found: Mapping[str, Any], wanted: NetworkSpec) -> Judgement:
    """Whether a network of the wanted name can serve. Whose it is does not decide that."""
    if not found.get("Driver") and found.get("Scope") == "swarm":
        return Allocating()
    traits = {
        "driver": (str(found.get("Driver")), "overlay"),
        "scope": (str(found.get("Scope")), "swarm"),
        "attachable": (bool(found.get("Attachable")), True),
    }
    reasons = tuple(f"its {trait} is {has}, not {needs}" for trait, (has, needs) in traits.items() if has != needs)
    if reasons:
        return Differs(str(found["Id"]), reasons)
    owner = ownership(found.get("Labels"), wanted.labels.get(INSTALL, ""))
    return OverlayNetwork(str(found["Id"]), wanted.name, owner, _mtu_note(found, wanted))


def _mtu_note(found: Mapping[str, Any], wanted: NetworkSpec) -> tuple[str, ...]:
    """A wrong packet size cannot be changed in place: services would have to be moved to another network."""
    has = (found.get("Options") or {}).get(_MTU)
    if wanted.mtu is None or has == str(wanted.mtu):
        return ()
    return (
        f"network {wanted.name!r} was made for an MTU of {has or 'the default, 1500'}, and the way out now takes "
        f"{wanted.mtu}: large answers may hang; remove its services and the network, and let both be made anew",
    )


class NetworkEngine(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def networks(self) -> resources.Networks: ...

    @property
    def containers(self) -> resources.Containers: ...

    @property
    def services(self) -> resources.Services: ...


async def ensure_network(engine: NetworkEngine, wanted: NetworkSpec) -> OverlayNetwork:
    """The wanted overlay, made if there is none; needs an active Swarm.

    Raises ConfigurationError for one of the same name that cannot serve, naming its users; it is left as it is.
    """
    with anyio.move_on_after(ALLOCATION_SECONDS):
        while True:
            match await _look(engine, wanted):
                case OverlayNetwork() as network:
                    return network
                case Differs() as differs:
                    raise ConfigurationError(_differs(wanted, differs, await _users(engine, differs.id)))
                case Allocating():
                    await anyio.sleep(_POLL_SECONDS)
                case None:
                    await _create(engine, wanted)
    raise UnreachableError(
        f"cannot create network {wanted.name!r}: the engine took it and has not made it usable within "
        f"{ALLOCATION_SECONDS:g} s; look at that engine's log, or choose another name with SUPERVISOR_STACK"
    )


async def ensure_gateway(engine: NetworkEngine, mtu: int) -> None:
    """The bridge by which every task of the Swarm reaches the outside, with this MTU; made before the Swarm is begun.

    Swarm makes it by itself, with 1500, and nothing configures that. One that is there stays as it is.
    """
    if any(each.get("Name") == GATEWAY for each in await engine.networks.find({"name": [GATEWAY]})):
        return
    bridge = "com.docker.network.bridge."
    options = {
        f"{bridge}name": GATEWAY,
        f"{bridge}enable_icc": "false",  # as Swarm makes it: tasks reach each other by overlays only
        f"{bridge}enable_ip_masquerade": "true",
        _MTU: str(mtu),
    }
    with suppress(Conflict):
        await engine.networks.create({"Name": GATEWAY, "Driver": "bridge", "Options": options})


async def _create(engine: NetworkEngine, wanted: NetworkSpec) -> None:
    try:
        await engine.networks.create(wanted.request())
    except Conflict:
        await anyio.sleep(_POLL_SECONDS)  # another made it since we looked: judged like any other


async def _look(engine: NetworkEngine, wanted: NetworkSpec) -> Judgement | None:
    """The best of the networks of exactly this name: engines allow a local one beside the cluster's."""
    listed = await engine.networks.find({"name": [wanted.name]})
    judged = [judge_network(each, wanted) for each in listed if each.get("Name") == wanted.name]
    serving = [each for each in judged if isinstance(each, OverlayNetwork)]
    return next(iter([*serving, *judged]), None)


async def _users(engine: NetworkEngine, network_id: str) -> list[str]:
    """Who would be cut off without it; best effort, for a message."""
    try:
        inspected = await engine.networks.inspect(network_id)
        containers = [f"container {each.get('Name')}" for each in (inspected.get("Containers") or {}).values()]
    except NotFound:
        containers = []
    try:
        return [*containers, *services_on(network_id, await engine.services.find())]
    except EngineRefused:
        return containers


def services_on(network_id: str, services: Iterable[Mapping[str, Any]]) -> list[str]:
    """Services whose spec names the network, which it does by id."""
    found: list[str] = []
    for service in services:
        spec = service["Spec"]
        attached = [*(spec["TaskTemplate"].get("Networks") or ()), *(spec.get("Networks") or ())]
        if any(network.get("Target") == network_id for network in attached):
            found.append(f"service {spec['Name']}")
    return found


def _differs(wanted: NetworkSpec, differs: Differs, users: list[str]) -> str:
    used = f"in use by {', '.join(users)}" if users else "used by nothing now"
    return (
        f"cannot use network {wanted.name!r} ({differs.id[:12]}): {'; '.join(differs.reasons)}; it is {used}, and is "
        f"not touched here; remove it (`docker network rm {wanted.name}`) once nothing needs it, or choose another "
        "stack name with SUPERVISOR_STACK"
    )


@dataclass(frozen=True)
class Attached:
    """It is on the network, with the alias."""


@dataclass(frozen=True)
class Attach:
    """It must be connected; `reconnect` where it is on the network without the alias."""

    reconnect: bool = False


@dataclass(frozen=True)
class CannotAttach:
    """The engine would refuse it, or it is not for us to do."""

    why: str


def plan_attachment(
    container: Mapping[str, Any], network: OverlayNetwork, alias: str
) -> Attached | Attach | CannotAttach:
    """How a container gets onto the network, from its inspection alone: the answer to a second connect differs."""
    mode = str((container.get("HostConfig") or {}).get("NetworkMode") or "")
    if mode in ("host", "none") or mode.startswith("container:"):
        return CannotAttach(
            f"its network mode is {mode!r}; start it on a bridge network, or reach the services by ports "
            "that you publish"
        )
    here = _endpoint(container, network)
    if here is not None and alias in (here.get("Aliases") or ()):
        return Attached()
    if _TASK_ID in ((container.get("Config") or {}).get("Labels") or {}):
        return CannotAttach(
            f"it is a Swarm task; give its service the network and the alias: "
            f"`docker service update --network-add name={network.name},alias={alias} SERVICE`"
        )
    return Attach(reconnect=here is not None)


def _endpoint(container: Mapping[str, Any], network: OverlayNetwork) -> Mapping[str, Any] | None:
    """By id where the container has run on it; by name where it was only created."""
    endpoints: Mapping[str, Any] = (container.get("NetworkSettings") or {}).get("Networks") or {}
    for name, endpoint in endpoints.items():
        if endpoint.get("NetworkID") == network.id or (not endpoint.get("NetworkID") and name == network.name):
            return dict(endpoint)
    return None


async def attach_container(engine: NetworkEngine, container: str, network: OverlayNetwork, alias: str) -> bool:
    """Put a container (our own) on the network under `alias`; whether anything had to be done.

    Its default route stays where it was. Raises ConfigurationError where that cannot be.
    """
    inspected = await engine.containers.inspect(container)
    match plan_attachment(inspected, network, alias):
        case Attached():
            return False
        case CannotAttach(why=why):
            raise ConfigurationError(f"cannot connect container {container[:12]!r} to network {network.name!r}: {why}")
        case Attach(reconnect=reconnect):
            if reconnect:
                await engine.networks.disconnect(network.id, container)
            await _connect(engine, container, network, alias, kept_endpoint(inspected, network))
    return True


def kept_endpoint(container: Mapping[str, Any], network: OverlayNetwork) -> dict[str, Any]:
    """What others gave the container on this network, such as a Compose file: its names, and an address of its own."""
    here = _endpoint(container, network) or {}
    kept: dict[str, Any] = {"Aliases": list(here.get("Aliases") or ())}
    if here.get("IPAMConfig"):
        kept["IPAMConfig"] = here["IPAMConfig"]
    return kept


async def _connect(
    engine: NetworkEngine, container: str, network: OverlayNetwork, alias: str, kept: Mapping[str, Any]
) -> None:
    try:
        await engine.networks.connect(network.id, container, {**kept, "Aliases": [*kept["Aliases"], alias]})
    except EngineRefused:
        # Already on it is 409, 403 or 500, by the engine's age: what it shows now decides.
        now = plan_attachment(await engine.containers.inspect(container), network, alias)
        if not isinstance(now, Attached):
            raise
