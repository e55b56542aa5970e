"""What a call to the engine can end in; the client maps every foreign error to one of these."""

from __future__ import annotations

from supervisor.core.errors import ExitCode, SupervisorError, UnreachableError


class Unavailable(UnreachableError):
    """No answer: nothing listens, the connection broke, or the time limit passed. Trying again may help."""


class EngineRefused(SupervisorError):
    """The engine answered with an error. `status` is HTTP's, `message` the engine's own words.

    Branch on `/info` rather than on `status`: engines use 500 and 503 for many things.
    """

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, action: str, status: int, message: str) -> None:
        super().__init__(f"cannot {action}: the engine answered {status}: {message}")
        self.status = status
        self.message = message


class NotFound(EngineRefused):
    """There is no such object."""


class Conflict(EngineRefused):
    """The name is taken, or the object is in a state (or in use) that does not allow this."""


class OutOfSequence(EngineRefused):
    """An update was made from an old version of the object: read it again, compare again (HTTP 500 in truth)."""


class NotAManager(EngineRefused):
    """The node cannot take cluster calls: no Swarm, a worker, or a locked manager; `/info` says which."""


# Engines word these the same since 1.13; their statuses differ between versions.
_BY_TEXT: tuple[tuple[str, type[EngineRefused]], ...] = (
    ("update out of sequence", OutOfSequence),
    ("name conflicts with an existing object", Conflict),  # 500, from a manager that two asked at once
    ("not a swarm manager", NotAManager),
    ("needs to be unlocked", NotAManager),
)
_BY_STATUS: dict[int, type[EngineRefused]] = {404: NotFound, 409: Conflict}


def refusal(action: str, status: int, message: str) -> EngineRefused:
    """The error for an answer of 400 and above; `action` completes the sentence `cannot ...`."""
    lowered = message.lower()
    kind = next((kind for text, kind in _BY_TEXT if text in lowered), _BY_STATUS.get(status, EngineRefused))
    return kind(action, status, message.strip() or "no reason given")
