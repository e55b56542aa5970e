"""A folder of a container that is kept on a volume: its files read, and exchanged whole even while they are watched."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from supervisor.engine.client import Engine
from supervisor.engine.errors import EngineRefused, NotFound

_STAGED = ".staged"
_EXEC_SECONDS = 10.0
GONE = b"# nothing any more: the file that was here has been removed\n"


@dataclass(frozen=True)
class File:
    """A file's whole content, and its mode."""

    data: bytes
    mode: int = 0o644


Files = Mapping[str, File]
"""Files by their path relative to the folder."""


class ContainerFolder:
    """The folder at `path` in containers. Everything raises the engine's errors."""

    def __init__(self, engine: Engine, path: str) -> None:
        self._engine = engine
        self._path = path

    async def read(self, container: str, name: str) -> dict[str, bytes]:
        """The file of this name in the folder, or those below a subfolder; none where there is no such."""
        try:
            tar = await self._engine.containers.get_archive(container, f"{self._path}/{name}")
        except NotFound:
            return {}
        return unpack(tar)

    async def write(self, container: str, files: Files, gone: Collection[str], *, folders: Mapping[str, int]) -> None:
        """Take away those that are `gone`, and put `files` there, in their order. `folders` are made, with their modes.

        In a container that runs, each file changes in one step where the image has `mv`: whoever watches the folder
        never reads half of one. Otherwise, and while it does not run, what is gone becomes a file of one comment.
        """
        running = bool((await self._engine.containers.inspect(container))["State"].get("Running"))
        if running and await self._exchange(container, files, gone, folders):
            return
        await self._put(container, {**{name: File(GONE) for name in gone}, **files}, folders)

    async def _exchange(self, container: str, files: Files, gone: Collection[str], folders: Mapping[str, int]) -> bool:
        """Whether it could be done."""
        staged = {f"{_STAGED}/{name}": file for name, file in files.items()}
        parents = dict.fromkeys(_parents(files), 0o755)
        await self._put(container, staged, {_STAGED: 0o700, **parents, **folders})
        moves = [("mv", "-f", f"{self._path}/{_STAGED}/{name}", f"{self._path}/{name}") for name in files]
        removals = [("rm", "-f", *(f"{self._path}/{name}" for name in sorted(gone)))] if gone else []
        return all([await self._succeeds(container, argv) for argv in (*removals, *moves)])

    async def _succeeds(self, container: str, argv: tuple[str, ...]) -> bool:
        try:
            ended = await self._engine.containers.exec(container, argv, timeout_seconds=_EXEC_SECONDS)
        except EngineRefused:  # no such program in the image, or the container has just ended
            return False
        return ended.exit_code == 0

    async def _put(self, container: str, files: Files, folders: Mapping[str, int]) -> None:
        await self._engine.containers.put_archive(container, self._path, pack(files, folders))


def pack(files: Files, folders: Mapping[str, int]) -> bytes:
    """A tar of root's files. Folders that are missing in `folders` get 0755."""
    packed = io.BytesIO()
    modes = dict.fromkeys(_parents(files), 0o755) | dict(folders)
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in sorted(modes):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, modes[name]
            tar.addfile(member)
        for name, file in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(file.data), file.mode
            tar.addfile(member, io.BytesIO(file.data))
    return packed.getvalue()


def unpack(tar: bytes) -> dict[str, bytes]:
    """The plain files of a tar; names that lead out of it are left out, as its maker need not be trusted."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for member in opened:
            path = PurePosixPath(member.name)
            if member.isfile() and not path.is_absolute() and ".." not in path.parts:
                content = opened.extractfile(member)
                assert content is not None
                files[str(path)] = content.read()
    return files


def _parents(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from (str(parent) for parent in PurePosixPath(name).parents if parent.name)
