"""What a release does not bring itself comes from the image's own tree: by links, or copied.

`missing` is pure over two listings; `Base` does it, in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.tree import RECORDS
from supervisor.store.files import point_link

BASE_FILE = "base.json"
"""In a release's records: what of the image's tree it has links to, that one's fingerprint, and when that was taken."""
_CLUTTER = frozenset({".reload-trigger", "__pycache__", ".cache"})
"""What comes and goes in an image's tree as its app runs and is reloaded."""


def is_within(path: str, folders: Sequence[str]) -> bool:
    """Whether `path` is one of `folders`, or lies in one."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def leads_to(path: str, folders: Sequence[str]) -> bool:
    """Whether one of `folders` lies in `path`."""
    return any(folder.startswith(f"{path}/") for folder in folders)


def missing(tree: Path, base: Path, manifest: Manifest, path: str = "") -> Iterator[str]:
    """Paths of the image's tree that the release's lacks, none of them within another.

    At the top that is folders only: a file that a release left out is gone. Within `merge` it is files, too; a folder
    of `replace` comes whole from the archive, and one that the archive brings otherwise as well.
    """
    for item in _listed(base / path):
        name = f"{path}/{item.name}" if path else item.name
        if name == RECORDS or is_within(name, (*manifest.replace, *manifest.shared)):
            continue
        merged = is_within(name, manifest.merge)
        place = tree / name
        if os.path.lexists(place):
            both = item.is_dir(follow_symlinks=False) and place.is_dir() and not place.is_symlink()
            if both and (merged or leads_to(name, manifest.merge)):
                yield from missing(tree, base, manifest, name)
        elif merged or (not path and item.is_dir()) or leads_to(name, manifest.merge):
            yield name


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda item: item.name)


def fingerprint(base: Path, names: Sequence[str] = ("",), *, until_ns: int | None = None) -> str:
    """SHA-256 (hex) over names, kinds, sizes and times of all in the image's tree, or in `names` of it: what a link
    leads to is the same, or it is another image's. Contents are not read, as 2 GB would be at every start.

    Files written after `until_ns` (nanoseconds since 1970) do not count: apps write some beside their code.
    """
    digest = hashlib.sha256()
    for name in sorted(path for start in names for path in _walked(base, start)):
        status = (base / name).lstat()
        if until_ns is not None and status.st_mtime_ns > until_ns:
            continue
        target = os.readlink(base / name) if os.path.islink(base / name) else ""
        fields = (name, f"{status.st_mode:o}", str(status.st_size), str(status.st_mtime_ns), target)
        digest.update("\0".join(fields).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def _walked(base: Path, path: str) -> Iterator[str]:
    """The files and links at or below `path`; none where nothing is."""
    place = base / path
    if place.is_dir() and not place.is_symlink():
        yield from _below(base, path)
    elif os.path.lexists(place):
        yield path


def _below(base: Path, path: str) -> Iterator[str]:
    for item in _listed(base / path):
        name = f"{path}/{item.name}" if path else item.name
        if item.name in _CLUTTER:
            continue
        if item.is_dir(follow_symlinks=False):
            yield from _below(base, name)
        else:
            yield name


@dataclass(frozen=True)
class Base:
    """The image's own tree, at `path`; links into it lead to `through`, which `prepare` makes a link to it."""

    path: Path
    through: Path

    def prepare(self) -> None:
        """Blocks; raises OSError."""
        self.through.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not self.through.is_symlink() or Path(os.readlink(self.through)) != self.path:
            point_link(self.through, str(self.path))

    async def fill(self, tree: Path, manifest: Manifest) -> None:
        """Complete `tree`. Raises ReleaseError, OSError; cancelling leaves a thread that ends by itself."""
        await anyio.to_thread.run_sync(self._fill, tree, manifest, abandon_on_cancel=True)

    def trees(self) -> list[Path]:
        """The image's own tree, where there is one."""
        return [self.path] if self.path.is_dir() else []

    def _fill(self, tree: Path, manifest: Manifest) -> None:
        if not self.path.is_dir():
            return
        if self.path.resolve() in tree.resolve().parents or tree.resolve() == self.path.resolve():
            raise ReleaseError(
                f"cannot complete the release from {str(self.path)!r}: releases are kept within it; set "
                f"SUPERVISOR_STATE_DIR to a folder outside of the app's"
            )
        names = list(missing(tree, self.path, manifest))
        for name in names:
            place, source = tree / name, self.path / name
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if manifest.link:
                place.symlink_to(self.through / name)
            else:
                _copy(source, place)
        if names and manifest.link:
            records = tree / RECORDS
            records.mkdir(mode=0o755, exist_ok=True)
            now = time.time_ns()
            told = {"names": names, "until_ns": now, "fingerprint": fingerprint(self.path, names, until_ns=now)}
            (records / BASE_FILE).write_text(json.dumps(told) + "\n")

    def why_unusable(self, tree: Path) -> str:
        """Why a release cannot be used on this image; empty where it can. Blocks."""
        try:
            text = (tree / RECORDS / BASE_FILE).read_text()
        except FileNotFoundError:
            return ""
        # A record that cannot be read proves nothing, and neither does a tree that changes as it is looked at.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(text)
            if fingerprint(self.path, told["names"], until_ns=told["until_ns"]) == told["fingerprint"]:
                return ""
        return (
            f"it has links into {str(self.path)!r} of another image; build it with `link = false`, or apply one "
            f"that was built for this image"
        )


def _copy(source: Path, place: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, place, symlinks=True)
    else:
        shutil.copy2(source, place, follow_symlinks=False)
