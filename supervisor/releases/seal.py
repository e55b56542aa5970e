"""From a tree that is complete to a release that lies in its place, on the disk. All of it blocks."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.tree import RECORDS, Digests, tree_digest, walk_tree
from supervisor.store.files import sync_folder, write_atomic

MANIFEST_FILE = "manifest.json"
SIGNATURE_SUFFIX = ".minisig"
DIGEST_FILE = "tree.sha256"
ADDED_FILE = "added.json"
"""In a release's records: what came into its tree after it was sealed, see `assets.lend`."""


def write_records(tree: Path, manifest: bytes, signatures: tuple[bytes, ...], digests: Digests) -> None:
    """Our records of the release, within it: the manifest's exact bytes, its signatures, and the digest of the tree as
    it lies there, with the links that it was completed with. `digests` are those of `check_tree`. Raises OSError.
    """
    records = tree / RECORDS
    records.mkdir(mode=0o755, exist_ok=True)
    (records / MANIFEST_FILE).write_bytes(manifest)
    for number, signature in enumerate(signatures):
        name = f"{MANIFEST_FILE}{f'.{number}' if number else ''}{SIGNATURE_SUFFIX}"
        (records / name).write_bytes(signature)
    (records / DIGEST_FILE).write_text(tree_digest(walk_tree(tree, digests)) + "\n")


def check_tree(tree: Path, manifest: Manifest) -> Digests:
    """Raises ReleaseError where what lies there is not what the manifest says, whoever unpacked it. Reads all of it,
    and gives what it read. Meanwhile it is synced, which takes as long. Raises OSError, also for that.
    """
    digests = Digests()
    with _syncing(tree):
        found = tree_digest(walk_tree(tree, digests))
    if found != manifest.tree.digest:
        raise ReleaseError(
            f"cannot use the unpacked tree: its digest is {found[:12]}, the manifest says {manifest.tree.digest[:12]}; "
            f"build the release again"
        )
    return digests


@contextmanager
def _syncing(tree: Path) -> Iterator[None]:
    """Bring what was written until now to the disk while the block does something else; `seal` then has little to wait
    for. Its end waits for that. Raises OSError.
    """
    with ThreadPoolExecutor(1, "sync") as thread:
        running = thread.submit(lambda: _sync_filesystem(tree))
        yield
        running.result()  # an error is given back once only: `seal` would not see it


def why_damaged(tree: Path) -> str:
    """What is wrong with a release that lies in its place; empty where it is as it was sealed. Reads all of it."""
    try:
        sealed = (tree / RECORDS / DIGEST_FILE).read_text().strip()
        later = added(tree)
        found = tree_digest(entry for entry in walk_tree(tree) if entry.path not in later)
    except (OSError, ReleaseError) as error:
        return f"it cannot be read: {error}"
    return "" if found == sealed else "its files are not what they were when it was unpacked"


def added(tree: Path) -> frozenset[str]:
    """Paths that came into a sealed tree later."""
    try:
        return frozenset(json.loads((tree / RECORDS / ADDED_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return frozenset()


def note_added(tree: Path, paths: Iterable[str]) -> None:
    """Before they come. Raises OSError."""
    write_atomic(tree / RECORDS / ADDED_FILE, json.dumps(sorted({*added(tree), *paths})) + "\n", mode=0o644)


def make_shared(layout: Layout, tree: Path, manifest: Manifest, owner: tuple[int, int] | None = None) -> None:
    """Link the folders that all releases have in common into the tree; the first release's content becomes theirs.

    A new one, with what is in it, is given to `owner` (uid, gid), as the app is to write there. Raises ReleaseError
    where something that is no folder is in the way, OSError.
    """
    for path in manifest.shared:
        place, common = tree / path, layout.shared / path
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise ReleaseError(
                f"cannot share {path!r}: in the archive it is no folder; leave it out of `shared`, or of the archive"
            )
        if common.exists():
            if place.is_dir():
                shutil.rmtree(place)
        else:
            _begin_shared(place, common, owner)
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place.symlink_to(common)


def _begin_shared(place: Path, common: Path, owner: tuple[int, int] | None) -> None:
    """The archive's own content is the beginning of a shared folder. It comes to its place once it has its owner."""
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    if owner is not None:
        for folder, _, files in os.walk(place):
            for name in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(name, *owner, follow_symlinks=False)
    common.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.rename(common)


def seal(layout: Layout, tree: Path, release: str) -> None:
    """Make `tree` durable, and put it in its place in one step, durable as well.

    One system call syncs the whole filesystem: a sync of each of 8,000 files takes 3 s, this 0.1 s (measured). It also
    gives write errors back. Raises OSError.
    """
    _sync_filesystem(tree)
    layout.kept.mkdir(mode=0o711, parents=True, exist_ok=True)
    tree.chmod(0o755)
    tree.rename(layout.tree(release))
    sync_folder(layout.kept)
    sync_folder(layout.root)


def _sync_filesystem(place: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(descriptor)
