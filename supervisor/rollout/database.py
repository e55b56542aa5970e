"""The database, as far as releases change it: saved before them, migrated, and in the end contracted. Wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from supervisor.core.errors import SupervisorError
from supervisor.core.events import Notice, Publish
from supervisor.core.requests import Request, Verb
from supervisor.migrate import contract, migrate
from supervisor.planning.home import AppHome
from supervisor.planning.part import AppPart
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError, of_disk
from supervisor.releases.recovery import discard, empty_trash
from supervisor.releases.snapshots import Snapshot, begin, keep
from supervisor.releases.space import Need, read_space, why_no_room
from supervisor.rollout.candidate import Turn
from supervisor.services.dump.dump import DatabaseDumps


@dataclass(frozen=True, kw_only=True)
class Database:
    """See `Schema` and `Contracts`. `now` gives the time in UTC as text."""

    name: str
    part: AppPart
    layout: Layout
    turn: Turn
    publish: Publish
    now: Callable[[], str]

    async def bytes_needed(self, manifest: Manifest) -> int:
        """What its snapshot may take on the disk. Raises ReleaseError, UnreachableError."""
        return await self._dumps().bytes_needed() if manifest.migrations.snapshot else 0

    async def save(self, tree: Path, manifest: Manifest, folder: Path) -> bool:
        """See `Schema`. Raises ReleaseError, SupervisorError, OSError, with nothing left of it."""
        if not manifest.migrations.snapshot:
            return False
        dumps = self._dumps()
        # Asked again: staging may have been long ago, or been left out.
        if lacks := await self._lacks(await dumps.bytes_needed()):
            raise ReleaseError(f"cannot save the database in {str(folder)!r}: {lacks}")
        saved = False
        try:
            snapshot = await self._saved(dumps, tree.name, folder)
            saved = True
        except SupervisorError as error:
            # pg_dump may well end with 0 on a full disk (seen), and its file be found empty.
            if not (lacks := await self._lacks(0)):
                raise
            raise ReleaseError(f"{error}; it may be for want of room: {lacks}") from error
        except OSError as error:
            raise ReleaseError(f"cannot save the database, as the supervisor {of_disk(error, folder)}") from error
        finally:
            if not saved:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_drop, self.layout, folder)
        self.publish(
            Notice(
                message=f"the database is saved before release {tree.name}: {snapshot.tables} tables, "
                f"{snapshot.bytes:,} bytes in {snapshot.file!r}"
            )
        )
        return True

    async def _lacks(self, dump_bytes: int) -> str:
        """What is missing on the disk for a dump of so many bytes; empty where nothing is."""
        space = await anyio.to_thread.run_sync(read_space, self.layout.root)
        return "; ".join(why_no_room(Need(0, 0, dump_bytes), space))

    async def _saved(self, dumps: DatabaseDumps, release: str, folder: Path) -> Snapshot:
        file = await anyio.to_thread.run_sync(begin, folder)
        dump = await dumps.save(file)
        snapshot = Snapshot(release=release, at=self.now(), file=str(file), bytes=dump.bytes, tables=dump.tables)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(keep, folder, snapshot)
        return snapshot

    def _dumps(self) -> DatabaseDumps:
        found = self.part.dumps()
        if found is None:
            raise ReleaseError(
                "cannot save the database: the release asks for it, and there is none; set DATABASE_URL, run with "
                "Postgres, or build the release without `migrations.snapshot`"
            )
        return found

    async def expand(self, tree: Path, manifest: Manifest) -> None:
        """Apply what is pending in the release's tree. Raises MigrationError, UnreachableError, ConfigurationError."""
        await migrate(self.name, self.part.plan_in(AppHome(tree, manifest)).migrations, self.publish)

    async def due(self) -> tuple[str, ...] | None:
        """See `Contracts`. Raises MigrationError, UnreachableError."""
        migrations = self.part.plan.migrations
        return await migrations.due() if migrations is not None else ()

    async def apply(self) -> tuple[str, ...]:
        """See `Contracts`. In a turn of its own: nothing is reloaded meanwhile."""
        applied: list[str] = []

        async def work() -> None:
            applied.extend(await contract(self.name, self.part.plan.migrations, self.publish))

        await self.turn(Request(Verb.RELOAD, "release", self.name), work)
        return tuple(applied)


def _drop(layout: Layout, folder: Path) -> None:
    discard(layout, folder)
    empty_trash(layout)
