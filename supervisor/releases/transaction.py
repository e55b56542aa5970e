"""One update from the archive to the good release, step by step; on any failure the old release serves on.

What serves, the database and unpacking are Protocols here, connected elsewhere. The order on the disk is what makes it
safe: the tree is synced before its rename, the rename before the state names it, the state before the links, the links
before traffic moves.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import anyio

from supervisor.core.errors import RejectedError, RolledBackError, StoppingError, SupervisorError
from supervisor.releases.assets import carry
from supervisor.releases.history import History
from supervisor.releases.journal import Action, Journal, JournalFile, Mark
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.receive import Receipt, receive
from supervisor.releases.recovery import SEALED, discard, history_line
from supervisor.releases.reserve import release_reserve
from supervisor.releases.seal import check_tree, make_shared, seal, write_records
from supervisor.releases.state import Known, State, StateFile, activated, fallen_back, repair_links

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A release that may be applied. `data` are the manifest's exact bytes, `signatures` those that were given.

    `key` is the id of the key that signed it; empty for one that nobody signed.
    """

    release: str
    manifest: Manifest
    data: bytes
    digest: str
    key: str = ""
    signatures: tuple[bytes, ...] = ()


class Unpack(Protocol):
    """Makes the tree of an archive."""

    async def unpack(self, archive: Path, to: Path, manifest: Manifest) -> None:
        """Make `to`, which does not exist, and prove that it is what the manifest says. Raises ReleaseError; what is
        left in `to` then is the caller's.
        """


class Fill(Protocol):
    """Completes a tree with what it does not bring itself."""

    async def fill(self, tree: Path, manifest: Manifest) -> None:
        """Link, or copy, what comes from the image's own tree. Raises ReleaseError."""

    def trees(self) -> list[Path]:
        """The image's own tree, where there is one."""


class Schema(Protocol):
    """The database, as far as releases change it."""

    async def save(self, tree: Path, manifest: Manifest, folder: Path) -> bool:
        """Save the database into `folder` where the release asks for it, proved to be whole; else False."""

    async def expand(self, tree: Path, manifest: Manifest) -> None:
        """Apply what the release adds, while the old code serves. Raises MigrationError."""


class Candidate(Protocol):
    """What serves."""

    async def try_out(
        self, tree: Path | None, manifest: Manifest | None, commit: Callable[[], Awaitable[None]]
    ) -> None:
        """Start it beside what serves and prove it; then `commit`, then move traffic, and watch it for the bake.

        Without a tree and a manifest it is the image's own.

        Raises RejectedError where it never served, RolledBackError where traffic is back with the old one.
        """


class Space(Protocol):
    """The disk."""

    async def make(self, manifest: Manifest) -> None:
        """Make room for a tree. Raises ReleaseError where there is not enough, saying how much is needed."""


