"""The releases of one app: what is there, what is active, and every way to change that. One change at a time."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio

from supervisor.core.errors import RejectedError, StoppingError, SupervisorError
from supervisor.releases.history import History, Line
from supervisor.releases.journal import Action, Journal, JournalFile, Mark
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest, parse_manifest
from supervisor.releases.model import BAKED, ReleaseError
from supervisor.releases.recovery import Recovered, discard, empty_trash, history_line, present, recover
from supervisor.releases.reserve import keep_reserve
from supervisor.releases.retention import KEEP, surplus, way_back
from supervisor.releases.seal import MANIFEST_FILE
from supervisor.releases.state import State, StateFile, confirmed, fallen_back, repair_links, rolled_back
from supervisor.releases.transaction import Admitted, Apply, Report, Steps

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One release, for people. `use` is empty, or why it is kept: active, on trial, the way back."""

    release: str
    version: str
    sequence: int
    use: str
    confirmed: bool
    failed: str
    at: str
    key: str


class Updates:
    """`open` once before anything is started. `now` gives the time in UTC as text; `live` the releases that generations
    run from. All disk work is done in threads.
    """

    def __init__(
        self, layout: Layout, *, now: Callable[[], str], live: Callable[[], Collection[str]], keep: int = KEEP
    ) -> None:
        self.layout = layout
        self.state = State()
        self._now = now
        self._live = live
        self._keep = keep
        self._lock = anyio.Lock()
        self._states, self._journals = StateFile(layout), JournalFile(layout)
        self._history = History(layout.history)
        self._journal: Journal | None = None

    async def open(self) -> list[str]:
        """Put in order what an earlier run left; gives sentences for the log. Raises ReleaseError, OSError."""

        def do() -> Recovered:
            for folder, mode in (
                (self.layout.root, 0o711),
                (self.layout.kept, 0o711),
                (self.layout.shared, 0o711),
                (self.layout.incoming, 0o700),
                (self.layout.staging, 0o700),
            ):
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
            return recover(self.layout, at=self._now())

        recovered = await _do(do)
        self.state, self._journal = recovered.state, recovered.journal
        return recovered.told

    @property
    def is_busy(self) -> bool:
        """Whether a change is in hand."""
        return self._lock.locked()

    async def tidy(self) -> None:
        """Delete what was discarded, and keep some space back again; what cannot be done now is done next time."""

        def do() -> None:
            empty_trash(self.layout)
            with suppress(OSError):
                keep_reserve(self.layout)

        await _do(do)

    async def at_rest(self) -> None:
        """Return once the change in hand is over."""
        async with self._lock:
            pass

    def tree(self, release: str = "") -> Path | None:
        """The folder of the active release, or of `release`; None for the image's own."""
        name = release or self.state.active
        return None if name == BAKED else self.layout.tree(name)

    async def manifest(self, release: str) -> Manifest | None:
        """What a kept release says of itself; None for the image's own. Raises ReleaseError."""
        if release == BAKED:
            return None
        try:
            data = await _do((self.layout.records(release) / MANIFEST_FILE).read_bytes)
        except OSError as error:
            raise ReleaseError(
                f"cannot read the manifest of release {release}: {error.strerror}; apply the release again"
            ) from error
        return parse_manifest(data)

    async def apply(self, admitted: Admitted, blocks: AsyncIterator[bytes], steps: Steps, *, actor: str) -> Report:
        """Bring it into service; returns once the bake is over, with the release on trial until `confirm`.

        Raises RejectedError or RolledBackError, with the old release serving.
        """
        async with self._one_at_a_time():
            transaction = secrets.token_hex(6)
            work = Apply(self.layout, admitted, steps, transaction=transaction, actor=actor, now=self._now)
            try:
                self.state = await work.run(blocks)
                self._journal = work.journal
            finally:
                self.state, _ = await self._shielded(self._states.read)
                await self.tidy()
            return work.report

    async def confirm(self) -> bool:
        """Commit 2: the release on trial is good from now on. False where none is."""
        async with self._lock:
            if not self.state.trial:
                return False
            await self._change(confirmed(self.state, self._now()))
            await self._finish("ok", "")
            return True

    async def give_up_trial(self, reason: str) -> str:
        """The release on trial does not hold: the good one is active from now on; gives its id (what serves is not
        touched). Empty where none is on trial.
        """
        async with self._lock:
            if not self.state.trial:
                return ""
            await self._change(fallen_back(self.state, reason, self._now()))
            await self._finish("rolled_back", reason)
            return self.state.active

    async def use_image(self, reason: str) -> None:
        """The image's own app is active from now on; for the boot only, before anything is started."""
        async with self._lock:
            await self._end_trial(reason)
            journal = Journal(
                transaction=secrets.token_hex(6),
                action=Action.IMAGE,
                mark=Mark.BEGUN,
                actor="boot",
                started=self._now(),
                release=BAKED,
                before=self.state.active,
            )
            if self.state.trial:
                await self._change(fallen_back(self.state, reason, self._now()))
            await self._change(rolled_back(self.state, BAKED))
            self._journal = journal
            await self._finish("ok", reason)

    async def roll_back(self, target: str, steps: Steps, *, actor: str) -> Report:
        """Back to `target` (empty: the best there is), by the same gate and switch. Raises RejectedError."""
        async with self._one_at_a_time():
            release = await self._target(target)
            journal = Journal(
                transaction=secrets.token_hex(6),
                action=Action.ROLL_BACK,
                mark=Mark.BEGUN,
                actor=actor,
                started=self._now(),
                release=release,
                before=self.state.active,
            )
            return await self._roll_back(journal, steps)

    async def _roll_back(self, journal: Journal, steps: Steps) -> Report:
        report = Report(release=journal.release, before=journal.before)
        manifest = await self.manifest(journal.release)

        async def commit() -> None:
            reason = f"rolled back by {journal.actor}"
            await self._end_trial(reason)
            await self._shielded(lambda: self._journals.write(journal.at(Mark.ROLLING_BACK)))
            if self.state.trial:
                await self._change(fallen_back(self.state, reason, self._now()))
            await self._change(rolled_back(self.state, journal.release))

        before = self.state
        try:
            await steps.candidate.try_out(self.tree(journal.release), manifest, commit)
        except StoppingError:
            raise
        except SupervisorError as error:
            if self.state != before:
                await self._change(before)
            self._journal = journal
            await self._finish("rejected", str(error))
            raise RejectedError(f"release {journal.before} is not rolled back: {error}") from error
        self._journal = journal
        await self._finish("ok", "")
        return report

    async def _end_trial(self, reason: str) -> None:
        """The line of an update whose release is on trial, before another journal takes its place."""
        trial, self._journal = self._journal, None
        if trial is not None:
            line = history_line(trial, "rolled_back", reason, self._now())
            await self._shielded(lambda: self._history.append(line))

    async def _target(self, wanted: str) -> str:
        there = await _do(lambda: present(self.layout))
        possible = way_back(self.state, there)
        if not wanted and self.state.trial:
            return self.state.good
        if not possible or (wanted and wanted not in possible):
            what = f"to {wanted!r}" if wanted else "at all"
            names = ", ".join(possible) or "none"
            raise RejectedError(
                f"there is no way back {what}: it must be a release that was confirmed here and is still kept, and not "
                f"the active one; possible are: {names}"
            )
        release = wanted or possible[0]
        self._check_schema(release)
        return release

    def _check_schema(self, release: str) -> None:
        """Code must not meet a database whose shape it does not know."""
        now, then = self.state.releases.get(self.state.active), self.state.releases.get(release)
        level = now.schema[0] if now is not None else 0
        known, _ = then.schema if then is not None else (0, 0)
        lowest = now.schema[1] if now is not None else 0
        if level and known < lowest:
            raise RejectedError(
                f"release {release} cannot live on the database as it is: the schema is at level {level}, which needs "
                f"code of level {lowest} or above, and that release is of level {known}; apply a newer release instead"
            )

    async def listed(self) -> list[Listed]:
        """All that is known, the newest first."""
        there = await _do(lambda: present(self.layout))
        uses = {self.state.previous: "previous", self.state.good: "good"}
        uses |= {self.state.active: "on trial" if self.state.trial else "active"}
        rows = []
        for release in sorted({*there, *self.state.releases, BAKED}):
            known = self.state.releases.get(release)
            if release != BAKED and release not in there:
                continue
            rows.append(
                Listed(
                    release=release,
                    version=known.version if known else "",
                    sequence=known.sequence if known else 0,
                    use=uses.get(release, ""),
                    confirmed=known.confirmed if known else release == BAKED,
                    failed=known.failed if known else "",
                    at=known.at if known else "",
                    key=known.key if known else "",
                )
            )
        return sorted(rows, key=lambda row: row.sequence, reverse=True)

    async def history(self) -> list[Line]:
        """What was done, the oldest first."""
        return await _do(self._history.read)

    async def verify_history(self) -> int:
        """How many lines there are. Raises ReleaseError where one was changed."""
        return await _do(self._history.verify)

    async def prune(self) -> list[str]:
        """Delete what need not be kept; gives the ids."""
        async with self._lock:
            return await self._prune()

    async def _prune(self) -> list[str]:
        def do() -> list[str]:
            names = surplus(self.state, present(self.layout), live=self._live(), keep=self._keep)
            for name in names:
                discard(self.layout, self.layout.tree(name))
            empty_trash(self.layout)
            return names

        names = await _do(do)
        forgotten = {name: known for name, known in self.state.releases.items() if name not in names}
        if len(forgotten) != len(self.state.releases):
            await self._change(replace(self.state, releases=forgotten))
        return names

    def _one_at_a_time(self) -> anyio.Lock:
        if self._lock.locked():
            raise RejectedError("another update is in hand; wait for its end (`supervisor release history`)")
        return self._lock

    async def _change(self, state: State) -> None:
        """Durable, with its links, before it returns."""

        def do() -> None:
            self._states.write(state)
            repair_links(self.layout, state)

        await self._shielded(do)
        self.state = state

    async def _finish(self, outcome: str, reason: str) -> None:
        """The transaction's line, if one is in hand, then what need not be kept goes."""
        journal, self._journal = self._journal, None

        def do() -> None:
            if journal is not None:
                self._history.append(history_line(journal, outcome, reason, self._now()))
            self._journals.remove()

        await self._shielded(do)
        await self._prune()
        await self.tidy()

    @staticmethod
    async def _shielded(work: Callable[[], T]) -> T:
        found: list[T] = []
        with anyio.CancelScope(shield=True):
            found.append(await _do(work))
        return found[0]


async def _do(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)
