"""One update from the archive to the good release, step by step; on any failure the old release serves on.

The order on the disk is what makes it safe: the tree is synced before its rename, the rename before the state names it,
the state before the links, the links before traffic moves.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from supervisor.core.errors import RejectedError, RolledBackError, StoppingError, SupervisorError
from supervisor.releases.assets import carry, lend
from supervisor.releases.journal import Action, Journal, Mark
from supervisor.releases.model import BAKED, ReleaseError, of_disk
from supervisor.releases.receive import Receipt, receive
from supervisor.releases.records import Records, in_thread
from supervisor.releases.recovery import MIGRATED, SEALED, discard, empty_trash
from supervisor.releases.reserve import release_reserve
from supervisor.releases.seal import check_tree, make_shared, seal, write_records
from supervisor.releases.snapshots import DUMP_FILE, how_to_go_back
from supervisor.releases.state import Known, State, activated, fallen_back, newest_first
from supervisor.releases.steps import Admitted, Report, Steps, Unpacker
from supervisor.releases.ways import is_given_up


class Apply:
    """One transaction; `run` it once, as the only writer of `records`."""

    def __init__(
        self,
        records: Records,
        admitted: Admitted,
        steps: Steps,
        *,
        transaction: str,
        actor: str,
        report: Report | None = None,
    ) -> None:
        self.report = report if report is not None else Report()
        self.report.release, self.report.before = admitted.release, records.state.active
        self._records = records
        self._layout = records.layout
        self._admitted = admitted
        self._steps = steps
        self.journal = self._begin(transaction, actor)
        self._staging = self._layout.staging / transaction
        self._rescue = ""
        """How to go back to a database that was saved, for the end of a reason."""

    def _begin(self, transaction: str, actor: str) -> Journal:
        return Journal(
            transaction=transaction,
            action=Action.APPLY,
            mark=Mark.BEGUN,
            actor=actor,
            started=self._records.now(),
            release=self._admitted.release,
            before=self._records.state.active,
            digest=self._admitted.digest,
            key=self._admitted.key,
            schema=self._known.schema,
        )

    async def run(self, blocks: AsyncIterator[bytes]) -> None:
        """Leaves the new release on trial.

        Raises RejectedError with nothing changed, or RolledBackError with the old release serving again. Cancelling
        leaves it to the next start to undo what was begun, and so does StoppingError.
        """
        self._check()
        try:
            await self._stage(blocks)
            await self._prepare_database()
            await self._try()
        except StoppingError:
            raise
        except RolledBackError as error:
            why = f"{error}{self._rescue}"
            raise RolledBackError(f"{why}{await self._end('rolled_back', why)}") from error
        except (SupervisorError, OSError) as error:
            why = str(error) if isinstance(error, SupervisorError) else of_disk(error, self._layout.root)
            why += self._rescue
            why += await self._end("rejected", why)
            raise RejectedError(f"release {self._admitted.release} is not applied: {why}") from error

    def _check(self) -> None:
        state = self._records.state
        if state.trial:
            raise RejectedError(
                f"release {state.active} is still on trial; `supervisor release confirm` or "
                f"`supervisor release rollback` ends that"
            )
        if state.active == self._admitted.release:
            raise RejectedError(f"release {self._admitted.release} is active already")
        if is_given_up(state, self._admitted.release):
            known = state.releases[self._admitted.release]
            raise RejectedError(
                f"release {self._admitted.release} cannot come back: {known.given_up}; build it again for the database "
                f"as it is now"
            )

    async def _stage(self, blocks: AsyncIterator[bytes]) -> None:
        """The tree comes to lie whole in its place; one that does already is used."""
        place = self._layout.tree(self._admitted.release)
        if await in_thread(lambda: place.is_dir()):
            return
        await self._mark(Mark.BEGUN)
        async with self._steps.unpack.ready() as unpacker:
            await self._receive(blocks)
            await self._unpack(unpacker)
        async with self._phase("seal"):
            await in_thread(lambda: seal(self._layout, self._staging / "tree", self._admitted.release))
            await self._mark(Mark.STAGED)
            await in_thread(self._tidy)

    async def _receive(self, blocks: AsyncIterator[bytes]) -> None:
        async with self._phase("receive"):
            limit = self._admitted.manifest.archive.size
            receipt = await receive(blocks, self._staging / "archive", limit_bytes=limit)
        async with self._phase("verify"):
            self._verify(receipt)
            await self._mark(Mark.VERIFIED)
        async with self._phase("space"):
            await self._steps.space.make(self._admitted.manifest)

    def _verify(self, receipt: Receipt) -> None:
        archive = self._admitted.manifest.archive
        if (receipt.size, receipt.sha256) != (archive.size, archive.sha256):
            raise ReleaseError(
                f"cannot use the archive: it has {receipt.size} bytes and SHA-256 {receipt.sha256[:12]}, the manifest "
                f"says {archive.size} and {archive.sha256[:12]}; send the archive that was built with this manifest"
            )

    async def _unpack(self, unpacker: Unpacker) -> None:
        tree, manifest = self._staging / "tree", self._admitted.manifest
        async with self._phase("unpack"):
            await unpacker.unpack(self._staging / "archive", tree, manifest)
        async with self._phase("check"):
            digests = await in_thread(lambda: check_tree(tree, manifest))
        async with self._phase("fill"):
            await in_thread(lambda: make_shared(self._layout, tree, manifest, self._steps.owner))
            await in_thread(lambda: carry(tree, manifest.keep_assets, self._older()))
            await self._steps.fill.fill(tree, manifest)
            data, signatures = self._admitted.data, self._admitted.signatures
            await in_thread(lambda: write_records(tree, data, signatures, digests))

    def _older(self) -> list[Path]:
        """The trees of all releases that may have served a page, the newest first, and at last the image's own."""
        known = newest_first(self._records.state)
        return [*(self._layout.tree(name) for name in known if name != BAKED), *self._steps.fill.trees()]

    async def _prepare_database(self) -> None:
        tree, manifest = self._layout.tree(self._admitted.release), self._admitted.manifest
        folder = self._layout.snapshots / self.journal.transaction
        async with self._phase("snapshot"):
            if await self._steps.schema.save(tree, manifest, folder):
                self._rescue = f"; {how_to_go_back(folder / DUMP_FILE)}"
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
        """Commit 1. From here on a kill leaves the new release on trial. A disk too full for it refuses the release."""
        good, new = self._records.state.good, self._admitted.release
        await in_thread(lambda: lend(self._layout, good, [new]))
        state = activated(self._records.state, self._admitted.release, self._known)
        await self._records.change(state, use_reserve=False)

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

    async def _end(self, outcome: str, reason: str) -> str:
        """Back to the release of before, and written down; a full disk must not hide why.

        Gives what is to be added to the reason: empty, or why it is not written down.
        """
        with anyio.CancelScope(shield=True):
            self._records.owe(replace(self.journal, phases=self.report.phases), outcome, reason)
            try:
                await in_thread(self._give_room)
                await self._records.change(self._without(reason))
                await self._records.settle()
            except OSError as error:
                return f"; and that is not written down yet, as the supervisor {of_disk(error, self._layout.root)}"
        return ""

    def _give_room(self) -> None:
        """What was staged is what a full disk is full of, and the reserve is for what must be written now."""
        release_reserve(self._layout)
        self._tidy()
        empty_trash(self._layout)

    def _tidy(self) -> None:
        discard(self._layout, self._staging)

    def _without(self, reason: str) -> State:
        """The state as it was, with what is known of the new release; only one whose tree lies there is remembered."""
        state, at = self._records.state, self._records.now()
        if state.trial:
            return fallen_back(state, reason, at)
        if self.journal.mark not in SEALED:
            return state
        known = replace(self._known, failed=reason, at=at)
        if self.journal.mark not in MIGRATED:
            known = replace(known, schema=(0, 0))  # the database is not of its shape
        return state.with_known(self._admitted.release, known).with_schema(known.schema)

    async def _mark(self, mark: Mark) -> None:
        self.journal = replace(self.journal.at(mark), phases=dict(self.report.phases))
        await self._records.mark(self.journal)

    @asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            yield
        except OSError as error:
            raise ReleaseError(f"in step {name!r} the supervisor {of_disk(error, self._layout.root)}") from error
        finally:
            self.report.phases[name] = round(time.monotonic() - started, 4)
