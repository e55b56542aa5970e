"""What happened, as typed values, and the bus that hands them to whoever folds them (log, status, event stream)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar


class ServiceState(StrEnum):
    """States of a service; the words are shown to people (research: systemd's and supervisord's in one list)."""

    STOPPED = "stopped"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class Health(StrEnum):
    """Health, a field beside the state, in Docker's words."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class GenerationState(StrEnum):
    """States of one run of the app."""

    STARTING = "starting"
    READY = "ready"
    SERVING = "serving"
    WARM = "warm"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class OverallState(StrEnum):
    """The supervisor as a whole, in systemd's words."""

    INITIALIZING = "initializing"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. `at` is UTC wall time, for people; durations are carried as `*_seconds` fields."""

    name: ClassVar[str] = "event"
    level: ClassVar[str] = "info"
    at: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON-ready values, empty ones left out."""
        values = {key: value for key, value in asdict(self).items() if value not in (None, "", (), {})}
        values["at"] = self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"event": self.name, **values}


@dataclass(frozen=True, kw_only=True)
class SupervisorStarted(Event):
    """The daemon's loop is up."""

    name: ClassVar[str] = "supervisor.started"
    version: str
    pid: int
    mode: str
    reaping: str


@dataclass(frozen=True, kw_only=True)
class OverallChanged(Event):
    """The overall state moved."""

    name: ClassVar[str] = "supervisor.state"
    state: OverallState
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PhaseStarted(Event):
    """A phase of the boot began."""

    name: ClassVar[str] = "boot.phase_started"
    phase: str


@dataclass(frozen=True, kw_only=True)
class PhaseFinished(Event):
    """A phase of the boot ended well; a failing one ends in the error that stops the boot."""

    name: ClassVar[str] = "boot.phase_finished"
    phase: str
    elapsed_seconds: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class BootFinished(Event):
    """The boot is through: the app serves and its route was asked, or the app is held."""

    name: ClassVar[str] = "boot.finished"
    elapsed_seconds: float
    addresses: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ServiceChanged(Event):
    """A service moved to another state."""

    name: ClassVar[str] = "service.state"
    service: str
    state: ServiceState
    reason: str = ""
    pid: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    restart_in_seconds: float | None = None
    elapsed_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ServiceHealthChanged(Event):
    """A probe's answer changed a service's health."""

    name: ClassVar[str] = "service.health"
    service: str
    health: Health
    error: str = ""
    attempts: int | None = None


@dataclass(frozen=True, kw_only=True)
class ServiceGaveUp(Event):
    """A service is given up, with what is known of why."""

    name: ClassVar[str] = "service.failed"
    level: ClassVar[str] = "error"
    service: str
    error: str
    report: str


@dataclass(frozen=True, kw_only=True)
class FrontChosen(Event):
    """How requests will reach an app, and why; `lossy` says what is lost that way, and the mend.

    `promises` is what that way keeps, row by row.
    """

    name: ClassVar[str] = "app.front"
    app: str
    kind: str
    reason: str
    lossy: str = ""
    promises: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GenerationChanged(Event):
    """A generation of an app moved to another state."""

    name: ClassVar[str] = "app.generation"
    app: str
    generation: int
    state: GenerationState
    reason: str = ""
    pid: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    elapsed_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class AppHealthChanged(Event):
    """Liveness of the serving generation changed."""

    name: ClassVar[str] = "app.health"
    app: str
    health: Health
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class AppHeld(Event):
    """The app gave up and is held: PID 1 stays, the port answers 503 with the reason."""

    name: ClassVar[str] = "app.held"
    level: ClassVar[str] = "error"
    app: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AppRestarting(Event):
    """The app crashed or hung and is started again; `lost` requests were in its hands, None: not known."""

    name: ClassVar[str] = "app.restarting"
    level: ClassVar[str] = "warning"
    app: str
    reason: str
    restart_in_seconds: float
    lost: int | None = None


