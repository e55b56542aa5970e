"""Hashed files that pages of other releases still ask for: a new release carries those of the releases before it along,
and lends its own to the one that is gone back to.

Blocks. What a release brought itself is written down in its records, so that nothing is carried on for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from supervisor.releases.layout import Layout
from supervisor.releases.manifest import parse_manifest
from supervisor.releases.model import BAKED, ReleaseError
from supervisor.releases.seal import MANIFEST_FILE, note_added
from supervisor.releases.tree import RECORDS

OWN_FILE = "assets.json"
"""In a release's records: its own files below `keep_assets`."""


def carry(tree: Path, folders: Sequence[str], older: Iterable[Path]) -> int:
    """Complete `folders` of a tree from those of `older` trees, the newest first; gives how many files came.

    A file that is there is never replaced. Of a tree without our records all files below its folders count. Raises
    OSError.
    """
    if not folders:
        return 0
    own = sorted(_files(tree, folders))
    (tree / RECORDS).mkdir(mode=0o755, exist_ok=True)
    (tree / RECORDS / OWN_FILE).write_text(json.dumps(own))
    return sum(_bring(source, tree, name) for source in older for name in _own(source, folders))


def lend(layout: Layout, release: str, others: Iterable[str]) -> int:
    """A kept release gets the files of `others` that came after it, for pages which were loaded from those before a
    roll back to it; gives how many came. What cannot be lent is left out: it is no reason against anything else.

    The image's own tree is never written to. Its digest stays that of what was sealed.
    """
    if release == BAKED:
        return 0
    tree = layout.tree(release)
    with contextlib.suppress(OSError, ReleaseError):
        folders = parse_manifest((tree / RECORDS / MANIFEST_FILE).read_bytes()).keep_assets
        sources = [layout.tree(each) for each in others if each not in (release, BAKED)]
        wanted = [(source, name) for source in sources for name in _own(source, folders)]
        wanted = [(source, name) for source, name in wanted if not os.path.lexists(tree / name)]
        if not wanted:
            return 0
        note_added(tree, {path for _, name in wanted for path in _new_paths(tree, name)})
        return sum(_bring(source, tree, name) for source, name in wanted)
    return 0


def _new_paths(tree: Path, name: str) -> Iterator[str]:
    """A file with the folders that it needs and the tree does not have."""
    yield name
    for parent in PurePosixPath(name).parents:
        if not (tree / parent).exists():
            yield str(parent)


def _own(tree: Path, folders: Sequence[str]) -> list[str]:
    """What a release brought itself, as far as these folders are concerned."""
    try:
        found = json.loads((tree / RECORDS / OWN_FILE).read_text())
    except (OSError, ValueError):
        return sorted(_files(tree, folders))
    return [name for name in found if any(name.startswith(f"{folder}/") for folder in folders)]


def _files(tree: Path, folders: Sequence[str]) -> Iterator[str]:
    for folder in folders:
        for where, _, names in os.walk(tree / folder):
            for name in names:
                place = Path(where) / name
                if place.is_file() and not place.is_symlink():
                    yield str(place.relative_to(tree))


def _bring(source: Path, tree: Path, name: str) -> int:
    """A second name for the same file where that can be, else a copy: trees are never changed."""
    place = tree / name
    if os.path.lexists(place):
        return 0
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        os.link(source / name, place, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(source / name, place, follow_symlinks=False)
    return 1
