"""The server lines of one app in HAProxy, as values: who is in rotation, and the commands that make it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

NAMES = ("g1", "g2", "g3")
"""Three places: one that serves, a candidate, one that drains."""
NOBODY = "nobody"
"""The line where requests wait: a loopback port of ours that refuses every try.

A unix socket path that is not there would not do: HAProxy pauses between tries only after a refusal it had to wait for,
and uses up all of them at once otherwise.
"""
HOLD = "hold"
"""The backup line: our holding answer."""
LOOPBACK = "127.0.0.1"
_PLACEHOLDER_PORT = 1
_FULL_WEIGHT = 100
_HIGHEST_WEIGHT = 256


@dataclass(frozen=True)
class ServerLine:
    """One place: in rotation (`ready`) or not, and its part of new requests as a weight."""

    name: str
    port: int = _PLACEHOLDER_PORT
    weight: int = _FULL_WEIGHT
    ready: bool = False


@dataclass(frozen=True)
class Lines:
    """All places of one app. `waiting`: nobody serves and requests wait; with no line ready, the backup answers."""

    servers: tuple[ServerLine, ...] = tuple(ServerLine(name) for name in NAMES)
    waiting: bool = False

    def at(self, name: str, port: int) -> Lines:
        """The line `name` leads to `port` from now on; it is not in rotation."""
        servers = (ServerLine(name, port) if line.name == name else line for line in self.servers)
        return replace(self, servers=tuple(servers))

    def alone(self, name: str) -> Lines:
        """All new requests go to the line `name`."""
        return Lines(tuple(replace(line, ready=line.name == name, weight=_FULL_WEIGHT) for line in self.servers))

    def shared(self, serving: str, candidate: str, percent: float) -> Lines:
        """New requests go to `serving`, but for `percent` of them, which go to `candidate`."""
        most, part = weights(percent)
        parts = {serving: most, candidate: part}
        servers = (
            replace(line, ready=line.name in parts, weight=parts.get(line.name, _FULL_WEIGHT)) for line in self.servers
        )
        return Lines(tuple(servers))

    def without(self, name: str) -> Lines:
        """The line `name` is out of rotation; were it the only one, requests wait."""
        servers = tuple(replace(line, ready=line.ready and line.name != name) for line in self.servers)
        emptied = self.is_ready(name) and not any(line.ready for line in servers)
        return Lines(servers, self.waiting or emptied)

    def is_ready(self, name: str) -> bool:
        """Whether the line `name` is in rotation."""
        return any(line.ready for line in self.servers if line.name == name)

    def none(self, *, waiting: bool) -> Lines:
        """Nobody serves: requests wait, or get the holding answer."""
        return Lines(tuple(replace(line, ready=False) for line in self.servers), waiting)


def weights(percent: float) -> tuple[int, int]:
    """Whole weights, at most 256, that give the second `percent` of both as nearly as such weights can.

    The least is 1 of 257, that is 0.39 %; 5 % is exact.
    """
    share = percent / 100
    small = min(share, 1 - share)
    pairs = ((_partner(part, small), part) for part in range(1, _HIGHEST_WEIGHT + 1))
    big, part = min(pairs, key=lambda pair: abs(pair[1] / (pair[0] + pair[1]) - small))
    return (big, part) if share <= 1 - share else (part, big)


def _partner(part: int, share: float) -> int:
    return max(1, min(_HIGHEST_WEIGHT, round(part * (1 - share) / share)))


def commands(backends: Sequence[str], lines: Lines) -> list[str]:
    """What makes HAProxy's lines like these, whatever they were, so that it can be said again after a doubt.

    Those that come into rotation first: between two commands there may be one too many, never none.
    """
    ready = [line for line in lines.servers if line.ready]
    others = [line for line in lines.servers if not line.ready]
    made = [command for backend in backends for line in ready for command in _place(backend, line)]
    if lines.waiting:
        made += [f"set server {backend}/{NOBODY} state ready" for backend in backends]
    made += [command for backend in backends for line in others for command in _place(backend, line)]
    if not lines.waiting:
        made += [f"set server {backend}/{NOBODY} state maint" for backend in backends]
    return made


def _place(backend: str, line: ServerLine) -> list[str]:
    server = f"set server {backend}/{line.name}"
    address = f"{server} addr {LOOPBACK} port {line.port}"
    if line.ready:
        return [address, f"{server} weight {line.weight}", f"{server} state ready"]
    return [f"{server} state maint", address]
