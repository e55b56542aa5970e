"""An archive comes to lie whole in a file of ours, or is refused as soon as it is too long."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.releases.model import ReleaseError
from supervisor.releases.receive import Receipt, blocks_of, receive

pytestmark = pytest.mark.anyio
DATA = os.urandom(1024 * 1024 + 70_001)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    place = tmp_path / "sent"
    place.write_bytes(DATA)
    return place


async def test_file_is_received_whole_with_its_digest(archive: Path, tmp_path: Path) -> None:
    to = tmp_path / "staging" / "archive"
    receipt = await receive(blocks_of(archive), to, limit_bytes=len(DATA))
    assert receipt == Receipt(len(DATA), hashlib.sha256(DATA).hexdigest())
    assert to.read_bytes() == DATA
    assert stat.S_IMODE(to.stat().st_mode) == 0o600


async def test_what_the_disk_takes_in_parts_is_written_whole(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr("supervisor.releases.receive.os.write", lambda descriptor, data: write(descriptor, data[:999]))
    await receive(blocks_of(archive), tmp_path / "archive", limit_bytes=len(DATA))
    monkeypatch.undo()
    assert (tmp_path / "archive").read_bytes() == DATA


async def test_archive_that_is_too_long_is_refused_before_it_has_all_come(tmp_path: Path) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"x" * 1000

    with pytest.raises(ReleaseError, match="it has more than the 2500 bytes that its manifest says"):
        await receive(endless(), tmp_path / "archive", limit_bytes=2500)
    assert asked == 3
    assert (tmp_path / "archive").stat().st_size == 2000


async def test_file_that_is_there_is_not_written_over(archive: Path) -> None:
    with pytest.raises(FileExistsError):
        await receive(blocks_of(archive), archive, limit_bytes=len(DATA))
    assert archive.read_bytes() == DATA
