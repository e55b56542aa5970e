"""What a release on trial must hold after its bake: some time without crashing again and again. Wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from supervisor.core.errors import SupervisorError
from supervisor.core.events import AppHeld, AppRestarting, Event, Notice, Publish, Warned
from supervisor.core.requests import Outcome
from supervisor.releases.updates import Updates

_CRASHES, _CRASH_SECONDS = 3, 60.0


class Probation:
    """Confirms what held for `seconds`, and goes back from what did not. `news` when anything about a trial changed."""

    def __init__(
        self, app: str, updates: Updates, seconds: float, *, go_back: Callable[[], Awaitable[Outcome]], publish: Publish
    ) -> None:
        self._app = app
        self._updates = updates
        self._seconds = seconds
        self._go_back = go_back
        self._publish = publish
        self._changed = anyio.Event()
        self._crashes: list[float] = []
        self._broken = False

    def news(self) -> None:
        """A trial began or ended: what was counted before does not count."""
        self._changed.set()

    def observe(self, event: Event) -> None:
        """Subscriber: a release on trial that crashes again and again, or gives up, did not hold."""
        if not isinstance(event, AppRestarting | AppHeld) or event.app != self._app or not self._updates.state.trial:
            return
        now = anyio.current_time()
        self._crashes = [at for at in self._crashes if now - at < _CRASH_SECONDS] + [now]
        if isinstance(event, AppHeld) or len(self._crashes) >= _CRASHES:
            self._broken = True
            self._changed.set()

    async def watch(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled; `tell` is called at the beginning and after each change."""
        while True:
            # Before it is told, which may take its time: what happens meanwhile counts.
            self._changed, self._broken, self._crashes = anyio.Event(), False, []
            await tell()
            state = self._updates.state
            with anyio.move_on_after(self._seconds if state.trial else None):
                await self._changed.wait()
                if self._broken:
                    await self._leave()
                continue
            # Its time is over, and nothing else began meanwhile: that would have been news.
            await self._confirm(state.active)

    async def _confirm(self, release: str) -> None:
        """What cannot be written down leaves it on trial, for another probation."""
        try:
            if await self._updates.confirm():
                self._publish(Notice(message=f"release {release} held, and is good from now on"))
        except SupervisorError as error:
            self._publish(Warned(message=f"release {release} held, and stays on trial: {error}"))

    async def _leave(self) -> None:
        outcome = await self._go_back()
        if not outcome.ok:
            self._publish(
                Warned(message=f"the release on trial did not hold, and there is no way back: {outcome.reason}")
            )
