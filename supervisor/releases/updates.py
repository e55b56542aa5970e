"""The releases of one app: what is there, what is active, and every way to change that. One change at a time."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import anyio

from supervisor.core.errors import RejectedError, StoppingError, SupervisorError
from supervisor.releases.assets import lend
from supervisor.releases.contract import check, contract
from supervisor.releases.image import image_schema
from supervisor.releases.journal import Action, Journal, Mark
from supervisor.releases.kept import Kept
from supervisor.releases.layout import Layout
from supervisor.releases.model import BAKED, ReleaseError, of_disk
from supervisor.releases.records import Records, in_thread
from supervisor.releases.recovery import Recovered, discard, empty_trash, present, recover
from supervisor.releases.reserve import keep_reserve
from supervisor.releases.retention import KEEP, surplus
from supervisor.releases.snapshots import rescue, stale
from supervisor.releases.state import State, confirmed, fallen_back, image_used, newest_first, rolled_back
from supervisor.releases.steps import Admitted, Contracts, Report, Steps
from supervisor.releases.transaction import Apply
from supervisor.releases.ways import choose


class Updates:
    """`open` once before anything is started. `now` gives the time in UTC as text; `live` the releases that generations
    run from. All disk work is done in threads.
    """

    def __init__(
        self, layout: Layout, *, now: Callable[[], str], live: Callable[[], Collection[str]], keep: int = KEEP
    ) -> None:
        self.layout = layout
        self._records = Records(layout, now)
        self.kept = Kept(self._records)
        self._live = live
        self._keep = keep
        self._lock = anyio.Lock()
        self._journal: Journal | None = None
        """Of the update whose release is on trial."""

    @property
    def state(self) -> State:
        """What the disk says, within an update too."""
        return self._records.state

    async def open(self) -> list[str]:
        """Put in order what an earlier run left; gives sentences for the log. Raises ReleaseError."""

        def do() -> Recovered:
            for folder, mode in (
                (self.layout.root, 0o711),
                (self.layout.kept, 0o711),
                (self.layout.shared, 0o711),
                (self.layout.incoming, 0o700),
                (self.layout.staging, 0o700),
            ):
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
            return recover(self.layout, at=self._records.now())

        with self._on_disk("put the releases in order"):
            recovered = await in_thread(do)
        self._records.state, self._journal = recovered.state, recovered.journal
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

        await in_thread(do)

    async def at_rest(self) -> None:
        """Return once the change in hand is over."""
        async with self._lock:
            pass

    async def apply(
        self,
        admitted: Admitted,
        blocks: AsyncIterator[bytes],
        steps: Steps,
        *,
        actor: str,
        report: Report | None = None,
    ) -> Report:
        """Bring it into service; returns once the bake is over, with the release on trial until `confirm`.

        Raises RejectedError or RolledBackError, with the old release serving; a `report` that is given has the phases
        as far as they came.
        """
        async with self._one_at_a_time():
            await self._look_at_image()
            transaction = secrets.token_hex(6)
            work = Apply(self._records, admitted, steps, transaction=transaction, actor=actor, report=report)
            try:
                await work.run(blocks)
                self._journal = work.journal
            finally:
                await self._records.read()
                await self.tidy()
            return work.report

    async def confirm(self) -> bool:
        """Commit 2: the release on trial is good from now on. False where none is. Raises ReleaseError."""
        async with self._lock:
            if not self.state.trial:
                return False
            with self._on_disk(f"confirm release {self.state.active}"):
                await self._confirm()
            return True

    async def _confirm(self) -> None:
        await self._records.change(confirmed(self.state, self._records.now()))
        await self._finish(self._taken(), "ok", "")

    async def give_up_trial(self, reason: str) -> str:
        """The release on trial does not hold: the good one is active from now on; gives its id (what serves is not
        touched). Empty where none is on trial. Raises ReleaseError.
        """
        async with self._lock:
            if not self.state.trial:
                return ""
            with self._on_disk(f"give up release {self.state.active}"):
                await self._end_trial(reason)
                await self._clear()
            return self.state.active

    async def use_image(self, reason: str) -> None:
        """The image's own app is active from now on; for the boot only, before anything is started.

        Raises ReleaseError.
        """
        async with self._lock:
            with self._on_disk("start the image's own app"):
                await self._use_image(reason)

    async def _use_image(self, reason: str) -> None:
        journal = self._begun(Action.IMAGE, BAKED, "boot")
        if self.state.trial:
            await self._end_trial(reason)
        await self._records.mark(journal.at(Mark.ROLLING_BACK))
        await self._records.change(image_used(self.state))
        await self._finish(journal, "ok", reason)

    async def contract(self, contracts: Contracts, *, give_up: bool, actor: str) -> tuple[str, ...]:
        """Apply what is due of contract migrations; gives their names. Raises RejectedError, MigrationError.

        `give_up`: releases that may need the older shape of the database can be rolled back to no more.
        """
        async with self._one_at_a_time():
            await self._look_at_image()
            check(self.state, (), give_up=True)
            due = await contracts.due()
            if due is None:
                return await contracts.apply()
            if due:
                releases = check(self.state, await in_thread(lambda: present(self.layout)), give_up=give_up)
                await contract(
                    self._records, self._begun(Action.CONTRACT, self.state.active, actor), contracts, releases
                )
            return due

    async def roll_back(self, target: str, steps: Steps, *, actor: str) -> Report:
        """Back to `target` (empty: the best there is), by the same gate and switch.

        Raises RejectedError, ReleaseError for the disk's.
        """
        async with self._one_at_a_time():
            await self._look_at_image()
            release = choose(self.state, await in_thread(lambda: present(self.layout)), target)
            journal = self._begun(Action.ROLL_BACK, release, actor)
            with self._on_disk(f"roll back to release {journal.release}"):
                return await self._roll_back(journal, steps)

    async def _roll_back(self, journal: Journal, steps: Steps) -> Report:
        manifest = await self.kept.manifest(journal.release)

        async def commit() -> None:
            if self.state.trial:
                await self._end_trial(f"rolled back by {journal.actor}")
            await self._records.mark(journal.at(Mark.ROLLING_BACK))
            await self._records.change(rolled_back(self.state, journal.release))

        before = self.state
        await in_thread(lambda: lend(self.layout, journal.release, newest_first(before)))
        try:
            await steps.candidate.try_out(self.kept.tree(journal.release), manifest, commit)
        except StoppingError:
            raise
        except SupervisorError as error:
            if self.state != before:
                await self._records.change(before)
            await self._finish(journal, "rejected", str(error))
            raise RejectedError(f"release {journal.before} is not rolled back: {error}") from error
        await self._finish(journal, "ok", await self._saved(journal.before))
        return Report(release=journal.release, before=journal.before)

    async def _look_at_image(self) -> None:
        """What it says of its own app now counts from here on, and is written down with the next change."""
        schema = await in_thread(lambda: image_schema(self.layout.image_tree))
        self._records.state = self.state.with_image(schema)

    def _begun(self, action: Action, release: str, actor: str) -> Journal:
        return Journal(
            transaction=secrets.token_hex(6),
            action=action,
            mark=Mark.BEGUN,
            actor=actor,
            started=self._records.now(),
            release=release,
            before=self.state.active,
        )

    def _taken(self) -> Journal | None:
        journal, self._journal = self._journal, None
        return journal

    async def _end_trial(self, reason: str) -> None:
        """The good release is active again. The state first: it has the reason, should the history not come to it."""
        saved = await self._saved(self.state.active)
        await self._records.change(fallen_back(self.state, reason, self._records.now()))
        await self._records.end(self._taken(), "rolled_back", f"{reason}; {saved}" if saved else reason)

    async def _saved(self, release: str) -> str:
        """Where the database of before a release is, in words."""
        return await in_thread(lambda: rescue(self.layout, release))

    async def prune(self, keep: int | None = None) -> list[str]:
        """Delete what need not be kept, by the setting or with so many good ones; gives the ids.

        Raises ReleaseError.
        """
        async with self._lock:
            with self._on_disk("delete releases that need not be kept"):
                return await self.make_room(keep)

    async def make_room(self, keep: int | None = None) -> list[str]:
        """The same, for the update in hand, which is the one writer there may be.

        They are forgotten first: a tree that nobody knows is deleted at the next start, should this be cut short.
        """
        most = self._keep if keep is None else keep
        there = await in_thread(lambda: present(self.layout))
        names = surplus(self.state, there, live=self._live(), keep=most)

        def delete() -> None:
            for name in names:
                discard(self.layout, self.layout.tree(name))
            for path in stale(self.layout, present(self.layout)):
                discard(self.layout, path)
            empty_trash(self.layout)

        with suppress(OSError):  # there may be no room for it before they are deleted
            await self._forget(names)
        await in_thread(delete)
        await self._forget(names)
        return names

    async def _forget(self, names: Collection[str]) -> None:
        kept = {name: known for name, known in self.state.releases.items() if name not in names}
        if len(kept) != len(self.state.releases):
            await self._records.change(replace(self.state, releases=kept))

    @contextmanager
    def _on_disk(self, what: str) -> Iterator[None]:
        """Errors of the disk become ours, saying what could not be done."""
        try:
            yield
        except OSError as error:
            raise ReleaseError(f"cannot {what}: {of_disk(error, self.layout.root)}") from error

    def _one_at_a_time(self) -> anyio.Lock:
        if self._lock.locked():
            raise RejectedError("another update is in hand; wait for its end (`supervisor release history`)")
        return self._lock

    async def _finish(self, journal: Journal | None, outcome: str, reason: str) -> None:
        """The transaction's line, if one is in hand, then what need not be kept goes."""
        await self._records.end(journal, outcome, reason)
        await self._clear()

    async def _clear(self) -> None:
        await self.make_room()
        await self.tidy()
