"""A place for releases with small trees, and a disk that stops after so many operations, as a kill would."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from supervisor.releases import seal
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest, manifest_bytes, manifest_id
from supervisor.releases.records import Records
from supervisor.releases.recovery import recover
from supervisor.releases.snapshots import Snapshot, begin, keep
from supervisor.releases.state import StateFile
from supervisor.releases.steps import Admitted, Steps
from supervisor.releases.transaction import Apply
from supervisor.releases.tree import tree_digest, walk_tree

NOW = "2026-11-21T12:00:00Z"
DISK_CALLS = (
    *("open", "write", "fsync", "rename", "replace", "link", "symlink", "unlink", "mkdir", "rmdir", "chmod", "fchmod"),
    *("ftruncate", "posix_fallocate", "chown"),
)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Disk:
    """Counts what changes the disk; from operation `last` on nothing is done any more."""

    last: int = 10**9
    done: int = 0

    def act(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.done >= self.last:
            raise Killed
        self.done += 1
        return real(*args, **kwargs)


@contextmanager
def disk(last: int = 10**9) -> Iterator[Disk]:
    """The disk works up to operation `last` within the block."""
    counted = Disk(last)
    with pytest.MonkeyPatch.context() as patch:
        for name in DISK_CALLS:
            real = getattr(os, name)
            patch.setattr(os, name, lambda *args, _real=real, **kwargs: counted.act(_real, *args, **kwargs))
        synced = seal._sync_filesystem
        patch.setattr(seal, "_sync_filesystem", lambda place: counted.act(synced, place))
        yield counted


def files_of(version: str) -> dict[str, str]:
    return {"server.js": f"serve({version!r})", "lib/a.js": "a", "lib/deep/b.js": version}


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def archive_of(files: dict[str, str]) -> bytes:
    """Not unpacked by anybody but `Unpacking`."""
    return repr(sorted(files.items())).encode()


@dataclass
class Unpacking:
    """Writes the tree that the archive stands for; `fails` before that."""

    trees: dict[bytes, dict[str, str]] = field(default_factory=dict)
    fails: Exception | None = None

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[Unpacking]:
        yield self

    async def unpack(self, archive: Path, to: Path, manifest: Manifest) -> None:
        if self.fails is not None:
            raise self.fails
        write_tree(to, self.trees[archive.read_bytes()])


@dataclass
class Filling:
    fails: Exception | None = None

    def trees(self) -> list[Path]:
        return []

    async def fill(self, tree: Path, manifest: Manifest) -> None:
        if self.fails is not None:
            raise self.fails


@dataclass
class Database:
    saves: bool = False
    fails: Exception | None = None
    expanded: list[str] = field(default_factory=list)

    async def save(self, tree: Path, manifest: Manifest, folder: Path) -> bool:
        if self.saves:
            file = begin(folder)
            file.write_text("all of it")
            keep(folder, Snapshot(release=tree.name, at=NOW, file=str(file), bytes=9, tables=1))
        return self.saves

    async def expand(self, tree: Path, manifest: Manifest) -> None:
        if self.fails is not None:
            raise self.fails
        self.expanded.append(manifest.version)


@dataclass
class Serving:
    """What serves, by the tree it runs from; None is the image's own."""

    tree: Path | None = None
    before: Exception | None = None
    """Raised before the commit."""
    after: Exception | None = None
    """Raised after it."""
    tried: list[str] = field(default_factory=list)

    async def try_out(
        self, tree: Path | None, manifest: Manifest | None, commit: Callable[[], Awaitable[None]]
    ) -> None:
        self.tried.append(tree.name if tree is not None else "baked")
        if self.before is not None:
            raise self.before
        await commit()
        if self.after is not None:
            raise self.after
        self.tree = tree


@dataclass
class Room:
    fails: Exception | None = None

    async def make(self, manifest: Manifest) -> None:
        if self.fails is not None:
            raise self.fails


class Place:
    """One app's releases in `root`. `steps` are all that a transaction is carried out with."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.root = root
        self.unpacking, self.filling, self.database = Unpacking(), Filling(), Database()
        self.serving, self.room = Serving(), Room()
        self.steps = Steps(
            unpack=self.unpacking, fill=self.filling, schema=self.database, candidate=self.serving, space=self.room
        )
        for folder in (root, self.layout.incoming, self.layout.kept):
            folder.mkdir(parents=True, exist_ok=True)

    def release(self, version: str, **values: Any) -> tuple[Admitted, bytes]:
        """A release, with what its manifest says, and its archive; `files` are some that it has beside its own."""
        files = files_of(version) | values.pop("files", {})
        sketch = self.root.parent / f"sketch-{version}"
        write_tree(sketch, files)
        entries = list(walk_tree(sketch))
        archive = archive_of(files)
        self.unpacking.trees[archive] = files
        manifest = Manifest.model_validate(
            {
                "format": 1,
                "app": "app",
                "version": version,
                "sequence": int(float(version) * 10),
                "created": NOW,
                "archive": {
                    "file": f"app-{version}.tar.zst",
                    "sha256": hashlib.sha256(archive).hexdigest(),
                    "size": len(archive),
                    "compression": "zstd",
                },
                "tree": {
                    "digest": tree_digest(entries),
                    "bytes": sum(entry.size for entry in entries),
                    "entries": len(entries),
                },
                **values,
            }
        )
        data = manifest_bytes(manifest)
        digest = hashlib.sha256(data).hexdigest()
        return Admitted(release=manifest_id(manifest, data), manifest=manifest, data=data, digest=digest), archive

    def apply(self, admitted: Admitted, transaction: str = "t1") -> Apply:
        records = Records(self.layout, lambda: NOW)
        records.state, _ = StateFile(self.layout).read()
        return Apply(records, admitted, self.steps, transaction=transaction, actor="test")

    def boot(self) -> Any:
        """As after a kill."""
        return recover(self.layout, at=NOW)


async def sent(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    """In blocks."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
