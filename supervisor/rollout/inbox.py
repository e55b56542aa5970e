"""Releases that are put into a folder, as by `docker cp`: taken in once they lie there whole. Wiring."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from supervisor.core.errors import RejectedError, SupervisorError
from supervisor.core.events import Notice, Publish, Warned
from supervisor.core.requests import Result
from supervisor.releases.manifest import MAX_MANIFEST_BYTES, Manifest
from supervisor.releases.model import of_disk
from supervisor.releases.receive import blocks_of
from supervisor.releases.seal import MANIFEST_FILE
from supervisor.releases.trust import read_signatures, read_small
from supervisor.rollout.desk import ReleaseDesk

LOOK_SECONDS = 2.5
STILL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
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


@dataclass(frozen=True)
class _Waiting:
    """A folder that lacks something: what lay there, and until when it is waited for without anything coming."""

    seen: Seen
    until: float


class Inbox:
    """Long-lived. What was taken in is deleted; of what was refused the manifest is renamed, so that it is not tried
    again, and the reason is written beside it.
    """

    def __init__(
        self,
        folder: Path,
        desk: ReleaseDesk,
        publish: Publish,
        *,
        look_seconds: float = LOOK_SECONDS,
        still_seconds: float = STILL_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._folder = folder
        self._desk = desk
        self._publish = publish
        self._pause = look_seconds
        self._still = still_seconds
        self._patience = patience_seconds
        self._waiting: dict[Path, _Waiting] = {}

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            found = await anyio.to_thread.run_sync(look, self._folder)
            self._waiting = {one.folder: self._waiting[one.folder] for one in found if one.folder in self._waiting}
            for one in found:
                await self._take(one)
            await anyio.sleep(self._pause)

    async def _take(self, found: Found) -> None:
        """Wait until nobody writes there any more, then bring it into service."""
        waiting = self._waiting.get(found.folder)
        if waiting is None or waiting.seen != found.seen:
            waiting = None
            await anyio.sleep(self._still)
            if await anyio.to_thread.run_sync(_seen, found.folder) != found.seen:
                return
        elif anyio.current_time() < waiting.until:
            return
        await self._settle(found, is_late=waiting is not None)

    async def _settle(self, found: Found, *, is_late: bool) -> None:
        try:
            reason = await self._apply(found)
        except _IncompleteError as error:
            if not is_late:
                self._waiting[found.folder] = _Waiting(found.seen, anyio.current_time() + self._patience)
                self._publish(Notice(message=f"the release in {str(found.folder)!r} is not whole yet: {error}"))
                return
            reason = str(error)
        except OSError as error:
            reason = of_disk(error, found.folder)
        except SupervisorError as error:
            reason = str(error)
        if reason is None:
            return
        if reason:
            self._publish(Warned(message=f"the release in {str(found.folder)!r} is refused: {reason}"))
        try:
            await anyio.to_thread.run_sync(_put_away, found, reason)
        except OSError as error:
            self._waiting[found.folder] = _Waiting(found.seen, math.inf)
            why = of_disk(error, found.folder)
            self._publish(Warned(message=f"the release in {str(found.folder)!r} cannot be put away: {why}"))

    async def _apply(self, found: Found) -> str | None:
        """Why it is not in service; empty where it is, None where it is left for the next start."""
        data, signatures = await anyio.to_thread.run_sync(_read, found.manifest)
        try:
            examined = await self._desk.examine(data, signatures, allow_downgrade=False)
        except RejectedError as error:
            raise error if signatures else _IncompleteError(str(error)) from error
        release = examined.admitted.release
        if self._desk.is_active(release):
            return ""
        if failed := self._desk.why_failed(release):
            return f"it did not hold before: {failed}; to try it again apply it with `supervisor release apply`"
        archive = archive_of(found, examined.admitted.manifest)
        self._publish(Notice(message=f"a release was put into {str(found.folder)!r}"))
        outcome = await self._desk.bring_in(examined, blocks_of(archive), ACTOR)
        if outcome.result is Result.CANCELLED:
            return None
        return "" if outcome.ok else outcome.reason


class _IncompleteError(SupervisorError):
    """Something may still come."""


def archive_of(found: Found, manifest: Manifest) -> Path:
    """The archive, once it is as long as the manifest says. Raises an error that says what is lacking."""
    name, wanted = manifest.archive.file, manifest.archive.size
    size = next((size for each, size, _ in found.seen if each == name), None)
    if size is None:
        raise _IncompleteError(f"its archive {name!r} is not there; copy it into the same folder")
    if size < wanted:
        raise _IncompleteError(f"its archive {name!r} has {size:,} of {wanted:,} bytes; copy it again")
    return found.folder / name


def _read(manifest: Path) -> tuple[bytes, list[bytes]]:
    return read_small(manifest, MAX_MANIFEST_BYTES), read_signatures(manifest)


def _put_away(found: Found, reason: str) -> None:
    if reason:
        found.manifest.rename(found.manifest.with_name(f"{MANIFEST_FILE}.refused"))
        (found.folder / REFUSED).write_text(reason + "\n")
        return
    for name, _, _ in found.seen:
        (found.folder / name).unlink(missing_ok=True)
