"""What Postgres and Redis need of a Swarm service, by the contract of their official images. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supervisor.core.errors import ConfigurationError
from supervisor.services.swarm.spec import DataService, HealthCheck, Owner, SecretFile

POSTGRES_PORT = 5432
REDIS_PORT = 6379
POSTGRES_SECRET_FILE = "postgres_password"  # noqa: S105  (the name of a file)
REDIS_CONFIG_FILE = "redis.conf"
_SECRETS = "/run/secrets"
_NEW_LAYOUT_MAJOR = 18
_OLDEST_MAJOR = 14
# 0 takes connections, 1 refuses them while it starts, recovers or stops: both are alive. 2 is no answer.
# Over TCP, as the image's own first initialisation listens on the unix socket only.
# It waits within itself: a service gets its name in the network only with its first good result, and older engines ask
# every 2 s at best.
_POSTGRES_ALIVE = (
    "for i in $(seq 40); do "
    'pg_isready -q -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"; test $? -le 1 && exit 0; sleep 0.1; '
    "done; exit 1"
)
# An error that names the password or the loading comes from a server that is alive.
_REDIS_ALIVE = "redis-cli -h 127.0.0.1 ping | grep -qE 'PONG|NOAUTH|LOADING'"
POSTGRES_STOP_SECONDS = 60.0
REDIS_STOP_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where data services live: Swarm node and network, both by id; host ports where the app shares no network."""

    node: str
    network: str
    postgres_port: int | None = None
    redis_port: int | None = None


@dataclass(frozen=True)
class Volume:
    """A named volume, and where its service has it."""

    name: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Memory of a service in MiB; 0 means none."""

    reserve_mib: int = 0
    limit_mib: int = 0


def image_major(env: Sequence[str], tag: str) -> int:
    """Postgres' major version in an image: its PG_MAJOR, else what the tag begins with.

    Raises ConfigurationError where neither tells it.
    """
    values = dict(entry.partition("=")[::2] for entry in env)
    for text in (values.get("PG_MAJOR", ""), tag):
        found = re.match(r"(\d+)", text)
        if found:
            return int(found[1])
    raise ConfigurationError(
        "cannot use this Postgres image: neither PG_MAJOR in its environment nor its tag tells the major version; "
        "use an official image, or one with PG_MAJOR set"
    )


def check_major(image: int, volume: int | None) -> None:
    """Raises ConfigurationError where the image's Postgres cannot open the data that the volume holds."""
    if image < _OLDEST_MAJOR:
        raise ConfigurationError(
            f"cannot use Postgres {image}: {_OLDEST_MAJOR} is the oldest that works; set SUPERVISOR_POSTGRES_IMAGE"
        )
    if volume is not None and image != volume:
        raise ConfigurationError(
            f"cannot start Postgres {image} on data of Postgres {volume}: a server opens only data of its own major; "
            f"set SUPERVISOR_POSTGRES_IMAGE to an image of Postgres {volume}, or move the data with pg_dump"
        )


def postgres_target(major: int) -> str:
    """Where the image wants the volume: from 18 on above its per-major folder."""
    return "/var/lib/postgresql" if major >= _NEW_LAYOUT_MAJOR else "/var/lib/postgresql/data"


def postgres_service(
    *,
    owner: Owner,
    place: Place,
    image: str,
    major: int,
    password: SecretFile,
    limits: Limits,
    volume: Volume | None = None,
) -> DataService:
    """Postgres; role and database are named after the stack. `volume` is one that was there before us."""
    volume = volume or Volume(f"{owner.stack}-postgres", postgres_target(major))
    return DataService(
        name=f"{owner.stack}-postgres",
        owner=owner,
        role="postgres",
        image=image,
        env={
            "POSTGRES_USER": owner.stack,
            "POSTGRES_DB": owner.stack,
            "POSTGRES_PASSWORD_FILE": f"{_SECRETS}/{POSTGRES_SECRET_FILE}",
        },
        secrets=(password,),
        volume=volume.name,
        target=volume.target,
        network=place.network,
        node=place.node,
        port=POSTGRES_PORT,
        host_port=place.postgres_port,
        health=HealthCheck(command=_POSTGRES_ALIVE),
        stop_signal="SIGINT",  # fast: open connections are cut, the data is flushed
        stop_seconds=POSTGRES_STOP_SECONDS,
        memory_mib=limits.reserve_mib,
        memory_limit_mib=limits.limit_mib,
        shm_mib=256,
        pids=1024,
    )


def redis_service(
    *, owner: Owner, place: Place, image: str, config: SecretFile, limits: Limits, volume: Volume | None = None
) -> DataService:
    """Redis; its whole configuration is the secret, so that the password is in no command line."""
    volume = volume or Volume(f"{owner.stack}-redis", "/data")
    return DataService(
        name=f"{owner.stack}-redis",
        owner=owner,
        role="redis",
        image=image,
        args=("redis-server", f"{_SECRETS}/{REDIS_CONFIG_FILE}"),
        secrets=(config,),
        volume=volume.name,
        target=volume.target,
        network=place.network,
        node=place.node,
        port=REDIS_PORT,
        host_port=place.redis_port,
        health=HealthCheck(command=_REDIS_ALIVE),
        stop_signal="SIGTERM",
        stop_seconds=REDIS_STOP_SECONDS,
        memory_mib=limits.reserve_mib,
        memory_limit_mib=limits.limit_mib,
        pids=256,
    )


def redis_config(password: str) -> str:
    """The file: queues live in it, so nothing is evicted and every write is kept."""
    lines: Mapping[str, str] = {
        "dir": "/data",
        "requirepass": f'"{password}"',
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())
