"""What a disk may hold after its power was lost: names and data that were not synced are there, or not, or in part.

A model beside the real disk. It is stricter than any one filesystem: names that were not synced come to the disk in any
order but that of the changes of one name, a file's sync does not sync its name, and a rename is done or not.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from supervisor.releases import seal
from tests.releases.rig import DISK_CALLS

ROOT = 0
_BIG = 1024 * 1024
"""Of files from this size on only the size counts: the reserve's bytes are nobody's."""
Name = tuple[int, str]
"""A folder's number, and a name in it."""
Change = dict[Name, int | None]
"""What names lead to from now on, done as one; None: the name is gone."""


@dataclass
class Node:
    """A file, a folder or a link. `synced` is what of `data` the disk has for certain; None of a file never synced."""

    kind: str
    data: bytes = b""
    synced: bytes | None = None


@dataclass(frozen=True)
class Found:
    """A disk after the power came back: what names lead to, and what is in the files."""

    names: Mapping[Name, int]
    data: Mapping[int, bytes]
    kinds: Mapping[int, str]

    def write(self, root: Path) -> None:
        """Make `root` so, whatever is there."""
        shutil.rmtree(root, ignore_errors=True)
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), node in self.names.items():
            below.setdefault(folder, []).append((name, node))
        made: dict[int, Path] = {}
        self._fill(root, ROOT, below, made)

    def _fill(self, place: Path, number: int, below: dict[int, list[tuple[str, int]]], made: dict[int, Path]) -> None:
        place.mkdir()
        for name, node in below.get(number, []):
            if self.kinds[node] == "folder":
                self._fill(place / name, node, below, made)
            elif node in made:
                os.link(made[node], place / name, follow_symlinks=False)
            elif self.kinds[node] == "link":
                os.symlink(self.data[node], os.fsencode(place / name))
            else:
                (place / name).write_bytes(self.data[node])
            made[node] = place / name


@dataclass(frozen=True)
class Cut:
    """The disk at one moment: `synced` names are there for certain, `pending` changes came after, the oldest first."""

    synced: Mapping[Name, int]
    pending: tuple[Change, ...]
    nodes: Mapping[int, Node]

    def disks(self, chance: random.Random, count: int) -> Iterator[Found]:
        """Disks that may be left, at most `count`: all that was not synced lost, then names kept without their data,
        then those of chance.
        """
        makes: list[Callable[[], Found]] = [
            lambda: self._found((), _lost),
            lambda: self._found(self.pending, _lost),
            lambda: self._found(self._in_order(chance), lambda node: _of_chance(node, chance)),
            *[lambda: self._found(self._some(chance), lambda node: _of_chance(node, chance))] * (count - 3),
        ]
        seen: list[Found] = []
        for make in makes[:count]:
            found = make()
            if found not in seen:
                seen.append(found)
                yield found

    def _in_order(self, chance: random.Random) -> tuple[Change, ...]:
        return self.pending[: chance.randint(0, len(self.pending))]

    def _some(self, chance: random.Random) -> tuple[Change, ...]:
        """Any, but none whose name had an earlier change that is lost."""
        kept, lost = [], set[Name]()
        for change in self.pending:
            if lost & set(change) or chance.random() < 0.4:
                lost |= set(change)
            else:
                kept.append(change)
        return tuple(kept)

    def _found(self, changes: tuple[Change, ...], data: Callable[[Node], bytes]) -> Found:
        names = _after(self.synced, changes)
        nodes = {number: self.nodes[number] for number in names.values()}
        contents = {number: data(node) if node.kind == "file" else node.data for number, node in nodes.items()}
        return Found(names, contents, {number: node.kind for number, node in nodes.items()})


def _after(names: Mapping[Name, int], changes: tuple[Change, ...]) -> dict[Name, int]:
    after: dict[Name, int | None] = dict(names)
    for change in changes:
        after |= change
    return {name: node for name, node in after.items() if node is not None}


def _lost(node: Node) -> bytes:
    return node.synced or b""


