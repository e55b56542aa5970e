"""The overall state: one word for everything, folded from events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from supervisor.core.events import (
    AppHealthChanged,
    AppHeld,
    AppRestarting,
    BootFinished,
    Event,
    GenerationChanged,
    GenerationState,
    Health,
    OverallChanged,
    OverallState,
    Publish,
    RouteChanged,
    ServiceChanged,
    ServiceHealthChanged,
    ServiceState,
    SupervisorStarted,
)

_BROKEN = frozenset({ServiceState.FAILED, ServiceState.BACKOFF, ServiceState.STARTING})


@dataclass
class Facts:
    """What the decision needs."""

    apps: tuple[str, ...] = ("app",)
    started: bool = False
    booted: bool = False
    stopping: bool = False
    serving: set[tuple[str, int]] = field(default_factory=set)
    """App and number of each generation that requests go to."""
    held: dict[str, str] = field(default_factory=dict)
    """Why an app is held, by its name."""
    states: dict[str, tuple[ServiceState, str]] = field(default_factory=dict)
    healths: dict[str, tuple[Health, str]] = field(default_factory=dict)

    def follow(self, event: GenerationChanged | AppRestarting | AppHeld) -> None:
        """Note who serves. A new try of a held app changes nothing before it serves."""
        if isinstance(event, GenerationChanged):
            self.serving.discard((event.app, event.generation))
            if event.state is GenerationState.SERVING:
                self.serving.add((event.app, event.generation))
                self.held.pop(event.app, None)
            return
        self.serving = {one for one in self.serving if one[0] != event.app}
        if isinstance(event, AppHeld):
            self.held[event.app] = event.reason

    def why_held(self) -> str:
        """Of one app alone the reason only."""
        if len(self.apps) == 1:
            return "".join(self.held.values())
        return "; ".join(f"{app}: {why}" for app, why in sorted(self.held.items()))

    def silent(self) -> dict[str, str]:
        """Apps that do not serve, and why."""
        serving = {app for app, _ in self.serving}
        return {app: self.held.get(app, "it does not serve") for app in self.apps if app not in serving}

    def broken(self) -> dict[str, str]:
        """What does not work, by name, and why. A service stopped by hand is not broken."""
        by_state = {name: why or state.value for name, (state, why) in self.states.items() if state in _BROKEN}
        by_health = {name: why or bad.value for name, (bad, why) in self.healths.items() if bad is Health.UNHEALTHY}
        return {**by_state, **by_health}


def decide(facts: Facts) -> tuple[OverallState, str]:
    """The state and why. `running` needs the boot done, the app serving, every service and route healthy."""
    if facts.stopping:
        return OverallState.STOPPING, ""
    if not facts.started:
        return OverallState.INITIALIZING, ""
    if facts.held and len(facts.held) == len(facts.apps):
        return OverallState.FAILED, facts.why_held()
    if not facts.booted:
        return OverallState.STARTING, ""
    if not facts.serving:
        return OverallState.DEGRADED, "the app does not serve"
    broken = {**facts.silent(), **facts.broken()}
    if broken:
        return OverallState.DEGRADED, "; ".join(f"{name}: {why}" for name, why in sorted(broken.items()))
    return OverallState.RUNNING, ""


class OverallFold:
    """Subscribe it last: it publishes its own event from within others."""

    def __init__(self, publish: Publish, *, apps: Iterable[str] = ("app",)) -> None:
        self._publish = publish
        self._facts = Facts(apps=tuple(apps))
        self.state, self.reason = decide(self._facts)

    def stopping(self) -> None:
        """An orderly stop began."""
        self._facts.stopping = True
        self._update()

    def __call__(self, event: Event) -> None:
        """Fold one event."""
        facts = self._facts
        match event:
            case SupervisorStarted():
                facts.started = True
            case BootFinished():
                facts.booted = True
            case ServiceChanged(service=name, state=state, reason=reason):
                facts.states[name] = state, reason
            case ServiceHealthChanged(service=name, health=health, error=error):
                facts.healths[name] = health, error
            case GenerationChanged() | AppRestarting() | AppHeld():
                facts.follow(event)
            case AppHealthChanged(app=app, health=health, error=error):
                facts.healths[app] = health, error
            case RouteChanged(app=app, health=health, error=error):
                facts.healths[f"route:{app}"] = health, error
            case _:
                return
        self._update()

    def _update(self) -> None:
        state, reason = decide(self._facts)
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._publish(OverallChanged(state=state, reason=reason))
