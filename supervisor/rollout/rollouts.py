"""The releases of all apps: opened at the boot, connected with what serves them, watched from then on. Wiring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from anyio.abc import TaskGroup

from supervisor.core.events import Event, Publish
from supervisor.core.settings import Settings
from supervisor.planning.home import AppHome
from supervisor.planning.part import AppPart
from supervisor.process.reaper import Reaper
from supervisor.rollout.app_releases import AppReleases
from supervisor.rollout.candidate import Turn
from supervisor.rollout.desk import ReleaseDesk
from supervisor.rollout.inbox import Inbox


class Rollouts:
    """`open` first, then `connect`, then `watch`. `subscribe` takes who wants to see all events."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        *,
        environ: Mapping[str, str],
        reaper: Reaper,
        turn: Turn,
        publish: Publish,
        subscribe: Callable[[Callable[[Event], None]], object],
    ) -> None:
        self._publish = publish
        self.by_app: dict[str, AppReleases] = {}
        self._desks: dict[str, ReleaseDesk] = {}
        for app in settings.app_names:
            own = settings.for_app(app)
            releases = AppReleases(app, own, state_dir, environ=environ, reaper=reaper, turn=turn, publish=publish)
            subscribe(releases.observe)
            self.by_app[app] = releases
            self._desks[app] = ReleaseDesk(releases, own, publish)

    async def open(self) -> dict[str, AppHome]:
        """Put in order what an earlier run left; gives what each app is to run from."""
        return {app: await releases.open() for app, releases in self.by_app.items()}

    def connect(self, parts: Iterable[AppPart]) -> None:
        """From now on releases can be applied."""
        for part in parts:
            self.by_app[part.name].connect(part)

    def desk(self, app: str) -> ReleaseDesk | None:
        """Who takes orders for an app; None where there is no such app, or it is not connected yet."""
        return self._desks[app] if app in self._desks and self.by_app[app].is_connected else None

    def watch(self, group: TaskGroup) -> None:
        """Their probations and inboxes, as tasks of `group`."""
        for app, releases in self.by_app.items():
            group.start_soon(releases.watch)
            group.start_soon(Inbox(releases.layout.incoming, self._desks[app], self._publish).run)
