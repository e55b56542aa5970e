"""What every front offers: places for generations, a confirmed switch, counts to decide by, a holding answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from supervisor.core.errors import ExitCode, SupervisorError


class FrontKind(StrEnum):
    """How requests reach the app."""

    PROXY = "proxy"
    RESTART = "restart"


class Wire(StrEnum):
    """What is spoken on the app's port. `h2c` is HTTP/2 without TLS, also towards the app; `tcp` is anything."""

    HTTP = "http"
    H2C = "h2c"
    TCP = "tcp"


class FrontError(SupervisorError):
    """The front did not do, or did not confirm, what was asked; the generation that served before still does."""

    exit_code = ExitCode.UNREACHABLE


@dataclass(frozen=True)
class Place:
    """Where one generation listens, as we reach it. `line` names it within its front.

    A `private` one is for the front alone, and the app is told to listen on `host`.
    """

    line: str
    host: str
    port: int
    private: bool = True


@dataclass(frozen=True)
class Traffic:
    """Counts of one place since the switch to it. Requests in flight and streams (WebSocket, SSE) are apart.

    `failed` counts 5xx answers, `unreached` connections that were refused or got no whole answer, `lost` the latter
    alone; `answered` counts all answers, 5xx among them.
    """

    in_flight: int = 0
    streams: int = 0
    answered: int = 0
    failed: int = 0
    unreached: int = 0
    lost: int = 0

    @property
    def refused(self) -> int:
        """Tries that made no connection; the proxy makes others, so that it need not be requests that failed."""
        return self.unreached - self.lost

    def since(self, earlier: Traffic) -> Traffic:
        """What was counted after `earlier`; what is going on now stays as it is."""
        return Traffic(
            self.in_flight,
            self.streams,
            self.answered - earlier.answered,
            self.failed - earlier.failed,
            self.unreached - earlier.unreached,
            self.lost - earlier.lost,
        )


@dataclass(frozen=True)
class Holding:
    """What clients are told while nobody serves: `phase` in a word (`starting`, `failed`), `reason` for people.

    `waiting` are the names that are awaited, `done` what is through already.
    """

    phase: str
    reason: str
    waiting: tuple[str, ...] = ()
    done: tuple[str, ...] = field(default=())


class Front(Protocol):
    """The front of one app. Opened before anything slow in the boot, closed last.

    Every method but `promise` may raise FrontError. Nothing here starts or ends a generation.
    """

    @property
    def kind(self) -> FrontKind:
        """Which one it is."""

    @property
    def overlap(self) -> bool:
        """Whether two generations can run beside each other."""

    @property
    def room(self) -> int:
        """How many more places can be given out now."""

    async def take_place(self) -> Place:
        """A place for the next generation; its port is free now. ConfigurationError where it is taken by a stranger."""

    async def give_back(self, place: Place) -> None:
        """The generation there is gone. Idempotent, and never raises: there is nobody to tell."""

    async def switch(self, place: Place) -> None:
        """New requests go to `place`, and only there; returns when that is confirmed. What is in flight stays."""

    async def share(self, place: Place, percent: float) -> None:
        """Beside the one that serves, give `percent` (above 0, below 100) of new requests to `place`; 0 ends that.

        A front of kind `restart` raises FrontError.
        """

    async def wait(self) -> None:
        """Nobody serves for now: new requests wait, within bounds, for the next `switch` or `answer`."""

    async def answer(self, holding: Holding) -> None:
        """Nobody serves until the next `switch`: requests that wait, and new ones, get `holding` (503, Retry-After)."""

    async def traffic(self, place: Place) -> Traffic | None:
        """Counts of `place`; None where this front cannot know."""

    async def waiting(self) -> int:
        """How many requests wait for somebody to serve them."""


async def traffic_of(front: Front, place: Place) -> Traffic | None:
    """Counts of `place`; None where this front cannot know, or cannot be asked just now."""
    try:
        return await front.traffic(place)
    except FrontError:
        return None


PROMISES: Mapping[FrontKind, Mapping[str, str]] = {
    FrontKind.PROXY: {
        "requests during a reload": "none fails; each goes to the old or the new generation",
        "connections of clients": "stay open",
        "broken new code": "is tried beside the old one and never gets a request before it is healthy",
        "roll back": "one switch, the old generation is kept warm",
        "crash of the app": "new requests wait for the next generation; those in flight are lost",
        "while nobody serves": "the boot page (503, Retry-After)",
        "the app is given": "a private port in PORT",
    },
    FrontKind.RESTART: {
        "requests during a reload": "refused from the old generation's stop until the new one listens",
        "connections of clients": "are closed",
        "broken new code": "replaces what worked, and is started again and again",
        "roll back": "none",
        "crash of the app": "requests are refused until the next generation listens",
        "while nobody serves": "refused; the reason (503) once the app is held",
        "the app is given": "the public port in PORT",
    },
}
"""What each kind of front keeps, row by row, in words for people."""
