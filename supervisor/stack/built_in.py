"""What the built-in services of a mode are to the rest: services to run, URLs for the app, a way through the proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisor.core.secret import Secret
from supervisor.process.child import RunProgram
from supervisor.services.backend import Backend
from supervisor.services.spec import ServiceSpec
from supervisor.services.tenancy.rotation import Lock
from supervisor.store.rotating import RotatingSecret

if TYPE_CHECKING:
    from supervisor.services.dump.dump import Programs


@dataclass(frozen=True)
class Web:
    """Where we reach Traefik's web entry point, and where people do."""

    host: str
    port: int
    addresses: dict[str, str]


@dataclass(frozen=True)
class Rotating:
    """A password of the install: where it is kept, and how its server is told another; the servers' modules wait."""

    record: RotatingSecret
    lock: Callable[[], Lock]
    close: Callable[[], Awaitable[None]] | None = None
    """At a start: has a server that outlived us take no other, as a kill may have left it."""


@dataclass
class BuiltIn:
    """The built-in services. A URL is None where neither a service of ours nor the settings give one."""

    database_url: Secret | None = None
    redis_url: Secret | None = None
    admin_url: Secret | None = None
    """The same database for its superuser."""
    rotating: dict[str, Rotating] = field(default_factory=dict)
    """The install's passwords that can be changed, by name."""
    look_up: Callable[[], None] = lambda: None
    """Makes the URLs anew, by the passwords as they are kept now."""
    web: Web | None = None
    services: list[tuple[ServiceSpec, Backend]] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    dump_programs: Callable[[RunProgram], Programs] | None = None
    """What saves the Postgres of ours; what it runs here, it runs by the given."""

    def add(self, spec: ServiceSpec, backend: Backend) -> None:
        """Take a service in."""
        self.services.append((spec, backend))
