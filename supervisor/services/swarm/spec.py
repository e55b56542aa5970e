"""What a Swarm service of ours is to look like, in the words of the engine's API. Pure.

Fields that stand at their default are left out, and must stay left out for ever: writing one out later restarts the
task, though nothing changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.engine.labels import SPEC_HASH, owned

SECOND = 1_000_000_000
MIB = 1 << 20
MANAGED = "com.container-supervisor.managed-by"
SERVICE = "com.container-supervisor.service"
SCHEMA = "com.container-supervisor.schema"
APPLIED = "com.container-supervisor.applied"
MANAGER = "container-supervisor"
SCHEMA_VERSION = "1"
_START_INTERVAL_API = (1, 44)
_QUICK_SECONDS = 0.25
_OLDER_SECONDS = 2.0
_START_PERIOD_SECONDS = 120.0

ServiceBody = dict[str, Any]
"""The body of a service's create or update call."""


@dataclass(frozen=True)
class Owner:
    """Whose a thing is: the install's uuid and the stack's name."""

    install: str
    stack: str

    def labels(self, service: str) -> dict[str, str]:
        """On every object of ours."""
        return owned(self.install, self.stack) | {MANAGED: MANAGER, SERVICE: service}


@dataclass(frozen=True)
class SecretFile:
    """A Swarm secret as a file below /run/secrets."""

    name: str
    id: str
    file: str


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A command the engine runs in the container; seconds. It must call alive whatever only needs time."""

    command: str
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    retries: int = 6
    start_seconds: float = _START_PERIOD_SECONDS


@dataclass(frozen=True, kw_only=True)
class DataService:
    """A data service: one task, on this node, with a volume; nothing published but host ports asked for.

    `image` is what the task uses, pinned by digest or id. `host_port` publishes `port` on the node itself.
    `memory_mib` and `memory_limit_mib` are the reservation and the limit, 0 for none; `shm_mib` the size of /dev/shm.
    """

    name: str
    owner: Owner
    role: str
    image: str
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    secrets: tuple[SecretFile, ...] = ()
    volume: str
    target: str
    network: str
    node: str
    port: int
    host_port: int | None = None
    health: HealthCheck
    stop_signal: str
    stop_seconds: float
    memory_mib: int = 0
    memory_limit_mib: int = 0
    shm_mib: int = 0
    pids: int = 0
    log_max_mib: int = 10
    log_files: int = 3


def service_body(wanted: DataService, *, api: tuple[int, int]) -> ServiceBody:
    """The whole body, in canonical order. Labels of the service hold its hash, and itself as what we applied last:
    only so can a later wish take back what an earlier one asked for, and leave alone what others added.
    """
    body: ServiceBody = {
        "Name": wanted.name,
        "TaskTemplate": _task(wanted, api),
        "Mode": {"Replicated": {"Replicas": 1}},
        # The data may have moved on under the new image: a failed update waits for a person.
        "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 30 * SECOND, "Order": "stop-first"},
        "EndpointSpec": _endpoint(wanted),
    }
    ours = {SCHEMA: SCHEMA_VERSION, SPEC_HASH: spec_hash(body), APPLIED: _text(body)}
    return {**body, "Labels": wanted.owner.labels(wanted.role) | ours}


def spec_hash(body: Mapping[str, Any]) -> str:
    """Hash of a body without its labels; the same for the same wishes, whatever their order was."""
    bare = {name: value for name, value in body.items() if name != "Labels"}
    return hashlib.sha256(_text(bare).encode()).hexdigest()[:32]


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _task(wanted: DataService, api: tuple[int, int]) -> dict[str, Any]:
    task: dict[str, Any] = {
        "ContainerSpec": _container(wanted, api),
        # Swarm's own 5 s would be added to every start of an engine; one that crashes again and again is ended by us.
        "RestartPolicy": {"Condition": "any", "Delay": SECOND // 2},
        # Its volume is on this node; anywhere else the task would start on an empty one.
        "Placement": {"Constraints": [f"node.id=={wanted.node}"]},
        "Networks": [{"Target": wanted.network}],
        "LogDriver": {
            "Name": "json-file",
            "Options": {"max-file": str(wanted.log_files), "max-size": f"{wanted.log_max_mib}m"},
        },
    }
    resources = _resources(wanted)
    return {**task, "Resources": resources} if resources else task


def _resources(wanted: DataService) -> dict[str, Any]:
    limits: dict[str, int] = {}
    if wanted.memory_limit_mib:
        limits["MemoryBytes"] = wanted.memory_limit_mib * MIB
    if wanted.pids:
        limits["Pids"] = wanted.pids
    resources: dict[str, Any] = {"Limits": limits} if limits else {}
    if wanted.memory_mib:
        resources["Reservations"] = {"MemoryBytes": wanted.memory_mib * MIB}
    return resources


def _container(wanted: DataService, api: tuple[int, int]) -> dict[str, Any]:
    labels = wanted.owner.labels(wanted.role)
    mounts: list[dict[str, Any]] = [
        {
            "Type": "volume",
            "Source": wanted.volume,
            "Target": wanted.target,
            "VolumeOptions": {"Labels": labels},
        }
    ]
    if wanted.shm_mib:
        tmpfs = {"SizeBytes": wanted.shm_mib * MIB, "Mode": 0o1777}
        mounts.append({"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": tmpfs})  # noqa: S108
    container: dict[str, Any] = {
        "Image": wanted.image,
        "Labels": labels,
        "Mounts": sorted(mounts, key=lambda mount: str(mount["Target"])),
        "Healthcheck": _health(wanted.health, api),
        "StopSignal": wanted.stop_signal,
        "StopGracePeriod": round(wanted.stop_seconds * SECOND),
    }
    if wanted.env:
        container["Env"] = sorted(f"{name}={value}" for name, value in wanted.env.items())
    if wanted.args:
        container["Args"] = list(wanted.args)
    if wanted.secrets:
        container["Secrets"] = [_secret(secret) for secret in sorted(wanted.secrets, key=lambda secret: secret.file)]
    return container


def _secret(secret: SecretFile) -> dict[str, Any]:
    # Readable for all within the container: whichever user the image's server runs as must read it.
    return {
        "File": {"Name": secret.file, "UID": "0", "GID": "0", "Mode": 0o444},
        "SecretID": secret.id,
        "SecretName": secret.name,
    }


def _health(check: HealthCheck, api: tuple[int, int]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Test": ["CMD-SHELL", check.command],
        "Timeout": round(check.timeout_seconds * SECOND),
        "Retries": check.retries,
        "StartPeriod": round(check.start_seconds * SECOND),
    }
    # A service gets its name in the network's DNS with its first good result, so that must come soon.
    if api >= _START_INTERVAL_API:
        made["StartInterval"] = round(_QUICK_SECONDS * SECOND)
        return {**made, "Interval": round(check.interval_seconds * SECOND)}
    return {**made, "Interval": round(_OLDER_SECONDS * SECOND)}


def _endpoint(wanted: DataService) -> dict[str, Any]:
    # Virtual addresses need a kernel module that hosts may refuse; with one task a plain DNS answer does the same.
    endpoint: dict[str, Any] = {"Mode": "dnsrr"}
    if wanted.host_port is not None:
        port = {"Protocol": "tcp", "TargetPort": wanted.port, "PublishedPort": wanted.host_port, "PublishMode": "host"}
        endpoint["Ports"] = [port]
    return endpoint
