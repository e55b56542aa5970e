"""In which order services start and stop: decided from their `requires` and `wants` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from supervisor.core.errors import ConfigurationError
from supervisor.services.spec import ServiceSpec


def levels(specs: Iterable[ServiceSpec]) -> list[list[str]]:
    """Names by level: everything a service waits for lies in an earlier level. Sorted within a level.

    Starting does not wait for whole levels (each service starts as soon as its own edges allow); stopping goes through
    them backwards. Raises ConfigurationError for a cycle, naming it, and for an edge to a service that is not there.
    """
    edges = {spec.name: sorted({*spec.requires, *spec.wants}) for spec in specs}
    for name, targets in edges.items():
        for target in targets:
            if target not in edges:
                raise ConfigurationError(
                    f"cannot order services: {name!r} waits for {target!r}, which is not started here; "
                    f"remove the edge or add the service"
                )
    placed: dict[str, int] = {}
    order: list[list[str]] = []
    while len(placed) < len(edges):
        level = sorted(name for name in edges if name not in placed and all(t in placed for t in edges[name]))
        if not level:
            cycle = " -> ".join(find_cycle({name: edges[name] for name in edges if name not in placed}))
            raise ConfigurationError(f"cannot order services: they wait for each other: {cycle}; remove one edge")
        placed.update(dict.fromkeys(level, len(order)))
        order.append(level)
    return order


def find_cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle as `[a, b, a]` in a graph where every node has an edge to another that is left."""
    node = min(edges)
    path: list[str] = []
    while node not in path:
        path.append(node)
        node = next(target for target in edges[node] if target in edges)
    return [*path[path.index(node) :], node]


def app_share(total: float, wanted: float, services_wanted: float) -> float:
    """How long the app may take of a stop's `total` seconds: what it wants, but two fifths stay for the services.

    Their graces are upper bounds (Postgres' 60 s is for a slow disk, a tenth of one is usual), so a share by size would
    starve the app. What the app does not use is theirs too.
    """
    return min(wanted, total - min(services_wanted, 0.4 * total))


def share_budget(wanted: Sequence[float], total: float) -> list[float]:
    """Grace seconds for each stop level, in order: what it wants, or its share where all together exceed `total`."""
    needed = sum(wanted)
    if needed <= total:
        return list(wanted)
    return [seconds * total / needed for seconds in wanted]
