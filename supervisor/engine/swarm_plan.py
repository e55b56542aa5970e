"""What to do about an engine's Swarm, decided from what `/info` says; no I/O here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Any

from supervisor.core.errors import ConfigurationError, EngineError, SupervisorError, UnreachableError
from supervisor.engine.address_pool import SUBNET_BITS

PENDING_SECONDS = 60.0
"""An election, or a rotation of keys, is through by then."""
_MANAGEMENT_PORT = 2377
_DATA_PATH_PORT = 4789
_LOST = re.compile(r"listen tcp \[?([0-9a-fA-F.:]+?)\]?:\d+: bind: cannot assign requested address")


class SwarmInit(StrEnum):
    """Whether a Swarm may be begun where there is none (SWARM_INIT)."""

    AUTO = "auto"
    NEVER = "never"


@dataclass(frozen=True)
class SwarmSettings:
    """What the user may choose. Addresses are IPs; a listen address of 0.0.0.0 opens 2377 and 7946 to all.

    On loopback the Swarm has one node for good, survives every change of address, and opens nothing. `address_pool` and
    `data_path_port` (UDP, 4789 where None) are fixed at init.
    """

    init: SwarmInit = SwarmInit.AUTO
    listen_address: str = "127.0.0.1"
    advertise_address: str = "127.0.0.1"
    address_pool: IPv4Network | None = None
    data_path_port: int | None = None


@dataclass(frozen=True)
class Situation:
    """What the mode says: whose engine it is, whether we may restart it, and which addresses are ours to see.

    `local_addresses` is None where the engine runs in another network namespace.
    """

    whose: str
    """In messages: `this container's own engine`, `the host's engine`."""
    restartable: bool = False
    local_addresses: frozenset[str] | None = None


@dataclass(frozen=True)
class SwarmFacts:
    """The Swarm side of `/info`. `state` is LocalNodeState."""

    state: str
    manager: bool
    node_id: str = ""
    node_address: str = ""
    error: str = ""
    live_restore: bool = False

    @classmethod
    def parse(cls, info: Mapping[str, Any]) -> SwarmFacts:
        """Out of an answer to `/info`."""
        swarm = info.get("Swarm") or {}
        return cls(
            state=str(swarm.get("LocalNodeState") or "inactive"),
            manager=bool(swarm.get("ControlAvailable")),
            node_id=str(swarm.get("NodeID") or ""),
            node_address=str(swarm.get("NodeAddr") or ""),
            error=str(swarm.get("Error") or ""),
            live_restore=bool(info.get("LiveRestoreEnabled")),
        )

    @property
    def usable(self) -> bool:
        """Whether services can be run here and now."""
        return self.state == "active" and self.manager


@dataclass(frozen=True)
class Use:
    """It is there. `warning` tells what will not keep working by itself."""

    node_id: str
    node_address: str
    warning: str = ""


@dataclass(frozen=True)
class Initialise:
    """Begin one."""


@dataclass(frozen=True)
class Wait:
    """It decides by itself what it becomes."""

    reason: str


@dataclass(frozen=True)
class RepairAddress:
    """It was bound to an address that this machine no longer has."""

    address: str


@dataclass(frozen=True)
class Refuse:
    """Nothing we may do makes it usable."""

    error: SupervisorError


Action = Use | Initialise | Wait | RepairAddress | Refuse


def plan_swarm(facts: SwarmFacts, settings: SwarmSettings, situation: Situation, *, waited: bool = False) -> Action:
    """What to do next. `waited` says that a pending one was given its time."""
    if facts.usable:
        return Use(facts.node_id, facts.node_address, _stale_address(facts, situation))
    if facts.state == "locked":
        return Refuse(_locked(situation))
    if facts.state == "active":
        return Refuse(_worker(situation))
    if facts.live_restore:
        return Refuse(_live_restore(situation))
    match facts.state:
        case "inactive":
            return Initialise() if settings.init is SwarmInit.AUTO else Refuse(_may_not_begin(situation))
        case "pending" if not waited:
            return Wait(facts.error or "it is joining its cluster")
        case _:
            return _mend(facts, situation)


def _mend(facts: SwarmFacts, situation: Situation) -> RepairAddress | Refuse:
    """By text, as the state is the same for all that can be wrong."""
    if "cannot assign requested address" in facts.error:
        match = _LOST.search(facts.error)
        address = match[1] if match else facts.node_address
        if situation.restartable and address:
            return RepairAddress(address)
        return Refuse(lost_address(address, situation))
    return Refuse(_broken(facts, situation))


def _stale_address(facts: SwarmFacts, situation: Situation) -> str:
    known = situation.local_addresses
    if known is None or not facts.node_address or facts.node_address in known or _loopback(facts.node_address):
        return ""
    return (
        f"the Swarm on {situation.whose} advertises {facts.node_address}, which this machine no longer has: "
        "its one node works on, but others cannot join it"
    )


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _live_restore(situation: Situation) -> EngineError:
    return EngineError(
        "E18",
        f"cannot use Swarm on {situation.whose}: live-restore is on there, and Swarm excludes it by design; "
        'set "live-restore": false in its daemon.json and restart it, or use Postgres and Redis of your own '
        "(DATABASE_URL, REDIS_URL)",
    )


def _locked(situation: Situation) -> EngineError:
    return EngineError(
        "E19",
        f"cannot use Swarm on {situation.whose}: it is locked (autolock is on, and its engine was restarted); "
        "its owner must run `docker swarm unlock` there, the key is not asked for here",
    )


def _worker(situation: Situation) -> EngineError:
    reset = "; or, as this engine is ours alone, let it start anew: `docker swarm leave` in the container"
    return EngineError(
        "E20",
        f"cannot use Swarm on {situation.whose}: the node is a worker, and services need a manager; "
        "point DOCKER_HOST at a manager, or promote this node from one (`docker node promote`)"
        + (reset if situation.restartable else ""),
    )


def _may_not_begin(situation: Situation) -> ConfigurationError:
    return ConfigurationError(
        f"cannot use Swarm on {situation.whose}: there is none, and SWARM_INIT=never forbids beginning one; "
        "run `docker swarm init` there yourself, or set SWARM_INIT=auto, or use Postgres and Redis of your own "
        "(DATABASE_URL, REDIS_URL)"
    )


def lost_address(address: str, situation: Situation) -> UnreachableError:
    """The error where the address is gone and the repair is not ours to do, or failed."""
    which = address or "an address it no longer has"
    return UnreachableError(
        f"cannot use Swarm on {situation.whose}: it listens on {which}, and the machine no longer has that address; "
        f"give it back (`ip address add {address or 'ADDRESS'}/32 dev lo`), restart that engine, then run "
        "`docker swarm init --force-new-cluster --listen-addr 127.0.0.1 --advertise-addr 127.0.0.1`: services stay"
    )


def _broken(facts: SwarmFacts, situation: Situation) -> UnreachableError:
    why = facts.error or f"it has been {facts.state!r} for {PENDING_SECONDS:g} s"
    return UnreachableError(
        f"cannot use Swarm on {situation.whose}: {why}; look at that engine's log. Where its state on disk is beyond "
        "repair: stop the engine, move the folder `swarm` out of its data root, start it again; volumes stay as they "
        "are, and services are made anew"
    )


def init_request(settings: SwarmSettings, pool: IPv4Network | None) -> dict[str, Any]:
    """The API's request; without a pool none is named, as in a repair."""
    request: dict[str, Any] = {
        "ListenAddr": _with_port(settings.listen_address),
        "AdvertiseAddr": _with_port(settings.advertise_address),
        "ForceNewCluster": False,
        "Spec": {},
    }
    if settings.data_path_port is not None:
        request["DataPathPort"] = settings.data_path_port
    if pool is not None:
        request |= {"DefaultAddrPool": [str(pool)], "SubnetSize": SUBNET_BITS}
    return request


def _with_port(address: str) -> str:
    return f"[{address}]:{_MANAGEMENT_PORT}" if ":" in address else f"{address}:{_MANAGEMENT_PORT}"


def opened_by_init(settings: SwarmSettings, situation: Situation, pool: IPv4Network) -> str:
    """What beginning a Swarm opened, exactly: on somebody's host it is theirs to know."""
    return (
        f"initialised a Swarm of one node on {situation.whose}: it listens on {settings.listen_address}, ports "
        "2377/tcp (management) and 7946/tcp+udp (gossip), and takes overlay traffic on "
        f"{settings.data_path_port or _DATA_PATH_PORT}/udp; it advertises {settings.advertise_address}; "
        f"its networks come from {pool}"
    )
