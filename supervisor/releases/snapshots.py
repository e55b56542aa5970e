"""Snapshots of the database, each beside the record that it was proved: a folder without one holds nothing of worth."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from supervisor.releases.layout import Layout
from supervisor.store.files import sync_folder, write_atomic

DUMP_FILE = "database.dump"
_RECORD_FILE = "snapshot.json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The database as it was before `release` changed it, `at` in UTC; `file` is in Postgres' custom format."""

    release: str
    at: str
    file: str
    bytes: int
    tables: int

    @property
    def how_to_restore(self) -> str:
        """The command; what was written since is lost by it."""
        return restore_command(Path(self.file))


def restore_command(dump: Path) -> str:
    """All of it or nothing, in one transaction; in a shell that has the URL."""
    return f'pg_restore --clean --if-exists --single-transaction --dbname "$DATABASE_URL" {shlex.quote(str(dump))}'


def how_to_go_back(dump: Path, of: str = "of before") -> str:
    """For the end of an error's text. `of` says which database it is."""
    return (
        f"the database {of} is saved in {str(dump)!r}: should it be needed, stop the app and restore it with "
        f"`{restore_command(dump)}`, which loses what was written since"
    )


def begin(folder: Path) -> Path:
    """Make the folder of one transaction; gives the file to save into. Blocks; raises OSError."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    return folder / DUMP_FILE


def keep(folder: Path, snapshot: Snapshot) -> None:
    """The dump is proved, and on the disk: from now on it is a snapshot. Blocks; raises OSError."""
    sync_folder(folder)
    write_atomic(folder / _RECORD_FILE, json.dumps(asdict(snapshot), indent=2) + "\n")
    sync_folder(folder.parent)
    sync_folder(folder.parent.parent)


def kept(layout: Layout) -> list[Snapshot]:
    """All of them, the oldest first. Blocks."""
    found = [snapshot for folder in _folders(layout) if (snapshot := _read(folder)) is not None]
    return sorted(found, key=lambda each: each.at)


def rescue(layout: Layout, release: str) -> str:
    """How to go back to the database as it was before `release` migrated it; empty where that is not saved. Blocks."""
    files = [Path(each.file) for each in kept(layout) if each.release == release]
    return how_to_go_back(files[-1], f"as it was before release {release}") if files else ""


def stale(layout: Layout, releases: Collection[str]) -> list[Path]:
    """Folders to delete: what was never proved, and what belongs to none of `releases`. Blocks."""
    owners = {folder: _read(folder) for folder in _folders(layout)}
    return [folder for folder, found in owners.items() if found is None or found.release not in releases]


def _folders(layout: Layout) -> list[Path]:
    try:
        return sorted(layout.snapshots.iterdir())
    except FileNotFoundError:
        return []


def _read(folder: Path) -> Snapshot | None:
    try:
        return Snapshot(**json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
