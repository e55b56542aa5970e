"""One run of the app: its states, and the process behind it."""

from __future__ import annotations

import time

from supervisor.core.events import GenerationChanged, GenerationState, Publish
from supervisor.core.machine import Machine
from supervisor.process.child import Child

G = GenerationState
MOVES: dict[GenerationState, frozenset[GenerationState]] = {
    G.STARTING: frozenset({G.READY, G.FAILED, G.DRAINING, G.STOPPED}),
    G.READY: frozenset({G.SERVING, G.FAILED, G.DRAINING, G.STOPPED}),
    G.SERVING: frozenset({G.WARM, G.DRAINING, G.FAILED, G.STOPPED}),
    G.WARM: frozenset({G.SERVING, G.DRAINING, G.FAILED, G.STOPPED}),
    G.DRAINING: frozenset({G.STOPPED}),
    G.STOPPED: frozenset(),
    G.FAILED: frozenset(),
}


class Generation:
    """One run of an app, numbered from 1 over the life of the supervisor. Owns no task: `App` drives it."""

    def __init__(self, app: str, number: int, child: Child, publish: Publish) -> None:
        self.number = number
        self.child = child
        self._app = app
        self._publish = publish
        self._machine = Machine(G.STARTING, MOVES, self._moved)
        self._served_since: float | None = None
        self._announce(G.STARTING, "")

    @property
    def state(self) -> GenerationState:
        """The state now."""
        return self._machine.state

    @property
    def is_serving(self) -> bool:
        """Whether requests go to it."""
        return self.state is G.SERVING

    @property
    def served_seconds(self) -> float:
        """How long it has served; 0 before."""
        return time.monotonic() - self._served_since if self._served_since is not None else 0.0

    def ready(self, reason: str) -> None:
        """It passed the gate. Like `serve` and `warm` nothing where it failed meanwhile: news come in any order."""
        self._move(G.READY, reason)

    def serve(self) -> None:
        """Requests go to it from now on."""
        if self._served_since is None:
            self._served_since = time.monotonic()
        self._move(G.SERVING)

    def warm(self, reason: str) -> None:
        """Requests go to another one; it is kept for a switch back."""
        self._move(G.WARM, reason)

    def drain(self, reason: str) -> None:
        """It finishes what it has, and ends."""
        self._move(G.DRAINING, reason)

    def fail(self, reason: str) -> None:
        """It crashed, hung, or did not pass the gate."""
        self._move(G.FAILED, reason)

    async def stop(self, grace_seconds: float, reason: str) -> None:
        """Stop signal, grace, KILL; the tree is empty when this returns. A failed one is cleaned up all the same."""
        self.drain(reason)
        if self.child.alive or self.child.survivors:
            await self.child.stop(grace_seconds=grace_seconds)
        self._move(G.STOPPED, str(self.child.exit or ""))

    def _move(self, state: GenerationState, reason: str = "") -> None:
        if self._machine.can(state):
            self._machine.to(state, reason)

    def _moved(self, old: GenerationState, new: GenerationState, reason: str) -> None:
        self._announce(new, reason)

    def _announce(self, state: GenerationState, reason: str) -> None:
        end = self.child.exit
        self._publish(
            GenerationChanged(
                app=self._app,
                generation=self.number,
                state=state,
                reason=reason,
                pid=self.child.pid if self.child.alive else None,
                exit_code=end.code if end else None,
                signal=end.signal_name if end else None,
                elapsed_seconds=round(time.monotonic() - self.child.started, 3),
            )
        )
