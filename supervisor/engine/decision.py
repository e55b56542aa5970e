"""What a look at the facts ends in: a mode, or a wait for facts that may come right by themselves. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode, Owner
from supervisor.engine.facts import EngineAddress


class CleanupKind(StrEnum):
    """What has to go before a dockerd of ours can start; done by whoever starts it, and logged."""

    REMOVE_EMPTY_DIRECTORY = "remove empty directory"
    UNLINK_FILE = "unlink file"
    UNLINK_STALE_SOCKET = "unlink stale socket"
    KILL_SILENT_ENGINE = "kill silent engine"


@dataclass(frozen=True)
class Cleanup:
    """One such thing: a path, or the pid of a daemon that is provably ours."""

    kind: CleanupKind
    path: str = ""
    pid: int = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The mode for the life of this supervisor; a later mismatch is a reconnect, never another mode."""

    mode: Mode
    row: int
    reason: str
    owner: Owner | None = None
    endpoint: EngineAddress | None = None
    evidence: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    cleanup: tuple[Cleanup, ...] = ()
    start_engine: bool = False
    """A dockerd of ours is to be started, after `cleanup`, on `endpoint`; else one serves there."""
    own_container: str = ""
    stop_seconds: int | None = None
    """Our container's own stop timeout, in socket mode where one is set."""

    @property
    def headline(self) -> str:
        """The line that `docker logs X | grep "Docker Mode"` is to find."""
        return f"Docker Mode: Running in {self.mode.upper()} mode"


@dataclass(frozen=True)
class Wait:
    """It may come right by itself: read the facts again, for up to `seconds` since the first wait."""

    row: int
    seconds: float
    error: EngineError
    """What it ends in when it does not."""

    @property
    def reason(self) -> str:
        """What is being waited for, code and all."""
        return str(self.error)
