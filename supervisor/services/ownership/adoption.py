"""Whose the things of a stack are, and whether and how they become ours: decided from a survey. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.engine.labels import INSTALL, STACK
from supervisor.engine.reference import Reference
from supervisor.services.ownership.survey import DATA_ROLES, POSTGRES, REDIS, Found, Survey
from supervisor.services.swarm.roles import Volume
from supervisor.services.swarm.spec import Owner

_POSTGRES_DATA = "/var/lib/postgresql/data"
_FOLDERS = {POSTGRES: _POSTGRES_DATA, REDIS: "/data"}
_PORTS = {POSTGRES: {5432}, REDIS: {6379}}
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
