"""What the engine's event stream carries, and when a broken one is opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0


@dataclass(frozen=True)
class EngineEvent:
    """One event: `kind` (container, service, node, ...), `action` (`die`, `health_status: healthy`), whose and what."""

    kind: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_nanoseconds: int = 0
    """The engine's wall clock."""

    @classmethod
    def parse(cls, line: Mapping[str, Any]) -> EngineEvent:
        """An event as the API words it."""
        actor = line.get("Actor") or {}
        return cls(
            kind=str(line.get("Type", "")),
            action=str(line.get("Action", "")),
            id=str(actor.get("ID", "")),
            attributes=actor.get("Attributes") or {},
            time_nanoseconds=int(line.get("timeNano", 0)),
        )


@dataclass(frozen=True)
class Opened:
    """From here on events come: read the state anew, as some may have been missed."""


@dataclass(frozen=True)
class Lost:
    """No more events come until the next Opened."""

    reason: str


StreamItem = EngineEvent | Opened | Lost


def retry_delay(failures: int) -> float:
    """Seconds before the next try after so many in a row failed."""
    return min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 16))
