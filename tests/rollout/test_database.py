"""The database before a release: saved where it asks for it, with nothing left of what failed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from supervisor.core.errors import MigrationError, StoppingError, SupervisorError
from supervisor.core.events import Event, MigrationsFinished, Notice
from supervisor.core.requests import Request, Result
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.migrations.sql_folder import SqlFolder
from supervisor.planning.home import AppHome
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.snapshots import kept
from supervisor.releases.space import Space
from supervisor.rollout import database as room
from supervisor.rollout.app_releases import AppReleases
from supervisor.rollout.database import Database
from supervisor.services.backend import run_and_quote
from supervisor.services.binaries import find_postgres, system_places
from supervisor.services.dump.dump import DatabaseDumps
from supervisor.services.dump.local import LocalPrograms
from tests.migrations.conftest import Database as Postgres
from tests.migrations.conftest import database, server
from tests.releases.rig import NOW
from tests.releases.test_base import manifest

__all__ = ["database", "server"]
pytestmark = [pytest.mark.anyio, pytest.mark.servers]
RELEASE = "1.0-0123456789ab"


@dataclass
class Parts:
    """Of a daemon: the database's part. `migrations` are those of what serves."""

    made: DatabaseDumps | None = None
    migrations: SqlFolder | None = None

    @property
    def catalog(self) -> Parts:
        return self

    @property
    def plan(self) -> Parts:
        return self

    def dumps(self) -> DatabaseDumps | None:
        return self.made


@dataclass
class Place:
    layout: Layout
    parts: Parts
    events: list[Event] = field(default_factory=list)
    turns: list[Request] = field(default_factory=list)
    stops: bool = False

    @property
    def database(self) -> Database:
        return Database(
            name="app",
            part=cast(Any, self.parts),
            layout=self.layout,
            turn=self.turn,
            publish=self.events.append,
            now=lambda: NOW,
        )

    async def turn(self, request: Request, work: Callable[[], Awaitable[None]]) -> None:
        self.turns.append(request)
        if self.stops:
            raise StoppingError("the supervisor is stopping")
        await work()

    async def save(self, *, wanted: bool = True) -> bool:
        return await self.database.save(self.layout.tree(RELEASE), asking(wanted), self.layout.snapshots / "t1")


def asking(wanted: bool) -> Manifest:
    return manifest(migrations={"snapshot": wanted})


@pytest.fixture
async def place(tmp_path: Path, database: Postgres) -> AsyncIterator[Place]:
    await database.execute("CREATE TABLE notes AS SELECT 'kept' AS note")
    layout = Layout(tmp_path / "app")
    layout.root.mkdir()
    folder = find_postgres(None, places=system_places("")).folder
    async with anyio.create_task_group() as group:
        reaper = Reaper()
        await group.start(reaper.run)

        async def run(command: Command) -> tuple[int, str]:
            return await run_and_quote(reaper, command, Ring(command.name), limit_seconds=30)

        programs = LocalPrograms(database.dsn, find=lambda _: folder, run=run, path="")
        yield Place(layout, Parts(DatabaseDumps(database.dsn, programs, 30)))
        group.cancel_scope.cancel()


async def test_snapshot_is_proved_kept_and_told(place: Place) -> None:
    assert await place.save()
    (saved,) = kept(place.layout)
    assert (saved.release, saved.at, saved.tables) == (RELEASE, NOW, 1)
    assert Path(saved.file).stat().st_size == saved.bytes
    (told,) = place.events
    assert isinstance(told, Notice)
    assert "the database is saved before release 1.0-0123456789ab: 1 tables" in told.message
    assert await place.database.bytes_needed(asking(True)) > 1_000_000


async def test_release_that_does_not_ask_for_one_needs_neither_room_nor_a_database(place: Place) -> None:
    place.parts.made = None
    assert not await place.save(wanted=False)
    assert await place.database.bytes_needed(asking(False)) == 0
    assert not place.layout.snapshots.exists()