@dataclass
class Report:
    """What a transaction came to; seconds by phase."""

    release: str = ""
    before: str = ""
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a transaction is carried out with."""

    unpack: Unpack
    fill: Fill
    schema: Schema
    candidate: Candidate
    space: Space


class Apply:
    """One transaction; `run` it once, holding the lock of the layout. `now` gives the time in UTC as text."""

    def __init__(
        self, layout: Layout, admitted: Admitted, steps: Steps, *, transaction: str, actor: str, now: Callable[[], str]
    ) -> None:
        self.report = Report(release=admitted.release)
        self._layout = layout
        self._admitted = admitted
        self._steps = steps
        self._now = now
        self._states, self.journals = StateFile(layout), JournalFile(layout)
        self._history = History(layout.history)
        self._state = State()
        self.journal = self._begin(transaction, actor)
        self._staging = layout.staging / transaction

    def _begin(self, transaction: str, actor: str) -> Journal:
        return Journal(
            transaction=transaction,
            action=Action.APPLY,
            mark=Mark.BEGUN,
            actor=actor,
            started=self._now(),
            release=self._admitted.release,
            digest=self._admitted.digest,
            key=self._admitted.key,
        )

    async def run(self, blocks: AsyncIterator[bytes]) -> State:
        """Gives the state, with the new release on trial.

        Raises RejectedError with nothing changed, or RolledBackError with the old release serving again. Cancelling
        leaves it to the next start to undo what was begun, and so does StoppingError.
        """
        await self._open()
        try:
            await self._stage(blocks)
            await self._prepare_database()
            await self._try()
        except StoppingError:
            raise
        except RolledBackError as error:
            await self._end("rolled_back", str(error))
            raise
        except (SupervisorError, OSError) as error:
            why = str(error) if isinstance(error, SupervisorError) else _of_disk(error, self._layout.root)
            await self._end("rejected", why)
            raise RejectedError(f"release {self._admitted.release} is not applied: {why}") from error
        return self._state

    async def _open(self) -> None:
        self._state, _ = await _do(self._states.read)
        self.report.before = self._state.active
        self.journal = replace(self.journal, before=self._state.active)
        if self._state.trial:
            raise RejectedError(
                f"release {self._state.active} is still on trial; `supervisor release confirm` or "
                f"`supervisor release rollback` ends that"
            )
        if self._state.active == self._admitted.release:
            raise RejectedError(f"release {self._admitted.release} is active already")

    async def _stage(self, blocks: AsyncIterator[bytes]) -> None:
        """The tree comes to lie whole in its place; one that does already is used."""
        place = self._layout.tree(self._admitted.release)
        if await _do(lambda: place.is_dir()):
            return
        await self._mark(Mark.BEGUN)
        async with self._phase("receive"):
            limit = self._admitted.manifest.archive.size
            receipt = await receive(blocks, self._staging / "archive", limit_bytes=limit)
        async with self._phase("verify"):
            self._verify(receipt)
            await self._mark(Mark.VERIFIED)
        async with self._phase("space"):
            await self._steps.space.make(self._admitted.manifest)
        await self._unpack()
        async with self._phase("seal"):
            await _do(lambda: seal(self._layout, self._staging / "tree", self._admitted.release))
            await self._mark(Mark.STAGED)
            await _do(self._tidy)

    def _verify(self, receipt: Receipt) -> None:
        archive = self._admitted.manifest.archive
        if (receipt.size, receipt.sha256) != (archive.size, archive.sha256):
            raise ReleaseError(
                f"cannot use the archive: it has {receipt.size} bytes and SHA-256 {receipt.sha256[:12]}, the manifest "
                f"says {archive.size} and {archive.sha256[:12]}; send the archive that was built with this manifest"
            )

    async def _unpack(self) -> None:
        tree, manifest = self._staging / "tree", self._admitted.manifest
        async with self._phase("unpack"):
            await self._steps.unpack.unpack(self._staging / "archive", tree, manifest)
        async with self._phase("check"):
            await _do(lambda: check_tree(tree, manifest))
        async with self._phase("fill"):
            await _do(lambda: make_shared(self._layout, tree, manifest))
            await _do(lambda: carry(tree, manifest.keep_assets, self._older()))
            await self._steps.fill.fill(tree, manifest)
            await _do(lambda: write_records(tree, self._admitted.data, self._admitted.signatures))

    def _older(self) -> list[Path]:
        """The trees of good releases, the newest first, and at last the image's own."""
        good = [(known.sequence, name) for name, known in self._state.releases.items() if known.confirmed]
        return [*(self._layout.tree(name) for _, name in sorted(good, reverse=True)), *self._steps.fill.trees()]

    async def _prepare_database(self) -> None:
        tree, manifest = self._layout.tree(self._admitted.release), self._admitted.manifest
        folder = self._layout.snapshots / self.journal.transaction
        async with self._phase("snapshot"):
            if await self._steps.schema.save(tree, manifest, folder):
                await self._mark(Mark.SNAPSHOT)
        async with self._phase("migrations"):
            await self._steps.schema.expand(tree, manifest)
            await self._mark(Mark.EXPANDED)

    async def _try(self) -> None:
        await self._mark(Mark.TRYING)
        async with self._phase("try"):
            tree = self._layout.tree(self._admitted.release)
            await self._steps.candidate.try_out(tree, self._admitted.manifest, self._commit)

    async def _commit(self) -> None:
        """Commit 1. From here on a kill leaves the new release on trial."""
        await self._change(activated(self._state, self._admitted.release, self._known))

    @property
    def _known(self) -> Known:
        manifest = self._admitted.manifest
        return Known(
            sequence=manifest.sequence,
            version=manifest.version,
            digest=self._admitted.digest,
            key=self._admitted.key,
            schema=(manifest.schema_.level, manifest.schema_.min_supported),
        )

    async def _change(self, state: State) -> None:
        """Durable, with its links, before it returns; never cut in half by a cancellation."""

        def change() -> None:
            self._states.write(state)
            repair_links(self._layout, state)

        with anyio.CancelScope(shield=True):
            await _do(change)
        self._state = state

    async def _end(self, outcome: str, reason: str) -> None:
        """Back to the release of before, and written down; a full disk must not hide why."""

        def end() -> None:
            release_reserve(self._layout)
            self._state = self._without(reason)
            self._states.write(self._state)
            repair_links(self._layout, self._state)
            journal = replace(self.journal, phases=self.report.phases)
            self._history.append(history_line(journal, outcome, reason, self._now()))
            self.journals.remove()
            self._tidy()

        with anyio.CancelScope(shield=True):
            await _do(end)

    def _tidy(self) -> None:
        discard(self._layout, self._staging)

    def _without(self, reason: str) -> State:
        """The state as it was, with what is known of the new release; only one whose tree lies there is remembered."""
        if self._state.trial:
            return fallen_back(self._state, reason, self._now())
        if self.journal.mark not in SEALED:
            return self._state
        return self._state.with_known(self._admitted.release, replace(self._known, failed=reason, at=self._now()))

    async def _mark(self, mark: Mark) -> None:
        self.journal = replace(self.journal.at(mark), phases=dict(self.report.phases))
        await _do(lambda: self.journals.write(self.journal))

    @asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.report.phases[name] = round(time.monotonic() - started, 4)


def _of_disk(error: OSError, root: Path) -> str:
    what = error.filename or root
    return f"cannot write {str(what)!r}: {(error.strerror or str(error)).lower()}; make room there, or mend that place"


async def _do(work: Callable[[], T]) -> T:
    """In a thread: a disk may take its time, and signals must not wait for it."""
    return await anyio.to_thread.run_sync(work)
