"""The status document: a fold over events, so that nobody has to be asked how things stand."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

from supervisor.core import events
from supervisor.core.events import Event, GenerationState, Health, OverallState, ServiceState

_WARNINGS_KEPT = 20
_GONE = frozenset({GenerationState.STOPPED, GenerationState.FAILED})
# Which of several generations alive at once an app's row shows: the one users reach, else the one on its way there.
_SHOWN_FIRST = (
    GenerationState.SERVING,
    GenerationState.READY,
    GenerationState.STARTING,
    GenerationState.WARM,
    GenerationState.DRAINING,
    GenerationState.STOPPED,
    GenerationState.FAILED,
)


@dataclass
class _Service:
    service: str
    state: ServiceState = ServiceState.STOPPED
    health: Health = Health.NONE
    reason: str = ""
    pid: int | None = None
    restarts: int = 0
    error: str = ""
    since: float = 0.0

    def row(self, now: float) -> dict[str, Any]:
        return {
            "service": self.service,
            "state": self.state.value,
            "health": self.health.value,
            "reason": self.reason,
            "pid": self.pid,
            "restarts": self.restarts,
            "for_seconds": _rounded(now - self.since),
            "error": self.error,
        }


@dataclass
class _Generation:
    number: int
    state: GenerationState
    reason: str = ""
    pid: int | None = None
    since: float = 0.0


@dataclass
class _App:
    app: str
    since: float
    generations: dict[int, _Generation] = field(default_factory=dict)
    health: Health = Health.NONE
    restarts: int = 0
    error: str = ""
    route: dict[str, str] = field(default_factory=dict)
    held: bool = False
    front: dict[str, Any] = field(default_factory=dict)
    release: dict[str, Any] = field(default_factory=dict)

    def shown(self) -> _Generation | None:
        ranked = sorted(self.generations.values(), key=lambda one: (_SHOWN_FIRST.index(one.state), -one.number))
        return ranked[0] if ranked else None

    def row(self, now: float) -> dict[str, Any]:
        shown = self.shown() or _Generation(0, GenerationState.STOPPED, since=self.since)
        return {
            "app": self.app,
            "state": shown.state.value,
            "generation": shown.number,
            "health": self.health.value,
            "pid": shown.pid,
            "restarts": self.restarts,
            "reason": shown.reason,
            "route": self.route,
            "for_seconds": _rounded(now - shown.since),
            "held": self.held,
            "front": self.front,
            "release": self.release,
            "error": self.error,
        }


@dataclass
class _Phase:
    phase: str
    started: float
    elapsed_seconds: float | None = None
    state: str = "running"
    detail: str = ""

    def row(self, now: float) -> dict[str, Any]:
        elapsed = now - self.started if self.elapsed_seconds is None else self.elapsed_seconds
        row = {"phase": self.phase, "elapsed_seconds": _rounded(elapsed), "state": self.state}
        return row | ({"detail": self.detail} if self.detail else {})


class StatusFold:
    """`publish` is an event subscriber; `as_dict` gives the document, JSON-ready, at any time.

    `services` and `apps` are the names known before their first event. `orphans_reaped`, `output_dropped` and
    `log_lines_lost` are read when asked: counts that move too often for an event each. `clock` is monotonic seconds.
    """

    def __init__(
        self,
        *,
        services: Iterable[str] = (),
        apps: Iterable[str] = (),
        orphans_reaped: Callable[[], int] = lambda: 0,
        output_dropped: Callable[[], list[dict[str, Any]]] = list,
        log_lines_lost: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._orphans_reaped = orphans_reaped
        self._output_dropped = output_dropped
        self._log_lines_lost = log_lines_lost
        self._began = clock()
        self._identity: dict[str, Any] = {"version": "", "pid": 0, "mode": "", "reaping": ""}
        self._state = OverallState.INITIALIZING
        self._reason = ""
        self._services = {name: _Service(name, since=self._began) for name in services}
        self._apps = {name: _App(name, since=self._began) for name in apps}
        self._phases: dict[str, _Phase] = {}
        self._boot_seconds: float | None = None
        self._addresses: dict[str, str] = {}
        self._migrations: dict[str, Any] = {}
        self._last_reload: dict[str, Any] = {}
        self._reloads = {"ok": 0, "failed": 0}
        self._hooks: dict[str, dict[str, Any]] = {}
        self._warnings: deque[dict[str, Any]] = deque(maxlen=_WARNINGS_KEPT)

    @property
    def state(self) -> OverallState:
        """The overall state."""
        return self._state

    def publish(self, event: Event) -> None:
        """Take an event in."""
        self._fold(event)
        if isinstance(event, events.Warned | events.FileKept | events.LeftoverStopped):
            self._warnings.append(event.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The whole document; durations in seconds."""
        now = self._clock()
        boot_seconds = now - self._began if self._boot_seconds is None else self._boot_seconds
        return {
            **self._identity,
            "state": self._state.value,
            "reason": self._reason,
            "uptime_seconds": _rounded(now - self._began),
            "services": [service.row(now) for service in self._services.values()],
            "apps": [app.row(now) for app in self._apps.values()],
            "boot": {
                "phases": [phase.row(now) for phase in self._phases.values()],
                "elapsed_seconds": _rounded(boot_seconds),
            },
            "addresses": self._addresses,
            "migrations": self._migrations,
            "last_reload": self._last_reload,
            "reloads": dict(self._reloads),
            "hooks": list(self._hooks.values()),
            "warnings": list(self._warnings),
            "orphans_reaped": self._orphans_reaped(),
            "output_dropped": self._output_dropped(),
            "log_lines_lost": self._log_lines_lost(),
        }

    def _service(self, name: str) -> _Service:
        return self._services.setdefault(name, _Service(name, since=self._clock()))

    def _app(self, name: str) -> _App:
        return self._apps.setdefault(name, _App(name, since=self._clock()))

    @singledispatchmethod
    def _fold(self, event: Event) -> None:
        """An event without a rule below changes nothing."""

    @_fold.register
    def _(self, event: events.SupervisorStarted) -> None:
        self._identity = {"version": event.version, "pid": event.pid, "mode": event.mode, "reaping": event.reaping}

    @_fold.register
    def _(self, event: events.ModeChosen) -> None:
        self._identity |= {"mode": event.mode, "mode_reason": event.reason, "engine": event.engine}
        for name in event.services:
            self._service(name)

    @_fold.register
    def _(self, event: events.OverallChanged) -> None:
        self._state, self._reason = event.state, event.reason
        if event.state in (OverallState.FAILED, OverallState.STOPPING) and self._boot_seconds is None:
            self._boot_seconds = self._clock() - self._began
            ended_as = "failed" if event.state is OverallState.FAILED else "interrupted"
            for phase in self._phases.values():
                if phase.state == "running":
                    phase.state, phase.elapsed_seconds = ended_as, self._clock() - phase.started

    @_fold.register
    def _(self, event: events.PhaseStarted) -> None:
        self._phases[event.phase] = _Phase(event.phase, self._clock())

    @_fold.register
    def _(self, event: events.PhaseFinished) -> None:
        phase = self._phases.setdefault(event.phase, _Phase(event.phase, self._clock()))
        phase.state, phase.elapsed_seconds, phase.detail = "done", event.elapsed_seconds, event.detail

    @_fold.register
    def _(self, event: events.BootFinished) -> None:
        self._boot_seconds = event.elapsed_seconds
        self._addresses = dict(event.addresses)

    @_fold.register
    def _(self, event: events.ServiceChanged) -> None:
        service = self._service(event.service)
        if event.state is ServiceState.STARTING and service.state in (ServiceState.BACKOFF, ServiceState.FAILED):
            service.restarts += 1
        if event.state in (ServiceState.STOPPED, ServiceState.FAILED, ServiceState.BACKOFF):
            service.pid, service.health = None, Health.NONE
        if event.state is ServiceState.RUNNING:
            service.error = ""
        service.pid = event.pid or service.pid
        service.state, service.reason, service.since = event.state, event.reason, self._clock()

    @_fold.register
    def _(self, event: events.ServiceHealthChanged) -> None:
        service = self._service(event.service)
        service.health, service.error = event.health, event.error

    @_fold.register
    def _(self, event: events.ServiceGaveUp) -> None:
        self._service(event.service).error = event.error

    @_fold.register
    def _(self, event: events.GenerationChanged) -> None:
        app = self._app(event.app)
        generation = app.generations.setdefault(event.generation, _Generation(event.generation, event.state))
        generation.pid = None if event.state in _GONE else event.pid or generation.pid
        generation.state, generation.reason, generation.since = event.state, event.reason, self._clock()
        newest = max(app.generations)
        app.generations = {
            number: one for number, one in app.generations.items() if number == newest or one.state not in _GONE
        }
        if event.state is GenerationState.SERVING:
            # The gate proved it; its health is told again only when it changes.
            app.held, app.error, app.health = False, "", Health.HEALTHY
        if (shown := app.shown()) is not None and shown.state in _GONE:
            app.health = Health.NONE

    @_fold.register
    def _(self, event: events.AppHealthChanged) -> None:
        app = self._app(event.app)
        app.health, app.error = event.health, event.error

    @_fold.register
    def _(self, event: events.FrontChosen) -> None:
        self._app(event.app).front = {
            "kind": event.kind,
            "reason": event.reason,
            "lossy": event.lossy,
            "promises": event.promises,
        }

    @_fold.register
    def _(self, event: events.ReleaseActive) -> None:
        self._app(event.app).release = {
            "release": event.release,
            "signed_by": event.key,
            "trial": event.trial,
            "good": event.good,
        }

    @_fold.register
    def _(self, event: events.AppHeld) -> None:
        app = self._app(event.app)
        app.held, app.error = True, event.reason

    @_fold.register
    def _(self, event: events.AppRestarting) -> None:
        self._app(event.app).restarts += 1

    @_fold.register
    def _(self, event: events.RouteChanged) -> None:
        route = {"health": event.health.value, "url": event.url, "error": event.error}
        self._app(event.app).route = {key: value for key, value in route.items() if value}

    @_fold.register
    def _(self, event: events.MigrationsFinished) -> None:
        self._migrations = _without_name(event)

    @_fold.register
    def _(self, event: events.ReloadFinished) -> None:
        self._last_reload = _without_name(event)
        self._reloads["ok" if event.result == "ok" else "failed"] += 1

    @_fold.register
    def _(self, event: events.HookFinished) -> None:
        self._hooks[event.hook] = _without_name(event)


def _without_name(event: Event) -> dict[str, Any]:
    values = event.as_dict()
    del values["event"]
    return values


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
