"""What of this stack is on an engine already, whose it is, and whether and how it becomes ours. Nothing is changed here
but what must be before a take-over: the queue's data written out, the certificates read.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import anyio

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.engine import resources
from supervisor.engine.errors import EngineRefused, NotFound
from supervisor.engine.labels import INSTALL, STACK
from supervisor.engine.reference import Reference
from supervisor.services.swarm.roles import Volume
from supervisor.services.swarm.spec import Owner
from supervisor.services.swarm.tasks import TaskState, view_tasks

POSTGRES, REDIS = "postgres", "redis"
DATA_ROLES = (POSTGRES, REDIS)
ACME_FILES = (
    "/etc/dokploy/traefik/dynamic/acme.json",
    "/etc/dokploy/traefik/acme.json",
    "/etc/traefik/acme.json",
    "/letsencrypt/acme.json",
    "/acme.json",
)
"""Where a Traefik that is taken over may keep its certificates; the first is the original's place."""
REWRITE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_POSTGRES_DATA = "/var/lib/postgresql/data"
_FOLDERS = {POSTGRES: _POSTGRES_DATA, REDIS: "/data"}
_PORTS = {POSTGRES: {5432}, REDIS: {6379}}
_SHOWN = ("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_HOST_AUTH_METHOD", "PGDATA")
_WAY_OUT = (
    "take it over with SUPERVISOR_ADOPT=1 (its data stays, its password is set anew), or remove it, or choose another "
    "SUPERVISOR_STACK"
)


