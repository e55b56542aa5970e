"""In which order apps start: each behind those it requires, else as they stand in the file."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def start_order(requires: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The order, and a circle where there is one (the order is without it, and without what waits for it).

    Names that are not apps are not waited for here: services serve before any app.
    """
    order: list[str] = []
    waiting = list(requires)
    while waiting:
        ready = next((name for name in waiting if not _missing(name, requires, order)), None)
        if ready is None:
            return tuple(order), _circle(waiting[0], requires, order)
        order.append(ready)
        waiting.remove(ready)
    return tuple(order), ()


def _missing(name: str, requires: Mapping[str, Collection[str]], there: Collection[str]) -> list[str]:
    return [other for other in requires[name] if other in requires and other not in there]


def _circle(start: str, requires: Mapping[str, Collection[str]], order: Collection[str]) -> tuple[str, ...]:
    """The names of one circle, the first of them again at its end. Every one of them waits for another, so it ends."""
    path = [start]
    while True:
        following = _missing(path[-1], requires, order)[0]
        if following in path:
            return (*path[path.index(following) :], following)
        path.append(following)