def _of_chance(node: Node, chance: random.Random) -> bytes:
    """Nothing of what was not synced, half of it, zeros in its place, or all of it."""
    kept = _lost(node)
    if not node.data.startswith(kept):
        return chance.choice((kept, node.data))
    more = node.data[len(kept) :]
    return kept + chance.choice((b"", more[: len(more) // 2], bytes(len(more)), more))


@dataclass
class Recorder:
    """Watches `root`: what is on it when it begins is synced. `cuts` are the moments before each call, and the end."""

    root: Path
    cuts: list[Cut] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._nodes: dict[int, Node] = {ROOT: Node("folder")}
        self._names: dict[Name, int] = {}
        self._synced: dict[Name, int] = {}
        self._pending: list[Change] = []
        self._look()
        self._sync_all()

    def act(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One call: what was done beside our calls comes before it. Nothing is really synced, to save time."""
        self._look()
        self.cut()
        if name == "fsync":
            return self._sync(args[0])
        if name == "_sync_filesystem":
            return self._sync_all()
        try:
            return real(*args, **kwargs)
        finally:
            self._look(as_one=name in ("rename", "replace"))

    def cut(self) -> None:
        """Keep this moment."""
        nodes = {number: Node(node.kind, node.data, node.synced) for number, node in self._nodes.items()}
        self.cuts.append(Cut(dict(self._synced), tuple(self._pending), nodes))

    def end(self) -> None:
        """Nothing is done any more."""
        self._look()
        self.cut()

    def _look(self, *, as_one: bool = False) -> None:
        names: dict[Name, int] = {}
        numbers = {self.root.stat().st_ino: ROOT}
        self._walk(self.root, ROOT, names, numbers)
        self._numbers = numbers
        change: Change = {name: None for name in self._names if name not in names}
        change |= {name: node for name, node in names.items() if self._names.get(name) != node}
        self._names = names
        if as_one and change:
            self._pending.append(change)
        else:
            self._pending += [{name: node} for name, node in change.items()]

    def _walk(self, place: Path, above: int, names: dict[Name, int], numbers: dict[int, int]) -> None:
        with os.scandir(place) as found:
            for item in sorted(found, key=lambda item: item.name):
                status = item.stat(follow_symlinks=False)
                number = numbers[status.st_ino] = self._number(status)
                names[above, item.name] = number
                if item.is_dir(follow_symlinks=False):
                    self._walk(Path(item.path), number, names, numbers)
                else:
                    self._nodes[number].data = _read(Path(item.path), status)

    def _number(self, status: os.stat_result) -> int:
        """An inode's number is used again once it is free; ours are not."""
        number = self._numbers.get(status.st_ino)
        kind = _kind(status)
        if number is None or self._nodes[number].kind != kind:
            number = len(self._nodes)
            self._nodes[number] = Node(kind)
        return number

    def _sync(self, descriptor: int) -> None:
        number = self._numbers.get(os.fstat(descriptor).st_ino)
        if number is None:
            return  # none of ours
        node = self._nodes[number]
        if node.kind != "folder":
            node.synced = node.data
            return
        reached = self._reached(number)
        self._synced = _after(self._synced, tuple(self._pending[at] for at in reached))
        self._pending = [change for at, change in enumerate(self._pending) if at not in reached]

    def _reached(self, folder: int) -> list[int]:
        """The changes in a folder, and those before them that they follow."""
        wanted: set[Name] = set()
        found = []
        for at in range(len(self._pending) - 1, -1, -1):
            change = self._pending[at]
            if wanted & set(change) or any(above == folder for above, _ in change):
                wanted |= set(change)
                found.append(at)
        return found[::-1]

    def _sync_all(self) -> None:
        self._synced, self._pending = dict(self._names), []
        for node in self._nodes.values():
            node.synced = node.data


def _kind(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return "link" if stat.S_ISLNK(status.st_mode) else "file"


def _read(place: Path, status: os.stat_result) -> bytes:
    if stat.S_ISLNK(status.st_mode):
        return os.fsencode(os.readlink(place))
    return bytes(status.st_size) if status.st_size >= _BIG else place.read_bytes()


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """What is done to `root` within the block, with a cut before each call and at the end."""
    recorder = Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in DISK_CALLS:
            real = getattr(os, name)
            patch.setattr(
                os, name, lambda *args, _name=name, _real=real, **kwargs: recorder.act(_name, _real, *args, **kwargs)
            )
        synced = seal._sync_filesystem
        patch.setattr(seal, "_sync_filesystem", partial(recorder.act, "_sync_filesystem", synced))
        yield recorder
    recorder.end()


@contextmanager
def unsynced() -> Iterator[None]:
    """Nothing is really synced, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(seal, "_sync_filesystem", lambda place: None)
        yield