class Standing(StrEnum):
    """Whose an object is, seen from our install and stack."""

    OURS = "ours"
    LOST = "another install's of this stack"
    """That may be ourselves, before our state folder was lost."""
    OTHER = "another stack's"
    UNLABELLED = "nobody's that its labels tell"


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


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What is to be done about it; all empty where there is nothing, or all is ours.

    `install` is the uuid to take back. `volumes` (where the data is) and `images` (that can open it) are kept by role
    from now on: write them down, and `set_passwords` (those there are not known), before anything is changed.
    `services` are ids that become ours though their labels do not say so. `snapshot` is a Redis service whose data
    `keep_redis_data` must have written out before it is updated. `replaced` is a container to remove before ours of
    its name is made. `said` is what people must know.
    """

    install: str = ""
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    services: frozenset[str] = frozenset()
    snapshot: str = ""
    replaced: str = ""
    set_passwords: bool = False
    said: tuple[str, ...] = ()

    def covers(self, stored: Mapping[str, Any]) -> bool:
        """Whether this service, as an inspect shows it, may be taken over; one that was made since may not."""
        return str(stored.get("ID")) in self.services


# --- the decision -------------------------------------------------------------------------------------------------


def plan_adoption(
    survey: Survey, owner: Owner, *, fresh: bool, adopt: bool, known_volumes: Collection[str] = ()
) -> Adoption:
    """What to do about what is there. Call it with the stack's lease in hand: then no other supervisor uses it.

    `fresh`: our state folder is new, so things of this stack and another install are what it lost. `adopt` is the
    user's word to take over what is not ours. `known_volumes` are those that we took over before.
    Raises ConfigurationError for what is somebody else's, and whatever it is told for data that would be hidden.
    """
    return _Plan(survey, owner, fresh=fresh, adopt=adopt, known_volumes=known_volumes).make()


def standing(labels: Mapping[str, str], owner: Owner) -> Standing:
    """Whose an object with these labels is."""
    if INSTALL not in labels:
        return Standing.UNLABELLED
    if labels.get(STACK) != owner.stack:
        return Standing.OTHER
    return Standing.OURS if labels[INSTALL] == owner.install else Standing.LOST


class _Plan:
    """Collects an Adoption, object by object."""

    def __init__(
        self, survey: Survey, owner: Owner, *, fresh: bool, adopt: bool, known_volumes: Collection[str]
    ) -> None:
        self._survey = survey
        self._install = _lost_install(survey, owner) if fresh else ""
        self._owner = Owner(self._install or owner.install, owner.stack)
        self._adopt = adopt
        self._known = known_volumes
        self._volumes: dict[str, Volume] = {}
        self._images: dict[str, str] = {}
        self._services: set[str] = set()
        self._said: list[str] = []
        self._snapshot = ""
        self._replaced = ""
        self._set_passwords = bool(self._install)

    def make(self) -> Adoption:
        if self._install:
            self._said.append(
                f"the state of this install is new, and things of stack {self._owner.stack!r} on this engine belong to "
                f"install {self._install}: it was lost, and is taken back; the passwords of Postgres and Redis are set "
                f"anew, so whatever else used the old ones needs the new ones"
            )
        for role in DATA_ROLES:
            service = self._survey.services.get(role)
            if service is None:
                self._plan_loose_volume(role)
            else:
                self._plan_service(role, service)
        if self._survey.traefik is not None:
            self._plan_traefik(self._survey.traefik)
        return Adoption(
            install=self._install,
            volumes=self._volumes,
            images=self._images,
            services=frozenset(self._services),
            snapshot=self._snapshot,
            replaced=self._replaced,
            set_passwords=self._set_passwords,
            said=tuple(self._said),
        )

    def _plan_service(self, role: str, service: Found) -> None:
        whose = standing(service.labels, self._owner)
        taken = whose is not Standing.OURS
        what = f"service {service.name!r} (image {service.image}, made {service.created})"
        if taken and not self._adopt:
            self._require_original(role, service, whose, what)
        volume = data_volume(role, service)
        _require_data(role, what, [*blockers(role, service, self._survey, volume, taken=taken)])
        if isinstance(volume, str):
            return
        if taken or self._install:
            self._volumes[role], self._images[role] = volume, service.image
        elif volume.name != f"{self._owner.stack}-{role}":
            self._volumes[role] = volume
        if taken:
            self._take(service, what, volume)
        if role == REDIS and whose is Standing.UNLABELLED:
            self._snapshot = service.name

    def _take(self, service: Found, what: str, volume: Volume) -> None:
        self._services.add(service.id)
        self._set_passwords = True
        closed = f", and its port {_words(service.ports)} is published no more" if service.ports else ""
        self._said.append(
            f"taking over {what}: its data stays in volume {volume.name!r}, its password is set anew{closed}"
        )
        if service.settings.get("POSTGRES_HOST_AUTH_METHOD") == "trust":
            self._said.append(
                f"service {service.name!r} was made with POSTGRES_HOST_AUTH_METHOD=trust: its pg_hba.conf lets "
                f"everybody on the stack's network in without a password until you change it"
            )

    def _require_original(self, role: str, service: Found, whose: Standing, what: str) -> None:
        """Without the user's word only what the original is known to make is taken over."""
        if whose is not Standing.UNLABELLED:
            raise ConfigurationError(f"cannot use {what}: it is {_whose(whose, service.labels)}; {_WAY_OUT}")
        if differs := unlike_original(role, service, self._survey):
            raise ConfigurationError(
                f"cannot use {what}: it is {whose}, and not as Dokploy makes it ({'; '.join(differs)}); {_WAY_OUT}"
            )

    def _plan_loose_volume(self, role: str) -> None:
        """A volume without its service: data of which nobody can tell what it is."""
        names = [f"{self._owner.stack}-{role}", *([f"{self._owner.stack}-postgres-database"] * (role == POSTGRES))]
        name = next((name for name in names if name in self._survey.volumes), None)
        if name is None or name in self._known:
            return
        labels = self._survey.volumes[name]
        whose = standing(labels, self._owner)
        if whose is Standing.OURS:
            return
        what = f"volume {name!r}"
        made_by_us = whose is Standing.LOST
        if role == REDIS and not made_by_us:
            raise ConfigurationError(
                f"cannot use {what}: it is {_whose(whose, labels)}, its service is gone, and a Redis of ours would not "
                f"read the snapshot in it; remove it if its data is not needed, or choose another SUPERVISOR_STACK"
            )
        if not self._adopt:
            raise ConfigurationError(f"cannot use {what}: it is {_whose(whose, labels)}; {_WAY_OUT}")
        if not made_by_us:
            self._volumes[role] = Volume(name, _POSTGRES_DATA)
        self._set_passwords = True
        self._said.append(f"taking over {what}: its data stays, its password is set anew")

    def _plan_traefik(self, container: Found) -> None:
        whose = standing(container.labels, self._owner)
        if whose is Standing.OURS:
            return
        what = f"container {container.name!r} (image {container.image}, made {container.created})"
        original = whose is Standing.UNLABELLED and _is_image(container.image, "traefik")
        if not original and not self._adopt:
            raise ConfigurationError(f"cannot use {what}: it is {_whose(whose, container.labels)}; {_WAY_OUT}")
        self._replaced = container.id
        self._said.append(f"replacing {what} by one of ours")


