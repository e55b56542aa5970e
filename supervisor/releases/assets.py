"""Hashed files that pages of older releases still ask for: a new release carries those of the releases before it along.

Blocks. What a release brought itself is written down in its records, so that nothing is carried on for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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
