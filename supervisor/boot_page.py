"""What clients are told while the boot goes on: its phases and what is awaited, folded from events. Wiring."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.app.front.model import Holding
from supervisor.core.events import (
    AppHeld,
    BootFinished,
    Event,
    GenerationChanged,
    GenerationState,
    PhaseFinished,
    PhaseStarted,
    ServiceChanged,
    ServiceState,
)

_WORDS = {
    "engine": "the container engine",
    "services": "the services",
    "proxy": "Traefik",
    "places": "the apps' places in the services",
    "migrations": "migrations",
    "app": "the app",
    "route": "the route to the app",
}


class BootPage:
    """`publish` is an event subscriber; `tell` hands on what clients are told, until the boot is through."""

    def __init__(self, tell: Callable[[Holding], None]) -> None:
        self._tell = tell
        self._phases: dict[str, bool] = {}
        self._services: dict[str, bool] = {}
        self._reason = ""
        self._over = False

    def publish(self, event: Event) -> None:
        """Take an event in."""
        if self._over or not self._fold(event):
            return
        self._tell(self._holding())

    def _fold(self, event: Event) -> bool:
        """Whether it changed what there is to tell."""
        match event:
            case PhaseStarted(phase=phase):
                self._phases[phase] = False
            case PhaseFinished(phase=phase):
                self._phases[phase] = True
            case ServiceChanged(service=service, state=state, reason=reason):
                self._services[service] = state is ServiceState.RUNNING
                self._reason = reason if state is ServiceState.BACKOFF else ""
            case GenerationChanged(state=GenerationState.FAILED, reason=reason):
                self._reason = f"the app: {reason}"
            case BootFinished() | AppHeld():
                self._over = True
                return False
            case _:
                return False
        return True

    def _holding(self) -> Holding:
        """Services by name stand for the phase that waits for them."""
        rows = {_WORDS.get(phase, phase): done for phase, done in self._phases.items() if not self._is_named(phase)}
        rows |= self._services
        return Holding(
            "starting",
            self._reason,
            waiting=tuple(name for name, done in rows.items() if not done),
            done=tuple(name for name, done in rows.items() if done),
        )

    def _is_named(self, phase: str) -> bool:
        return phase in ("services", "proxy") and bool(self._services)
