"""Puts carried files in place of a state folder's own: all of them or none, whatever moment a kill comes at.

The state folder may be the root of a volume, so it cannot be replaced itself. The new files are made whole in
`.import.new`; its rename to `.import` is the commit. What follows can be done again at any point, and `finish` does
so: whoever takes the state lock calls it before reading anything.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.store.files import make_folder, sync_folder, write_bytes_atomic
from supervisor.store.transfer.content import FILES, FOLDERS, NOT_CARRIED, OF_APP, RELEASES

_STAGED, _COMMITTED = ".import.new", ".import"
_PLAN, _NEW = "plan.json", "files"
_FOLDER_MODE = 0o711  # of those above a release's tree, which its app reads


@dataclass(frozen=True)
class Plan:
    """What is done after the commit: `put` and `drop` are paths, and what was there is kept in folder `kept`."""

    put: tuple[str, ...]
    drop: tuple[str, ...]
    kept: str


def units(paths: Iterable[str]) -> list[str]:
    """What is put in place in one step each: a file, or a folder with all in it. The install's record is the last."""
    found = {path.split("/")[0] if path.split("/")[0] in FOLDERS else path for path in paths}
    return sorted(found, key=lambda path: (path in FILES, FILES.index(path) if path in FILES else 0, path))


def present(state: Path) -> list[str]:
    """What of a state is in the folder; an empty folder is nothing."""
    apps = sorted(path.name for path in (state / RELEASES).iterdir()) if (state / RELEASES).is_dir() else []
    names = [f"{RELEASES}/{app}/{name}" for app in apps for name in (*OF_APP, *NOT_CARRIED)]
    there = [path for path in (*FILES, *names) if os.path.lexists(state / path)]
    return units([*there, *(folder for folder in FOLDERS if _holds(state / folder))])


def _holds(folder: Path) -> bool:
    return folder.is_symlink() or (folder.is_dir() and any(folder.iterdir()))


def place(state: Path, files: Mapping[str, bytes], *, at: str) -> Path | None:
    """Replace what is there by `files`; gives the folder where that is kept, None where there was nothing.

    For the holder of the state lock. Blocks. Raises ConfigurationError or OSError with nothing changed. `at` is for the
    name of the folder.
    """
    finish(state)
    before, new = present(state), units(files)
    _refuse_ways_out(state, {*before, *new})
    kept = next(name for name in _numbered(f"state-before-import-{at}") if not os.path.lexists(state / name))
    plan = Plan(tuple(new), tuple(path for path in before if path not in new), kept)
    try:
        _stage(state, files, plan)
        (state / _STAGED).rename(state / _COMMITTED)
    except BaseException:
        shutil.rmtree(state / _STAGED, ignore_errors=True)
        raise
    sync_folder(state)
    finish(state)
    return state / kept if before else None


def finish(state: Path) -> bool:
    """Carry an import that was committed to its end, and forget one that was not; whether there was one."""
    if os.path.lexists(state / _STAGED):
        shutil.rmtree(state / _STAGED)
    if not os.path.lexists(state / _COMMITTED):
        return False
    try:
        plan = Plan(**json.loads((state / _COMMITTED / _PLAN).read_bytes()))
    except FileNotFoundError:
        shutil.rmtree(state / _COMMITTED)
        return False
    for path in plan.drop:
        _set_aside(state / path, state / plan.kept / path, state)
    for path in plan.put:
        _put(state, path, plan)
    for folder in {(state / path).parent for path in (*plan.put, *plan.drop)} | {state}:
        if folder.is_dir():
            sync_folder(folder)
    (state / _COMMITTED / _PLAN).unlink()
    sync_folder(state / _COMMITTED)
    shutil.rmtree(state / _COMMITTED)
    return True


def is_unfinished(state: Path) -> bool:
    """Whether an import was cut short after its commit."""
    return (state / _COMMITTED / _PLAN).exists()


def _put(state: Path, path: str, plan: Plan) -> None:
    new = state / _COMMITTED / _NEW / path
    if not os.path.lexists(new):
        return  # it is in place already
    _make_above(state, path, mode=_FOLDER_MODE)
    if new.is_dir() and not _holds(state / path):
        pass  # an empty folder is replaced in one step
    elif new.is_dir():
        _set_aside(state / path, state / plan.kept / path, state)
    else:
        _keep(state / path, state / plan.kept / path, state)
    new.replace(state / path)


def _keep(place: Path, kept: Path, state: Path) -> None:
    """A second name of a file, so that the one in `place` is the old or the new at every moment."""
    if os.path.lexists(place) and not os.path.lexists(kept):
        _make_above(state, str(kept.relative_to(state)), mode=0o700)
        try:
            os.link(place, kept)
        except OSError:  # a filesystem without: then there is a moment without the file
            place.rename(kept)
        sync_folder(kept.parent)


def _set_aside(place: Path, kept: Path, state: Path) -> None:
    """A folder, or a file that nothing replaces. One that was made since the last try is kept beside the first."""
    if os.path.lexists(place):
        _make_above(state, str(kept.relative_to(state)), mode=0o700)
        place.rename(next(path for path in map(Path, _numbered(str(kept))) if not os.path.lexists(path)))
        sync_folder(kept.parent)


def _stage(state: Path, files: Mapping[str, bytes], plan: Plan) -> None:
    """All of it is on the disk once it returns, with the owner of the state folder."""
    root = state / _STAGED
    root.mkdir(mode=0o700)
    for path, data in files.items():
        file = root / _NEW / path
        _make_above(root, f"{_NEW}/{path}", mode=0o700)
        write_bytes_atomic(file, data)
    write_bytes_atomic(root / _PLAN, json.dumps(asdict(plan)).encode())
    if (owner := _owner(state)) is not None:
        for folder, _, names in os.walk(root):
            for made in (folder, *(f"{folder}/{name}" for name in names)):
                _give(made, owner)


def _give(path: str, owner: tuple[int, int]) -> None:
    """Durably: a file that is there and is not its user's cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, *owner)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_above(state: Path, path: str, *, mode: int) -> None:
    """The folders between, of the state folder's owner; those that are there stay as they are."""
    for above in reversed(Path(path).parents[:-1]):
        if not (state / above).is_dir():
            make_folder(state / above, mode=mode, owner=_owner(state))
            sync_folder((state / above).parent)


def _owner(state: Path) -> tuple[int, int] | None:
    """Whose the new files are to be, where we may say so."""
    found = state.stat()
    return (found.st_uid, found.st_gid) if os.geteuid() == 0 else None


def _refuse_ways_out(state: Path, paths: Iterable[str]) -> None:
    """A link would lead the new files elsewhere, and from one volume to another nothing moves in one step."""
    device = state.stat().st_dev
    above = {str(parent) for path in paths for parent in Path(path).parents[:-1]}
    folders = {*FOLDERS, *above}
    for path in sorted({*folders, *paths}):
        place = state / path
        if not os.path.lexists(place):
            continue
        what = ""
        if place.is_symlink():
            what = "a link"
        elif place.is_dir() != (path in folders):
            what = "a folder" if place.is_dir() else "no folder"
        elif place.stat().st_dev != device:
            what = "a mount of its own"
        if what:
            raise ConfigurationError(
                f"cannot import into {str(place)!r}: it is {what}, and a state is replaced in one step, by plain files "
                f"and folders of one volume; put one in its place"
            )


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}.{number}" for number in itertools.count(1))
