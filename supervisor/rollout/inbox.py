"""Releases that are put into a folder, as by `docker cp`: taken in once they lie there whole. Wiring."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from supervisor.core.errors import SupervisorError
from supervisor.core.events import Notice, Publish, Warned
from supervisor.release_desk import ReleaseDesk
from supervisor.releases.manifest import MAX_MANIFEST_BYTES, parse_manifest
from supervisor.releases.receive import blocks_of
from supervisor.releases.seal import MANIFEST_FILE
from supervisor.releases.trust import read_signatures, read_small

LOOK_SECONDS = 2.5
_STILL_SECONDS = 1.0
_MOST_FOLDERS = 16
_MOST_FILES = 100
REFUSED = "refused.txt"
ACTOR = "file"

Seen = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Found:
    """A folder with a manifest in it: what lies there, by name, size and time."""

    folder: Path
    seen: Seen

    @property
    def manifest(self) -> Path:
        """Its manifest."""
        return self.folder / MANIFEST_FILE


def look(inbox: Path) -> list[Found]:
    """The inbox itself, and each folder in it, that has a manifest. Blocks; what cannot be read is not there."""
    folders = [inbox, *_folders(inbox)]
    found = [Found(folder, _seen(folder)) for folder in folders[: _MOST_FOLDERS + 1]]
    return [one for one in found if any(name == MANIFEST_FILE for name, _, _ in one.seen)]


def _folders(inbox: Path) -> list[Path]:
    try:
        with os.scandir(inbox) as items:
            return sorted(Path(item.path) for item in items if item.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _seen(folder: Path) -> Seen:
    return tuple(sorted(_files(folder)))[:_MOST_FILES]


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as items:
            for item in items:
                status = item.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield item.name, status.st_size, status.st_mtime_ns
    except OSError:
        return


def archive_of(found: Found) -> Path | None:
    """The archive, once it is as long as the manifest says. Raises ReleaseError for a manifest that is none."""
    manifest = parse_manifest(read_small(found.manifest, MAX_MANIFEST_BYTES))
    wanted = (manifest.archive.file, manifest.archive.size)
    return found.folder / wanted[0] if wanted in {(name, size) for name, size, _ in found.seen} else None


class Inbox:
    """Long-lived. What was taken in is deleted; of what was refused the manifest is renamed, so that it is not tried
    again, and the reason is written beside it.
    """

    def __init__(self, folder: Path, desk: ReleaseDesk, publish: Publish) -> None:
        self._folder = folder
        self._desk = desk
        self._publish = publish

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            for found in await anyio.to_thread.run_sync(look, self._folder):
                await self._take(found)
            await anyio.sleep(LOOK_SECONDS)

    async def _take(self, found: Found) -> None:
        """Wait until nobody writes there any more, then bring it into service."""
        await anyio.sleep(_STILL_SECONDS)
        again = await anyio.to_thread.run_sync(_seen, found.folder)
        if again != found.seen:
            return
        try:
            archive = await anyio.to_thread.run_sync(archive_of, found)
            if archive is None:
                return
            reason = await self._apply(found, archive)
        except (SupervisorError, OSError) as error:
            reason = str(error)
        await anyio.to_thread.run_sync(_put_away, found, reason)
        if reason:
            self._publish(Warned(message=f"the release in {str(found.folder)!r} is refused: {reason}"))

    async def _apply(self, found: Found, archive: Path) -> str:
        """Why it did not come into service; empty where it did."""
        data, signatures = await anyio.to_thread.run_sync(_read, found.manifest)
        self._publish(Notice(message=f"a release was put into {str(found.folder)!r}"))
        offer = await self._desk.offer(data, signatures, allow_downgrade=False)
        outcome = await self._desk.accept(offer["offer"], blocks_of(archive), ACTOR)
        return "" if outcome.ok else outcome.reason


def _read(manifest: Path) -> tuple[bytes, list[bytes]]:
    return read_small(manifest, MAX_MANIFEST_BYTES), read_signatures(manifest)


def _put_away(found: Found, reason: str) -> None:
    if reason:
        found.manifest.rename(found.manifest.with_name(f"{MANIFEST_FILE}.refused"))
        (found.folder / REFUSED).write_text(reason + "\n")
        return
    for name, _, _ in found.seen:
        (found.folder / name).unlink(missing_ok=True)
