"""What may be asked of the controller, and what it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from supervisor.core.errors import RejectedError, RolledBackError, StoppingError, SupervisorError


class Verb(StrEnum):
    """One verb per meaning: `restart` stops and starts, `reload` brings new code into service."""

    RELOAD = "reload"
    RESTART = "restart"
    STOP = "stop"
    START = "start"
    PROMOTE = "promote"
    ABORT = "abort"


DECISIONS = frozenset({Verb.PROMOTE, Verb.ABORT})
"""Verbs about the canary in hand: they do not wait for their turn."""


@dataclass(frozen=True)
class Canary:
    """First give new code `percent` (above 0, below 100) of new requests, for `seconds`."""

    percent: float
    seconds: float


@dataclass(frozen=True)
class Request:
    """One wish of an operator. `source` says where it came from (`signal HUP`, `file`, `api uid 0`)."""

    verb: Verb
    source: str
    target: str = ""
    canary: Canary | None = None


class Result(StrEnum):
    """How a request ended."""

    OK = "ok"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    CANCELLED = "cancelled"


def result_of(error: SupervisorError) -> Result:
    """How a request ended that raised this."""
    match error:
        case RejectedError():
            return Result.REJECTED
        case RolledBackError():
            return Result.ROLLED_BACK
        case StoppingError():
            return Result.CANCELLED
    return Result.FAILED


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The answer to a request; durations in seconds, `phases` by name."""

    result: Result
    reason: str = ""
    elapsed_seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether what was asked for happened."""
        return self.result is Result.OK

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "result": self.result.value}