async def test_snapshot_of_no_database_is_refused_with_what_to_do(place: Place) -> None:
    place.parts.made = None
    with pytest.raises(ReleaseError, match="there is none; set DATABASE_URL"):
        await place.save()
    with pytest.raises(ReleaseError, match="there is none"):
        await place.database.bytes_needed(asking(True))


async def test_snapshot_without_room_is_refused_before_it_is_begun(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "read_space", lambda folder: Space(10**9, 10**7))
    with pytest.raises(ReleaseError, match="bytes are missing on the disk"):
        await place.save()
    assert not place.layout.snapshots.exists()


async def test_snapshot_that_fails_leaves_nothing(place: Place, tmp_path: Path) -> None:
    made = place.parts.made
    assert made is not None
    programs = LocalPrograms(made.dsn, find=lambda _: tmp_path, run=cast(Any, None), path="")
    place.parts.made = DatabaseDumps(made.dsn, programs, 30)
    with pytest.raises(SupervisorError, match="there is no pg_dump"):
        await place.save()
    assert not list(place.layout.snapshots.iterdir())
    assert not list(place.layout.trash.iterdir())
    assert place.events == []


@pytest.mark.parametrize(
    "operation",
    [
        "supervisor.rollout.database.begin",
        "supervisor.services.dump.dump._make",
        "supervisor.services.dump.dump._sync",
        "supervisor.releases.snapshots.sync_folder",
        "supervisor.releases.snapshots.write_atomic",
    ],
)
async def test_snapshot_over_the_quota_is_refused_with_what_to_do_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "database.dump")

    monkeypatch.setattr(operation, refuse)
    why = "cannot save the database, as the supervisor cannot use 'database.dump': disk quota exceeded; make room there"
    with pytest.raises(ReleaseError, match=re.escape(why)):
        await place.save()
    assert not place.layout.snapshots.exists() or not list(place.layout.snapshots.iterdir())
    assert not list(place.layout.trash.iterdir())
    monkeypatch.undo()
    assert await place.save()


async def test_contract_migrations_run_in_a_turn_and_are_told(place: Place, database: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "1_a.sql").write_text("-- supervisor: contract\nDROP TABLE notes;")
    assert (await place.database.due(), await place.database.apply()) == ((), ())
    place.parts.migrations = SqlFolder(folder, Secret(database.dsn.reveal()), lock_name="app", deadline_seconds=20)
    place.stops = True
    with pytest.raises(StoppingError):
        await place.database.apply()
    place.stops = False
    assert await place.database.due() == ("1_a.sql",)
    assert await place.database.apply() == ("1_a.sql",)
    assert await database.tables() == set()
    assert [request.target for request in place.turns] == ["app", "app", "app"]
    (told,) = place.events
    assert isinstance(told, MigrationsFinished)
    assert (told.applied, told.due) == (("1_a.sql",), ())
    (folder / "2_b.sql").write_text("-- supervisor: contract\nDROP TABLE notes;")
    with pytest.raises(MigrationError, match='table "notes" does not exist'):
        await place.database.apply()


async def test_contract_is_refused_where_something_else_than_the_active_release_serves(tmp_path: Path) -> None:
    releases = AppReleases(
        "app",
        Settings(),
        tmp_path,
        environ={},
        reaper=cast(Any, None),
        turn=cast(Any, None),
        publish=lambda event: None,
    )
    await releases.open()
    releases.connect(cast(Any, SimpleNamespace(plan=SimpleNamespace(home=AppHome(), migrations=None))))
    assert (await releases.contract("test", give_up=True)).reason == "no contract migrations are due"
    home = AppHome(releases.layout.tree(RELEASE), asking(False))
    releases.connect(cast(Any, SimpleNamespace(plan=SimpleNamespace(home=home, migrations=None))))
    outcome = await releases.contract("test", give_up=True)
    assert outcome.result is Result.REJECTED
    assert "so another serves" in outcome.reason