def _lost_install(survey: Survey, owner: Owner) -> str:
    """The one install of this stack that things on the engine belong to; empty where it is ours, none, or several."""
    labelled = [each.labels for each in (*survey.services.values(), survey.traefik) if each is not None]
    for group in ([*labelled, *survey.volumes.values()], [survey.network_labels]):
        lost = {labels[INSTALL] for labels in group if standing(labels, owner) is Standing.LOST}
        if lost:
            return lost.pop() if len(lost) == 1 else ""
    return ""


def data_volume(role: str, service: Found) -> Volume | str:
    """The named volume that holds a service's data, or why there is none; a mount nearer to the data wins."""
    folder = service.settings.get("PGDATA") if role == POSTGRES else None
    folder = folder or service.data_folder or _FOLDERS[role]
    mounts = {mount.target.rstrip("/"): mount for mount in service.mounts}
    above = [point for point in {*mounts, *service.declared} if _is_below(folder, point)]
    nearest = mounts.get(max(above, key=len)) if above else None
    if nearest is None:
        return f"its data in {folder!r} is in no volume with a name, and goes with its container"
    if nearest.kind != "volume" or not nearest.source:
        return f"its data in {folder!r} is in a {nearest.kind} mount of {nearest.source or 'no name'!r}, in no volume"
    return Volume(nearest.source, nearest.target)


def blockers(role: str, service: Found, survey: Survey, volume: Volume | str, *, taken: bool) -> Iterable[str]:
    """Why it cannot be used, whatever the user says, without its data being hidden or lost.

    `taken`: somebody else made it, so that nothing of it is as we make it.
    """
    if service.node and survey.node and service.node != survey.node:
        yield f"its task and data are on Swarm node {service.node}, and we are on {survey.node}"
    if not taken:
        return
    if isinstance(volume, str):
        yield volume
    elif volume.name not in survey.volumes:
        yield f"its volume {volume.name!r} is not on this engine"
    if not service.replicated:
        yield "it is a global service, and ours have one task"
    if role == POSTGRES:
        user = service.settings.get("POSTGRES_USER", "postgres")
        database = service.settings.get("POSTGRES_DB", user)
        if (user, database) != (survey.stack, survey.stack):
            yield f"its role is {user!r} and its database {database!r}, and ours have the stack's name {survey.stack!r}"


def _require_data(role: str, what: str, reasons: Sequence[str]) -> None:
    if reasons:
        variable = "DATABASE_URL" if role == POSTGRES else "REDIS_URL"
        raise ConfigurationError(
            f"cannot use {what}: {'; '.join(reasons)}; it is left as it is: give its address in {variable} to use it "
            f"where it is, or choose another SUPERVISOR_STACK"
        )


def unlike_original(role: str, service: Found, survey: Survey) -> tuple[str, ...]:
    """How it differs from what the original makes; empty where it is that."""
    differs = []
    if not _is_image(service.image, role):
        differs.append(f"its image is no {role}")
    names = {f"{survey.stack}-{role}", f"{survey.stack}-postgres-database" if role == POSTGRES else "redis-data-volume"}
    volumes = {mount.source for mount in service.mounts if mount.target.rstrip("/") == _FOLDERS[role]}
    if not volumes or not volumes <= names:
        differs.append(f"no volume {' or '.join(map(repr, sorted(names)))} is mounted at {_FOLDERS[role]}")
    if extra := service.ports - _PORTS[role]:
        differs.append(f"it publishes port {_words(extra)}")
    if not survey.network or survey.network not in service.networks:
        differs.append(f"it is not on network '{survey.stack}-network'")
    if role == POSTGRES and not service.env & {"POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"}:
        differs.append("it was given no POSTGRES_PASSWORD")
    return tuple(differs)


