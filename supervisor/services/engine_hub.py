"""The engine's events for all who live by them: one connection, many listeners, and whether the engine answers now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
from anyio.abc import TaskStatus

from supervisor.engine.client import Engine
from supervisor.engine.errors import Unavailable
from supervisor.engine.events import Lost, Opened, StreamItem

UP_SECONDS = 60.0

Listener = Callable[[StreamItem], None]


class EngineHub:
    """Long-lived. `opened` counts the connections so far: what was read of the engine before the last may be stale.

    `engine_started` is when the last interruption ended; None while there was none.
    """

    def __init__(self, engine: Engine) -> None:
        self.opened = 0
        self.engine_started: datetime | None = None
        self._engine = engine
        self._listeners: list[Listener] = []
        self._up = anyio.Event()

    def subscribe(self, listener: Listener) -> None:
        """Have every item of the stream from now on; the listener must not block."""
        self._listeners.append(listener)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Pass events on until cancelled; reconnects without end."""
        async with self._engine.events() as items:
            task_status.started()
            async for item in items:
                self._take(item)

    def _take(self, item: StreamItem) -> None:
        if isinstance(item, Opened):
            self.opened += 1
            if self.opened > 1:
                self.engine_started = datetime.now(UTC)
            self._up.set()
        elif isinstance(item, Lost):
            self._up = anyio.Event()
        for listener in self._listeners:
            listener(item)

    async def wait_up(self) -> None:
        """Return once the engine answers; raises Unavailable after UP_SECONDS."""
        with anyio.move_on_after(UP_SECONDS):
            while not self._up.is_set():
                await self._up.wait()
            return
        raise Unavailable(
            f"cannot reach the engine at {self._engine.endpoint.url}: no answer for {UP_SECONDS:g} s; is it running?"
        )