@dataclass(frozen=True, kw_only=True)
class RouteChanged(Event):
    """The route through the proxy to an app was proved, or lost."""

    name: ClassVar[str] = "app.route"
    app: str
    health: Health
    url: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ReloadRequested(Event):
    """Somebody asked for a reload, of `target` or of all apps; `merged` when it joined one that waited."""

    name: ClassVar[str] = "reload.requested"
    source: str
    target: str = ""
    merged: bool = False


@dataclass(frozen=True, kw_only=True)
class ReloadFinished(Event):
    """A reload ended."""

    name: ClassVar[str] = "reload.finished"
    source: str
    result: str
    reason: str = ""
    elapsed_seconds: float = 0.0
    gap_seconds: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    apps: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MigrationsFinished(Event):
    """Pending migrations were applied; `applied` is empty when there were none."""

    name: ClassVar[str] = "migrations.finished"
    app: str
    kind: str
    applied: tuple[str, ...]
    already: int
    elapsed_seconds: float
    due: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReleaseActive(Event):
    """What the app runs from: `release` is its id (`baked`: the image's own), `key` who signed it (empty: nobody).

    `good` is the one that a trial would go back to.
    """

    name: ClassVar[str] = "release.active"
    app: str
    release: str
    key: str
    trial: bool
    good: str


@dataclass(frozen=True, kw_only=True)
class ReleaseUnpacking(Event):
    """A release is being unpacked: files and bytes that are there so far, of so many bytes; the rest at this speed."""

    name: ClassVar[str] = "release.unpacking"
    level: ClassVar[str] = "debug"
    app: str
    files: int
    bytes: int
    total_bytes: int
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class HookFinished(Event):
    """A post-start hook or the boot notification ended."""

    name: ClassVar[str] = "hook.finished"
    hook: str
    ok: bool
    detail: str = ""
    elapsed_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FileKept(Event):
    """A generated file was edited by the user and is kept as it is."""

    name: ClassVar[str] = "file.kept"
    level: ClassVar[str] = "warning"
    path: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class LeftoverStopped(Event):
    """A process left by an earlier supervisor was ended before anything new was started."""

    name: ClassVar[str] = "leftover.stopped"
    level: ClassVar[str] = "warning"
    process: str
    pid: int
    signal: str


@dataclass(frozen=True, kw_only=True)
class SecretRotated(Event):
    """A secret was to be changed; `result` says what became of it, `phases` how long each step took, in seconds."""

    name: ClassVar[str] = "secret.rotated"
    secret: str
    result: str
    reason: str = ""
    elapsed_seconds: float
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """Something the operator should know that is no state of anything."""

    name: ClassVar[str] = "notice"
    level: ClassVar[str] = "info"
    message: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class ModeChosen(Notice):
    """Where the services run is decided, once for a life. `message` is the line that people look for in the log.

    `services` are those of ours that will run here.
    """

    name: ClassVar[str] = "mode.chosen"
    mode: str
    reason: str
    owner: str = ""
    engine: str = ""
    evidence: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Warned(Notice):
    """A notice that deserves attention."""

    name: ClassVar[str] = "warning"
    level: ClassVar[str] = "warning"


@dataclass(frozen=True, kw_only=True)
class Errored(Notice):
    """Why the supervisor ends."""

    name: ClassVar[str] = "error"
    level: ClassVar[str] = "error"


Publish = Callable[[Event], None]


class EventBus:
    """Hands each event, in order, to every subscriber, synchronously. A subscriber must not block or raise."""

    def __init__(self) -> None:
        self._subscribers: list[Publish] = []

    def subscribe(self, subscriber: Publish) -> Callable[[], None]:
        """Add a subscriber; the returned function removes it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def publish(self, event: Event) -> None:
        """Hand `event` to all subscribers."""
        for subscriber in tuple(self._subscribers):
            subscriber(event)
