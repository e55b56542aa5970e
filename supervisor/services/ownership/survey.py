"""What there is of a stack on an engine, read into plain values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from supervisor.engine import resources
from supervisor.engine.errors import NotFound

POSTGRES, REDIS = "postgres", "redis"
DATA_ROLES = (POSTGRES, REDIS)
_SHOWN = ("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_HOST_AUTH_METHOD", "PGDATA")


@dataclass(frozen=True)
class Mounted:
    """A mount of a service or container; `kind` is the API's: volume, bind, tmpfs."""

    kind: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """A service or container of one of our names. `env` are names only, `settings` the values that are no secrets.

    `declared` are the folders that its image wants volumes for: one without a mount gets a nameless volume, which the
    next container does not have. `data_folder` is where the image keeps its data. `node` is the Swarm node of its
    newest task, empty where none tells.
    """

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    created: str = ""
    mounts: tuple[Mounted, ...] = ()
    env: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    ports: frozenset[int] = frozenset()
    networks: frozenset[str] = frozenset()
    replicated: bool = True
    node: str = ""
    declared: frozenset[str] = frozenset()
    data_folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What there is of a stack. `services` by role; `volumes` and `network` with their labels; `node` is our own.

    `volumes` are those of this engine that the stack's services use or would use, by name.
    """

    stack: str
    node: str = ""
    services: Mapping[str, Found] = field(default_factory=dict)
    traefik: Found | None = None
    network: str = ""
    network_labels: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class AdoptionEngine(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def services(self) -> resources.Services: ...

    @property
    def tasks(self) -> resources.Tasks: ...

    @property
    def containers(self) -> resources.Containers: ...

    @property
    def images(self) -> resources.Images: ...

    @property
    def networks(self) -> resources.Networks: ...

    @property
    def volumes(self) -> resources.Volumes: ...

    async def info(self) -> dict[str, Any]: ...


async def survey(engine: AdoptionEngine, stack: str) -> Survey:
    """Look at everything of the stack's names; needs an active Swarm. Raises the engine's errors."""
    services = {role: found for role in DATA_ROLES if (found := await _service(engine, f"{stack}-{role}"))}
    network = await _network(engine, f"{stack}-network")
    wanted = {f"{stack}-{role}" for role in (*DATA_ROLES, "traefik", "postgres-database")}
    used = {mount.source for found in services.values() for mount in found.mounts if mount.kind == "volume"}
    return Survey(
        stack=stack,
        node=str(((await engine.info()).get("Swarm") or {}).get("NodeID") or ""),
        services=services,
        traefik=await _container(engine, f"{stack}-traefik"),
        network=str(network.get("Id", "")),
        network_labels=network.get("Labels") or {},
        volumes=await _volumes(engine, wanted | used),
    )


async def _service(engine: AdoptionEngine, name: str) -> Found | None:
    try:
        stored = await engine.services.inspect(name)
        tasks = await engine.tasks.of_service(name)
    except NotFound:
        return None
    placed = [str(task["NodeID"]) for task in tasks if task.get("NodeID")]
    image = str(stored["Spec"]["TaskTemplate"]["ContainerSpec"].get("Image", ""))
    return read_service(stored, node=placed[0] if placed else "", image=await _image(engine, image))


async def _image(engine: AdoptionEngine, reference: str) -> Mapping[str, Any]:
    """The configuration of an image; empty where the engine does not have it any more."""
    with suppress(NotFound):
        return dict((await engine.images.inspect(reference)).get("Config") or {})
    return {}


def read_service(stored: Mapping[str, Any], *, node: str, image: Mapping[str, Any]) -> Found:
    """From its inspection, the node of its newest task and the configuration of its image."""
    spec = stored["Spec"]
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    env, image_env = _pairs(container.get("Env")), _pairs(image.get("Env"))
    return Found(
        id=str(stored["ID"]),
        name=str(spec["Name"]),
        labels=spec.get("Labels") or {},
        image=str(container.get("Image", "")),
        created=str(stored.get("CreatedAt", "")),
        mounts=_mounts(container.get("Mounts"), "Source", "Target"),
        env=frozenset(env),
        settings={name: env[name] for name in _SHOWN if name in env},
        ports=frozenset(int(port["PublishedPort"]) for port in _published(stored) if port.get("PublishedPort")),
        networks=frozenset(str(network["Target"]) for network in _attached(spec)),
        replicated="Replicated" in (spec.get("Mode") or {}),
        node=node,
        declared=frozenset(point.rstrip("/") for point in image.get("Volumes") or ()),
        data_folder=image_env.get("PGDATA", ""),
    )


def _pairs(env: Iterable[str] | None) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in env or ())


def _published(stored: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        *((stored.get("Endpoint") or {}).get("Ports") or ()),
        *((stored["Spec"].get("EndpointSpec") or {}).get("Ports") or ()),
    ]


def _attached(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(spec["TaskTemplate"].get("Networks") or ()), *(spec.get("Networks") or ())]


def _mounts(listed: Sequence[Mapping[str, Any]] | None, source: str, target: str) -> tuple[Mounted, ...]:
    return tuple(
        Mounted(str(each.get("Type", "")), str(each.get(source) or ""), str(each[target])) for each in listed or ()
    )


async def _container(engine: AdoptionEngine, name: str) -> Found | None:
    try:
        return read_container(await engine.containers.inspect(name))
    except NotFound:
        return None


def read_container(found: Mapping[str, Any]) -> Found:
    """From its inspection."""
    config = found["Config"]
    host = found.get("HostConfig") or {}
    bound = [binding for bindings in (host.get("PortBindings") or {}).values() for binding in bindings or ()]
    return Found(
        id=str(found["Id"]),
        name=str(found["Name"]).removeprefix("/"),
        labels=config.get("Labels") or {},
        image=str(config.get("Image", "")),
        created=str(found.get("Created", "")),
        mounts=_mounts(found.get("Mounts"), "Source", "Destination"),
        env=frozenset(_pairs(config.get("Env"))),
        ports=frozenset(int(binding["HostPort"]) for binding in bound if binding.get("HostPort")),
        networks=frozenset(
            str(endpoint.get("NetworkID") or "")
            for endpoint in ((found.get("NetworkSettings") or {}).get("Networks") or {}).values()
        ),
    )


async def _network(engine: AdoptionEngine, name: str) -> Mapping[str, Any]:
    """The cluster's before a local one of the same name."""
    found = [each for each in await engine.networks.find({"name": [name]}) if each.get("Name") == name]
    return next(iter(sorted(found, key=lambda each: each.get("Scope") != "swarm")), {})


async def _volumes(engine: AdoptionEngine, wanted: Collection[str]) -> dict[str, Mapping[str, str]]:
    listed = await engine.volumes.find()
    return {str(each["Name"]): each.get("Labels") or {} for each in listed if each["Name"] in wanted}
