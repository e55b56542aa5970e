"""What Postgres and Redis share as services of the engine: where they are reached, and what is known of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from supervisor.core.settings import Settings
from supervisor.probe.names import is_known
from supervisor.probe.verdict import Probe, Verdict, waiting
from supervisor.services.image_book import ImageBook
from supervisor.services.ownership.memory import Memory
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm.roles import Place
from supervisor.services.swarm.spec import Owner, SecretFile


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where we and the app reach a service; `published` is its port on the node, None where only its network has it."""

    host: str
    port: int
    published: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What a data service needs of the stack it belongs to. All calls raise the engine's errors, or ours.

    `place` returns once engine, Swarm and network are fit; `keep_secret` makes a Swarm secret of (role, file, content).
    """

    owner: Callable[[], Owner]
    place: Callable[[], Awaitable[Place]]
    images: ImageBook
    keep_secret: Callable[[str, str, bytes], Awaitable[SecretFile]]
    api_version: Callable[[], Awaitable[tuple[int, int]]]
    memory: Memory


def data_spec(
    name: str,
    settings: Settings,
    probe: Probe,
    *,
    stop_seconds: float,
    deadline_factor: float,
    requires: tuple[str, ...],
) -> ServiceSpec:
    """What the orchestrator must know of Postgres or Redis, by the settings of its name."""
    return ServiceSpec(
        name=name,
        probe=probe,
        requires=requires,
        start_seconds=getattr(settings, f"{name}_start_seconds") * deadline_factor,
        recovery_seconds=getattr(settings, f"{name}_recovery_seconds"),
        stop_seconds=stop_seconds,
        optional=name in settings.optional_services,
        essential=name in settings.essential_services,
        outlives=True,
    )


async def unnamed(reach: Reach) -> Verdict | None:
    """Why it cannot be asked yet: a service that is reached by name has none before its first good health check."""
    if reach.published is None and not await is_known(reach.host):
        return waiting(f"{reach.host!r} has no address in the network yet")
    return None
