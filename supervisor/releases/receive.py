"""Our private copy of an archive: what is checked and unpacked later is what was counted and hashed here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.releases.model import ReleaseError

_BLOCK = 1024 * 1024
_WRITE_BYTES = 64 * 1024
"""To one write. A filesystem with large folios asks for memory in pieces as large as the write: for want of such pieces
1 MiB at once took up to ten times as long (ext4, Linux 6.18), and it is no faster where there are some.
"""


@dataclass(frozen=True)
class Receipt:
    """What came: bytes, and their SHA-256 in hex."""

    size: int
    sha256: str


async def receive(blocks: AsyncIterator[bytes], to: Path, *, limit_bytes: int) -> Receipt:
    """Write `blocks` to the new file `to`, whose folder is made and is ours alone.

    Raises ReleaseError as soon as there are more than `limit_bytes`, and OSError; what was written stays then.
    """
    copy = _Copy(to)
    await anyio.to_thread.run_sync(copy.open)
    try:
        async for block in blocks:
            if copy.size + len(block) > limit_bytes:
                raise ReleaseError(
                    f"cannot receive the archive: it has more than the {limit_bytes} bytes that its manifest says; "
                    f"send the archive that was built with this manifest"
                )
            await anyio.to_thread.run_sync(copy.write, block)
    finally:
        copy.close()
    return Receipt(copy.size, copy.sha256)


class _Copy:
    """The file being written, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._descriptor = -1
        self.size = 0

    def open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)

    def write(self, block: bytes) -> None:
        self._digest.update(block)
        view = memoryview(block)
        while view:
            view = view[os.write(self._descriptor, view[:_WRITE_BYTES]) :]
        self.size += len(block)

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


async def blocks_of(path: Path) -> AsyncIterator[bytes]:
    """A file's blocks of 1 MiB. Raises OSError."""
    async with await anyio.open_file(path, "rb") as file:
        while block := await file.read(_BLOCK):
            yield block