def _is_image(image: str, name: str) -> bool:
    try:
        return Reference.parse(image).path.rpartition("/")[2] == name
    except ConfigurationError:
        return False


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _whose(whose: Standing, labels: Mapping[str, str]) -> str:
    return whose if whose is Standing.UNLABELLED else f"{whose} ({labels.get(INSTALL)}, stack {labels.get(STACK)!r})"


def _words(ports: Iterable[int]) -> str:
    return " and ".join(str(port) for port in sorted(ports))


# --- reading ------------------------------------------------------------------------------------------------------


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


# --- before the take-over -------------------------------------------------------------------------------------------


async def keep_redis_data(engine: AdoptionEngine, service: str) -> None:
    """Have a Redis that is taken over write its data where ours reads it; call it before its service is updated.

    The original keeps snapshots only. A Redis that is started with an append-only file and finds none begins empty,
    whatever snapshot there is (redis.io, "Redis persistence"), so the file is made by the one that has the data.
    Raises ConfigurationError where it does not do as it is told.
    """
    view = view_tasks(await engine.tasks.of_service(service))
    if view.state is not TaskState.UP:
        raise ConfigurationError(
            f"cannot take over service {service!r}: it does not run ({view.text}), so its data cannot be written out; "
            f"start it (`docker service scale {service}=1`), or remove it and its volume if the data is not needed"
        )
    said = (await _redis(engine, view.container, "config", "set", "appendonly", "yes")).strip()
    if said != "OK":
        raise ConfigurationError(
            f"cannot take over service {service!r}: its Redis does not switch on its append-only file ({said}); do it "
            f"by hand with its password (redis-cli: `config set appendonly yes`, then `config set requirepass ''`)"
        )
    try:
        with anyio.fail_after(REWRITE_SECONDS):
            await _wait_written(engine, view.container)
    except TimeoutError as error:
        raise UnreachableError(
            f"cannot take over service {service!r}: its Redis has not written its append-only file within "
            f"{REWRITE_SECONDS:g} s; look at its log (disk full?) and try again"
        ) from error


async def _wait_written(engine: AdoptionEngine, container: str) -> None:
    while not is_written(await _redis(engine, container, "info", "persistence")):  # noqa: ASYNC110  (it tells no event)
        await anyio.sleep(_POLL_SECONDS)


def is_written(persistence: str) -> bool:
    """Whether `INFO persistence` says that the append-only file is there and whole."""
    fields = dict(line.strip().partition(":")[::2] for line in persistence.splitlines())
    wanted = {
        "aof_enabled": "1",
        "aof_rewrite_in_progress": "0",
        "aof_rewrite_scheduled": "0",
        "aof_last_bgrewrite_status": "ok",
    }
    return all(fields.get(name) == value for name, value in wanted.items())


async def _redis(engine: AdoptionEngine, container: str, *words: str) -> str:
    done = await engine.containers.exec(container, ["redis-cli", *words])
    return (done.stdout or done.stderr).decode(errors="replace")


async def rescue_acme(engine: AdoptionEngine, container: str, files: Sequence[str] = ACME_FILES) -> bytes | None:
    """The certificates of a Traefik that is to be replaced: the first of `files` that holds some; None for none.

    Read by the engine, so a folder of the host that is mounted into it is read too.
    """
    for file in files:
        with suppress(EngineRefused):
            found = only_file(await engine.containers.get_archive(container, file))
            if found is not None and _has_certificates(found):
                return found
    return None


def only_file(archive: bytes) -> bytes | None:
    """The content of the one plain file in a tar; None where it is anything else."""
    with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        file = tar.extractfile(members[0]) if len(members) == 1 and members[0].isfile() else None
        return file.read() if file is not None else None
    return None


def _has_certificates(text: bytes) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and bool(found)
