"""A container of ours: what it is to look like, and what to do about the one there is. Pure.

A container cannot be changed, only made anew, and that interrupts whoever it serves. So it is made anew on a real
difference only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.engine.labels import INSTALL, SPEC_HASH, STACK
from supervisor.services.swarm.spec import Owner

_GONE_STATES = frozenset({"dead", "removing"})


@dataclass(frozen=True)
class Published:
    """A port of the container on the host's `address` (empty: all)."""

    container: int
    host: int
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class ContainerWish:
    """`image` pinned by digest or id; `volumes` map volume name to path in the container; `hosts` are extra names."""

    name: str
    owner: Owner
    role: str
    image: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Published, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    network: str
    aliases: tuple[str, ...] = ()
    restart: str = "always"
    log_max_mib: int = 10
    log_files: int = 3


@dataclass(frozen=True)
class Create:
    """There is none: create and start it."""


@dataclass(frozen=True)
class Start:
    """It is the right one and does not run: start it. Where that needs it anew, it is on `networks` again."""

    id: str
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Keep:
    """It is the right one and runs."""

    id: str


@dataclass(frozen=True)
class Recreate:
    """It is ours and differs: remove it, create it anew, and connect it to `networks` again, which others added."""

    id: str
    networks: tuple[str, ...]


@dataclass(frozen=True)
class Foreign:
    """A container of that name belongs to somebody else."""

    id: str
    image: str
    created: str


Plan = Create | Start | Keep | Recreate | Foreign


def container_body(wanted: ContainerWish) -> dict[str, Any]:
    """The body of the create call, with its hash in a label."""
    host: dict[str, Any] = {
        "RestartPolicy": {"Name": wanted.restart},
        # `Mounts` fail where a source is missing; `Binds` would make folders on the host.
        "Mounts": [
            {"Type": "volume", "Source": name, "Target": target} for name, target in sorted(wanted.volumes.items())
        ],
        "PortBindings": _bindings(wanted.ports),
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-file": str(wanted.log_files), "max-size": f"{wanted.log_max_mib}m"},
        },
        "NetworkMode": wanted.network,
    }
    if wanted.hosts:
        host["ExtraHosts"] = sorted(f"{name}:{address}" for name, address in wanted.hosts.items())
    body: dict[str, Any] = {
        "Image": wanted.image,
        "Cmd": list(wanted.args),
        "Env": sorted(f"{name}={value}" for name, value in wanted.env.items()),
        "ExposedPorts": {f"{port.container}/tcp": {} for port in wanted.ports},
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {wanted.network: {"Aliases": sorted(wanted.aliases)}}},
    }
    labels = wanted.owner.labels(wanted.role) | {SPEC_HASH: body_hash(body)}
    return {**body, "Labels": labels}


def _bindings(ports: tuple[Published, ...]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in sorted(ports, key=lambda port: (port.container, port.host)):
        entry = {"HostPort": str(port.host)} | ({"HostIp": port.address} if port.address else {})
        bindings.setdefault(f"{port.container}/tcp", []).append(entry)
    return bindings


def body_hash(body: Mapping[str, Any]) -> str:
    """Hash of a create body without its labels."""
    bare = {name: value for name, value in body.items() if name != "Labels"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:32]


def plan_container(wanted: ContainerWish, found: Mapping[str, Any] | None, *, network_id: str) -> Plan:
    """What to do. `found` is the answer of an inspect, None where there is none of that name.

    `network_id` is that of the network as it is now: a container of a network that was made anew is on none.
    """
    if found is None:
        return Create()
    labels = found["Config"].get("Labels") or {}
    if labels.get(INSTALL) != wanted.owner.install or labels.get(STACK) != wanted.owner.stack:
        return Foreign(str(found["Id"]), str(found["Config"].get("Image", "?")), str(found.get("Created", "")))
    attached = (found.get("NetworkSettings") or {}).get("Networks") or {}
    same = labels.get(SPEC_HASH) == container_body(wanted)["Labels"][SPEC_HASH]
    state = str(found["State"].get("Status", ""))
    stale = wanted.network not in attached or _stale(attached[wanted.network], network_id)
    others = tuple(sorted(name for name in attached if name != wanted.network))
    if not same or stale or state in _GONE_STATES:
        return Recreate(str(found["Id"]), others)
    return Keep(str(found["Id"])) if state == "running" else Start(str(found["Id"]), others)


def _stale(endpoint: Mapping[str, Any], network_id: str) -> bool:
    known = str(endpoint.get("NetworkID") or "")
    return bool(known) and known != network_id
