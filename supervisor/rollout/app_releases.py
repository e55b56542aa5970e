"""The releases of one app, connected with what serves it: trials in turns of the controller, and probation. Wiring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

from supervisor.app.app import App
from supervisor.app.spec import AppSpec
from supervisor.app_home import AppHome
from supervisor.app_plan import AppPlan
from supervisor.core.errors import RejectedError, RolledBackError, SupervisorError
from supervisor.core.events import (
    AppHeld,
    AppRestarting,
    Event,
    Notice,
    Publish,
    ReleaseActive,
    ReleaseUnpacking,
    Warned,
)
from supervisor.core.requests import Outcome, Request, Result, Verb
from supervisor.core.settings import Settings
from supervisor.migrate import migrate
from supervisor.parts import Parts
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.releases.base import Base
from supervisor.releases.image import ImageFile, OnImageChange, decide, read_image
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import BAKED, ReleaseError
from supervisor.releases.room import Room
from supervisor.releases.steps import Admitted, Report, Steps
from supervisor.releases.unpack.report import Progress
from supervisor.releases.unpack.unpack import UnpackJob, unpack
from supervisor.releases.updates import Updates
from supervisor.services.backend import run_and_quote

_UNPACK_SECONDS = 900.0
_VERSION_SECONDS = 10.0
_CRASHES, _CRASH_SECONDS = 3, 60.0
_RUNTIMES = frozenset({"node", "python", "python3", "bun", "deno", "ruby", "php"})
"""Programs whose `--version` may be asked for: a manifest must not make us run whatever it names."""
Turn = Callable[[Request, Callable[[], Awaitable[None]]], Awaitable[None]]


def now() -> str:
    """The time in UTC, as records have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def layout_of(state: Path, app: str) -> Layout:
    """Where the releases of `app` lie."""
    return Layout(state / "releases" / app)


async def home_of(updates: Updates, base: Base) -> tuple[AppHome, str]:
    """What the state says is active, and why it cannot be used (then it is the image's own)."""
    release = updates.state.active
    if release == BAKED:
        return AppHome(), ""
    tree = updates.layout.tree(release)
    try:
        manifest = await updates.manifest(release)
        why = await anyio.to_thread.run_sync(base.why_unusable, tree)
    except (ReleaseError, OSError) as error:
        why = str(error)
    return (AppHome(), why) if why else (AppHome(tree, manifest), "")


@dataclass(frozen=True)
class Trial:
    """Brings a release into service in a turn of the controller. See `Candidate`."""

    name: str
    parts: Parts
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
        app, before = self.parts.apps[self.name], self.parts.plan
        try:
            plan = self.parts.plan_in(home)
        except SupervisorError as error:
            raise RejectedError(str(error)) from error
        try:
            await app.reload(self._patient(plan.spec), commit=_of_disk(commit))
        except (RejectedError, RolledBackError):
            raise
        except SupervisorError as error:
            await self._start_again(app, before, str(error))
        self.parts.plan = plan

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


