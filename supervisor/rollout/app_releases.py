"""The releases of one app, connected with what serves it. Wiring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

from supervisor.core.errors import RejectedError, SupervisorError
from supervisor.core.events import Event, Notice, Publish, ReleaseActive, Warned
from supervisor.core.requests import Outcome, Result, result_of
from supervisor.core.settings import Settings
from supervisor.planning.home import AppHome
from supervisor.planning.part import AppPart
from supervisor.planning.plan import AppPlan
from supervisor.process.reaper import Reaper
from supervisor.releases.base import Base
from supervisor.releases.layout import Layout
from supervisor.releases.model import BAKED, of_disk
from supervisor.releases.room import Room
from supervisor.releases.steps import Admitted, Report, Steps
from supervisor.releases.updates import Updates
from supervisor.rollout.candidate import Trial, Turn
from supervisor.rollout.database import Database
from supervisor.rollout.homes import Homes
from supervisor.rollout.mounting import prove_mounting
from supervisor.rollout.probation import Probation
from supervisor.rollout.runtimes import versions
from supervisor.rollout.unpacking import Unpacking


def now() -> str:
    """The time in UTC, as records have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class AppReleases:
    """What may be asked of the releases of one app, each with its outcome. `open` first, then `connect`."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        state_dir: Path,
        *,
        environ: Mapping[str, str],
        reaper: Reaper,
        turn: Turn,
        publish: Publish,
    ) -> None:
        self.name = name
        self.layout = Layout(state_dir / "releases" / name)
        self.updates = Updates(self.layout, now=now, live=self._live, keep=settings.release_keep)
        self.reaper = reaper
        self._settings = settings
        self._environ = environ
        self._base = Base(settings.app_dir, self.layout.base / "tree")
        self._turn = turn
        self._publish = publish
        self._homes = Homes(settings, self.updates, self._base, publish)
        self._part: AppPart | None = None
        self._told: ReleaseActive | None = None
        self._probation = Probation(
            name, self.updates, settings.release_probation_seconds, go_back=self._go_back, publish=publish
        )
        self.observe: Callable[[Event], None] = self._probation.observe
        """Subscriber: what becomes of a release on trial."""

    def _live(self) -> set[str]:
        """Releases that generations may run from: a bake's end and a drain are never longer than a few minutes."""
        home = self._part.plan.home if self._part is not None else AppHome()
        return {home.tree.name} if home.tree is not None else set()

    async def open(self) -> AppHome:
        """Put in order what an earlier run left; gives what the app is to run from."""
        for text in await self.updates.open():
            self._publish(Warned(message=text))
        await anyio.to_thread.run_sync(self._base.prepare)
        if self._settings.release_mount:
            await prove_mounting(self.layout, self._settings.app_dir, self.reaper, self._environ)
        return await self._homes.first()

    def connect(self, part: AppPart) -> None:
        """From now on releases can be applied."""
        self._part = part

    @property
    def is_connected(self) -> bool:
        """Whether `connect` was called."""
        return self._part is not None

    def _connected(self) -> AppPart:
        if self._part is None:
            raise RejectedError("the stack still boots; wait for it")
        return self._part

    def is_on_trial(self) -> bool:
        """Whether what is active was not confirmed yet."""
        return self.updates.state.trial

    async def retreat(self, reason: str) -> AppPlan | None:
        """Give up a release on trial that does not start; gives the plan of the good one, None without a trial."""
        if self._part is None or not await self.updates.give_up_trial(reason):
            return None
        self._publish(Warned(message=f"the release on trial did not start and is rolled back: {reason}"))
        return self._part.plan_in(await self._homes.active())

    async def runtimes(self, names: Iterable[str]) -> dict[str, str]:
        """The versions of those of the programs that we know and that are here, as the app would find them."""
        return await versions(names, self._connected().plan.environment, self.reaper)

    def _database(self) -> Database:
        return Database(
            name=self.name,
            part=self._connected(),
            layout=self.layout,
            turn=self._turn,
            publish=self._publish,
            now=now,
        )

    def _steps(self) -> Steps:
        part, database = self._connected(), self._database()
        identity = part.plan.environment.identity
        return Steps(
            unpack=Unpacking(self.name, self.reaper, self._publish),
            fill=self._base,
            schema=database,
            candidate=Trial(self.name, part, self._turn, self._settings.release_bake_seconds),
            space=Room(self.layout.root, self.updates.make_room, database.bytes_needed),
            owner=(identity.uid, identity.gid) if identity is not None else None,
        )

    async def apply(self, admitted: Admitted, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        """Bring a release into service."""

        async def work(report: Report) -> Report:
            return await self.updates.apply(admitted, blocks, self._steps(), actor=actor, report=report)

        outcome = await self._outcome(work)
        if outcome.ok:
            await self._homes.note_image()
        return outcome

    async def roll_back(self, target: str, actor: str) -> Outcome:
        """Back to a release that was good before; from one in its bake to the one it replaces, at once."""
        reason = f"rolled back by {actor}"
        if not target and self._part is not None and self._part.app.reject(reason):
            started, before = anyio.current_time(), self.updates.state.active
            await self.updates.at_rest()
            return Outcome(
                result=Result.OK,
                reason="the update that was in hand ended as rolled back",
                elapsed_seconds=round(anyio.current_time() - started, 3),
                detail={"release": self.updates.state.active, "before": before},
            )
        return await self._outcome(lambda _: self.updates.roll_back(target, self._steps(), actor=actor))

    async def _go_back(self) -> Outcome:
        return await self.roll_back("", "probation")

    async def confirm(self) -> Outcome:
        """End the trial that is running: it is good."""
        if await self.updates.confirm():
            self._probation.news()
            return Outcome(result=Result.OK, detail={"release": self.updates.state.good})
        return Outcome(result=Result.REJECTED, reason="no release is on trial")

    async def contract(self, actor: str, *, give_up: bool) -> Outcome:
        """Apply what is due of contract migrations; `give_up` ways back that may not live on the database then."""
        names: tuple[str, ...] = ()

        async def work(_: Report) -> Report:
            nonlocal names
            self._check_serves_active()
            names = await self.updates.contract(self._database(), give_up=give_up, actor=actor)
            return Report(release=self.updates.state.active, before=self.updates.state.active)

        outcome = await self._outcome(work)
        if not outcome.ok:
            return outcome
        told = f"applied {', '.join(names)}" if names else "no contract migrations are due"
        return replace(outcome, reason=told, detail={**outcome.detail, "applied": list(names)})

    def _check_serves_active(self) -> None:
        """What is due is known of what serves, which is not what the state says where that cannot be used."""
        home = self._connected().plan.home
        if (home.tree.name if home.tree is not None else BAKED) != self.updates.state.active:
            raise RejectedError(
                f"contract migrations are not applied: release {self.updates.state.active} is active and cannot be "
                f"used on this image, so another serves; apply a release that can"
            )

    async def due(self) -> tuple[str, ...]:
        """Contract migrations of what serves that nobody has applied yet. Raises MigrationError, UnreachableError."""
        return await self._database().due() or ()

    async def _tell_due(self, release: str) -> None:
        try:
            due = await self.due()
        except SupervisorError as error:
            self._publish(Warned(message=f"whether contract migrations are due is not known: {error}"))
            return
        if due:
            self._publish(
                Notice(
                    message=f"release {release} is good, and contract migrations are due: {', '.join(due)}; apply them "
                    f"with `supervisor release contract` when there is no need to go back any more"
                )
            )

    async def _outcome(self, work: Callable[[Report], Awaitable[Report]]) -> Outcome:
        """What `work` came to; of what failed the report that it was given says how far it came."""
        started = anyio.current_time()
        report, result, reason = Report(), Result.OK, ""
        try:
            report = await work(report)
        except SupervisorError as error:
            result, reason = result_of(error), str(error)
        except OSError as error:
            result, reason = Result.FAILED, of_disk(error)
        self._probation.news()
        return Outcome(
            result=result,
            reason=reason,
            elapsed_seconds=round(anyio.current_time() - started, 3),
            phases=report.phases,
            detail={"release": report.release, "before": report.before, "active": self.updates.state.active},
        )

    async def _tell_active(self) -> None:
        """What the app runs from, which is not what the state says where that cannot be used."""
        state = self.updates.state
        home = self._connected().plan.home
        release = home.tree.name if home.tree is not None else BAKED
        known = state.releases.get(release)
        told = ReleaseActive(
            app=self.name,
            release=release,
            key=known.key if known is not None else "",
            trial=state.trial and release == state.active,
            good=state.good,
        )
        before, self._told = self._told, told
        if told != before:
            self._publish(told)
        if before is not None and told.good not in (before.good, BAKED):
            await self._tell_due(told.good)

    async def watch(self) -> None:
        """Confirm what held for the probation, and go back from what did not. Until cancelled."""
        await self.updates.tidy()  # after the boot, as deleting takes its time
        await self._probation.watch(self._tell_active)
