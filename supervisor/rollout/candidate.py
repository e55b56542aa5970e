"""A release is tried out in a turn of the controller, by the same gate, switch and bake as any reload. Wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.app.app import App
from supervisor.app.spec import AppSpec
from supervisor.core.errors import RejectedError, RolledBackError, SupervisorError
from supervisor.core.requests import Request, Verb
from supervisor.planning.home import AppHome
from supervisor.planning.part import AppPart
from supervisor.planning.plan import AppPlan
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import of_disk

Turn = Callable[[Request, Callable[[], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True)
class Trial:
    """Brings a release into service in a `turn` of the controller. See `Candidate`."""

    name: str
    part: AppPart
    turn: Turn
    bake_seconds: float

    async def try_out(
        self, tree: Path | None, manifest: Manifest | None, commit: Callable[[], Awaitable[None]]
    ) -> None:
        """Raises RejectedError where it never served, RolledBackError where the old one serves again."""
        home = AppHome(tree, manifest)

        async def work() -> None:
            await self._work(home, commit)

        await self.turn(Request(Verb.RELOAD, "release", self.name), work)

    async def _work(self, home: AppHome, commit: Callable[[], Awaitable[None]]) -> None:
        app, before = self.part.app, self.part.plan
        try:
            plan = self.part.plan_in(home)
        except SupervisorError as error:
            raise RejectedError(str(error)) from error
        try:
            await app.reload(self._patient(plan.spec), commit=_told(commit))
        except (RejectedError, RolledBackError):
            raise
        except SupervisorError as error:
            await self._start_again(app, before, str(error))
        self.part.plan = plan

    def _patient(self, spec: AppSpec) -> AppSpec:
        return replace(spec, limits=replace(spec.limits, bake_seconds=self.bake_seconds))

    @staticmethod
    async def _start_again(app: App, before: AppPlan, why: str) -> None:
        """One came after the other, and the new one does not serve: the old one is started again."""
        try:
            await app.reload(before.spec)
        except SupervisorError as error:
            raise RolledBackError(f"{why}; and the release before it does not start either: {error}") from error
        raise RolledBackError(why)


def _told(commit: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """A disk that fails is a reason against the release, not an error in the reload."""

    async def committed() -> None:
        try:
            await commit()
        except OSError as error:
            raise RejectedError(f"cannot write down that it is active, as the supervisor {of_disk(error)}") from error

    return committed