def _of_disk(commit: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def committed() -> None:
        try:
            await commit()
        except OSError as error:
            raise RejectedError(f"cannot write down that it is active: {error}; make room there") from error

    return committed


@dataclass(frozen=True)
class Unpacking:
    """Unpacks in a child of the supervisor. See `Unpack`."""

    reaper: Reaper
    on_progress: Callable[[Progress], None]

    async def unpack(self, archive: Path, to: Path, manifest: Manifest) -> None:
        """Raises ReleaseError."""
        job = UnpackJob.of(manifest, archive, to)
        await unpack(self.reaper, job, on_progress=self.on_progress, limit_seconds=_UNPACK_SECONDS)


@dataclass(frozen=True)
class Database:
    """The migrations of a release, before its code serves. See `Schema`."""

    parts: Parts
    publish: Publish

    async def save(self, tree: Path, manifest: Manifest, folder: Path) -> bool:
        """Raises ReleaseError where a snapshot is asked for."""
        if manifest.migrations.snapshot:
            raise ReleaseError(
                "cannot save the database before the update: this supervisor does not take snapshots yet; take one "
                "yourself, and build the release without `migrations.snapshot`"
            )
        return False

    async def expand(self, tree: Path, manifest: Manifest) -> None:
        """Apply what is pending in the release's tree. Raises MigrationError, UnreachableError, ConfigurationError."""
        await migrate(self.parts.plan_in(AppHome(tree, manifest)).migrations, self.publish)


class AppReleases:
    """What may be asked of the releases of one app, each with its outcome. `open` first, then `connect`."""

    def __init__(
        self, name: str, settings: Settings, state_dir: Path, *, reaper: Reaper, turn: Turn, publish: Publish
    ) -> None:
        self.name = name
        self.layout = layout_of(state_dir, name)
        self.updates = Updates(self.layout, now=now, live=self._live, keep=settings.release_keep)
        self._settings = settings
        self._base = Base(settings.app_dir)
        self.reaper = reaper
        self._turn = turn
        self._publish = publish
        self._parts: Parts | None = None
        self._news = anyio.Event()
        self._crashes: list[float] = []
        self._broken = False
        self._told: ReleaseActive | None = None

    def _live(self) -> set[str]:
        """Releases that generations may run from: a bake's end and a drain are never longer than a few minutes."""
        home = self._parts.plan.home if self._parts is not None else AppHome()
        return {home.tree.name} if home.tree is not None else set()

    async def open(self) -> AppHome:
        """Put in order what an earlier run left; gives what the app is to run from."""
        for text in await self.updates.open():
            self._publish(Warned(message=text))
        if self.updates.state.active != BAKED:
            await self._look_at_image()
        home, why = await home_of(self.updates, self._base)
        if why:
            self._publish(Warned(message=f"release {self.updates.state.active} is not used: {why}"))
        return home

    async def _look_at_image(self) -> None:
        """Where the image was changed since the last start: which app is started now."""
        file, state = ImageFile(self.layout.image), self.updates.state
        image = await anyio.to_thread.run_sync(read_image, self._settings.app_dir)
        known = state.releases.get(state.active)
        sequence = known.sequence if known is not None else 0
        before = await anyio.to_thread.run_sync(file.read)
        verdict = decide(OnImageChange(self._settings.on_image_change), image, before, state.active, sequence)
        if verdict.told:
            self._publish(Notice(message=verdict.told))
        if verdict.use_image:
            await self.updates.use_image(verdict.told)
        await anyio.to_thread.run_sync(file.write, image)

    async def _note_image(self) -> None:
        image = await anyio.to_thread.run_sync(read_image, self._settings.app_dir)
        await anyio.to_thread.run_sync(ImageFile(self.layout.image).write, image)

    def connect(self, parts: Parts) -> None:
        """From now on releases can be applied."""
        self._parts = parts

    @property
    def is_connected(self) -> bool:
        """Whether `connect` was called."""
        return self._parts is not None

    def is_on_trial(self) -> bool:
        """Whether what is active was not confirmed yet."""
        return self.updates.state.trial

    async def retreat(self, reason: str) -> AppPlan | None:
        """Give up a release on trial that does not start; gives the plan of the good one, None without a trial."""
        if self._parts is None or not await self.updates.give_up_trial(reason):
            return None
        home, why = await home_of(self.updates, self._base)
        text = f"the release on trial did not start and is rolled back: {reason}"
        self._publish(Warned(message=text, detail=why))
        return self._parts.plan_in(home)

    async def runtimes(self, names: Iterable[str]) -> dict[str, str]:
        """The versions of those of the programs that we know and that are here, as the app would find them."""
        if self._parts is None:
            raise RejectedError("the stack still boots; wait for it")
        found = {}
        for name in sorted(set(names) & _RUNTIMES):
            command = self._parts.plan.environment.one_shot(name, (name, "--version"))
            with suppress(SupervisorError):
                status, said = await run_and_quote(self.reaper, command, Ring(name), limit_seconds=_VERSION_SECONDS)
                if status == 0:
                    found[name] = said.split()[-1] if said.split() else ""
        return found

    def _steps(self) -> Steps:
        if self._parts is None:
            raise RejectedError("the stack still boots; wait for it")
        return Steps(
            unpack=Unpacking(self.reaper, self._progressed),
            fill=self._base,
            schema=Database(self._parts, self._publish),
            candidate=Trial(self.name, self._parts, self._turn, self._settings.release_bake_seconds),
            space=Room(self.layout.root, self.updates.make_room),
        )

    def _progressed(self, progress: Progress) -> None:
        self._publish(ReleaseUnpacking(app=self.name, files=progress.files, bytes=progress.bytes))

    async def apply(self, admitted: Admitted, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        """Bring a release into service."""
        outcome = await self._outcome(lambda: self.updates.apply(admitted, blocks, self._steps(), actor=actor))
        if outcome.ok:
            await self._note_image()
        return outcome

    async def roll_back(self, target: str, actor: str) -> Outcome:
        """Back to a release that was good before; from one in its bake to the one it replaces, at once."""
        reason = f"rolled back by {actor}"
        if not target and self._parts is not None and self._parts.apps[self.name].reject(reason):
            started, before = anyio.current_time(), self.updates.state.active
            await self.updates.at_rest()
            return Outcome(
                result=Result.OK,
                reason="the update that was in hand ended as rolled back",
                elapsed_seconds=round(anyio.current_time() - started, 3),
                detail={"release": self.updates.state.active, "before": before},
            )
        return await self._outcome(lambda: self.updates.roll_back(target, self._steps(), actor=actor))

    async def confirm(self) -> Outcome:
        """End the trial that is running: it is good."""
        if await self.updates.confirm():
            self._news.set()
            return Outcome(result=Result.OK, detail={"release": self.updates.state.good})
        return Outcome(result=Result.REJECTED, reason="no release is on trial")

    async def _outcome(self, work: Callable[[], Awaitable[Report]]) -> Outcome:
        started = anyio.current_time()
        report, result, reason = Report(), Result.OK, ""
        try:
            report = await work()
        except RejectedError as error:
            result, reason = Result.REJECTED, str(error)
        except RolledBackError as error:
            result, reason = Result.ROLLED_BACK, str(error)
        except (SupervisorError, OSError) as error:
            result, reason = Result.FAILED, str(error)
        self._news.set()
        return Outcome(
            result=result,
            reason=reason,
            elapsed_seconds=round(anyio.current_time() - started, 3),
            phases=report.phases,
            detail={"release": report.release, "before": report.before, "active": self.updates.state.active},
        )

    def observe(self, event: Event) -> None:
        """Subscriber: a release on trial that crashes again and again, or gives up, did not hold."""
        if not isinstance(event, AppRestarting | AppHeld) or event.app != self.name or not self.updates.state.trial:
            return
        now = anyio.current_time()
        self._crashes = [at for at in self._crashes if now - at < _CRASH_SECONDS] + [now]
        if isinstance(event, AppHeld) or len(self._crashes) >= _CRASHES:
            self._broken = True
            self._news.set()

    def _tell_active(self) -> None:
        state = self.updates.state
        known = state.releases.get(state.active)
        told = ReleaseActive(
            app=self.name,
            release=state.active,
            key=known.key if known is not None else "",
            trial=state.trial,
            good=state.good,
        )
        if told != self._told:
            self._told = told
            self._publish(told)

    async def _go_back(self) -> None:
        """From a release on trial that did not hold to the good one, by its own start."""
        outcome = await self.roll_back("", "probation")
        if not outcome.ok:
            self._publish(
                Warned(message=f"the release on trial did not hold, and there is no way back: {outcome.reason}")
            )

    async def watch(self) -> None:
        """Confirm what held for the probation, and go back from what did not. Until cancelled."""
        await self.updates.tidy()  # after the boot, as deleting takes its time
        while True:
            self._tell_active()
            state = self.updates.state
            self._news, self._broken, self._crashes = anyio.Event(), False, []
            with anyio.move_on_after(self._settings.release_probation_seconds if state.trial else None):
                await self._news.wait()
                if self._broken:
                    await self._go_back()
                continue
            # Its time is over, and nothing else began meanwhile: that would have been news.
            if await self.updates.confirm():
                self._publish(Notice(message=f"release {state.active} held, and is good from now on"))
