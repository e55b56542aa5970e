"""Preflight facts about programs: the servers' binaries, and Python packages that clash."""

from __future__ import annotations

import importlib.metadata
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from supervisor.commands.fact import Fact, Grade
from supervisor.core.errors import SupervisorError
from supervisor.core.settings import Settings
from supervisor.services.binaries import Blocked, find_postgres, find_redis, find_traefik, system_places
from supervisor.services.embedded.access import POSTGRES_UID, REDIS_UID, blocked_path, identity_for

_CLASHING = "supervisor"


def examine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Fact]:
    """All of them."""
    yield clash()
    yield from _servers(settings, environ)


def clash() -> Fact:
    """The PyPI package `supervisor` (supervisord) has our import name: one would overwrite the other's files."""
    try:
        version = importlib.metadata.version(_CLASHING)
    except importlib.metadata.PackageNotFoundError:
        return Fact.ok("packages", "the PyPI package 'supervisor' is not installed beside this one")
    return Fact.failed(
        "packages",
        f"the PyPI package 'supervisor' {version} is installed here too; both have the import name 'supervisor'",
        "never both in one environment: pip uninstall supervisor container-supervisor, then install the one you want",
    )


def _servers(settings: Settings, environ: Mapping[str, str]) -> Iterator[Fact]:
    places = system_places(environ.get("PATH", os.defpath))
    finders: dict[str, Callable[[], str]] = {
        "postgres": lambda: str(
            find_postgres(settings.postgres_bin_dir, places=places, blocked=_blocked("postgres", POSTGRES_UID)).folder
        ),
        "redis": lambda: str(find_redis(settings.redis_binary, places=places, blocked=_blocked("redis", REDIS_UID))),
        "traefik": lambda: str(find_traefik(settings.traefik_binary, places=places)),
    }
    external = {"postgres": settings.database_url, "redis": settings.redis_url}
    for name in settings.services:
        if external.get(name) is not None:
            yield Fact.ok(name, "an external one is set; none is started")
        else:
            yield _server(name, finders[name], needed=settings.mode == "embedded")


def _blocked(account: str, reserved_uid: int) -> Blocked:
    """Whether the user a server runs as could read and enter what it needs, as `services.embedded` asks it."""
    identity = identity_for(account, reserved_uid, our_uid=os.geteuid())
    return partial(blocked_path, identity=identity, leaf_mode=stat.S_IROTH | stat.S_IXOTH)


def _server(name: str, find: Callable[[], str], *, needed: bool) -> Fact:
    """Missing programs stop embedded mode alone."""
    try:
        return Fact.ok(name, find())
    except SupervisorError as error:
        found, _, mend = str(error).partition("; ")
        if needed:
            return Fact.failed(name, found, mend)
        return Fact(name, Grade.NOTE, f"{found} (needed in embedded mode only)", mend)
