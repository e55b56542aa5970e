"""What must be done before a stack is taken over: the queue's data written out, the certificates read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from contextlib import suppress

import anyio

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.engine.errors import EngineRefused
from supervisor.services.ownership.survey import AdoptionEngine
from supervisor.services.swarm.tasks import TaskState, view_tasks

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
