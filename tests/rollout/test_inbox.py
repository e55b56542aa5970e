"""Releases that are put into a folder: what counts as whole, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from supervisor.core.errors import RejectedError
from supervisor.core.events import Event
from supervisor.core.requests import Outcome, Result
from supervisor.release_desk import ReleaseDesk
from supervisor.release_inbox import Inbox, archive_of, look
from supervisor.releases.manifest import manifest_bytes
from supervisor.releases.model import ReleaseError
from tests.releases.test_base import manifest

pytestmark = pytest.mark.anyio
DATA = b"an archive"


def put(folder: Path, data: bytes = DATA, size: int = len(DATA)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    archive = {"file": "a.tar.zst", "sha256": "0" * 64, "size": size, "compression": "zstd"}
    (folder / "a.tar.zst").write_bytes(data)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest(archive=archive)))
    return folder


class Desk:
    """Takes what is offered, or refuses it."""

    def __init__(self, result: Result = Result.OK, refuses: str = "") -> None:
        self.result = result
        self.refuses = refuses
        self.taken: list[bytes] = []

    async def offer(self, data: bytes, signatures: list[bytes], *, allow_downgrade: bool) -> dict[str, Any]:
        if self.refuses:
            raise RejectedError(self.refuses)
        return {"offer": "1"}

    async def accept(self, number: str, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        self.taken.append(b"".join([block async for block in blocks]))
        return Outcome(result=self.result, reason="" if self.result is Result.OK else "it answers 500")


async def taken_in(inbox: Path, desk: Desk) -> list[Event]:
    """Run until the manifest is gone."""
    events: list[Event] = []
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(Inbox(inbox, cast(ReleaseDesk, desk), events.append).run)
            while look(inbox):
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    return events


def test_a_folder_without_a_manifest_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_bytes(DATA)
    (tmp_path / "empty").mkdir()
    assert look(tmp_path) == []
    assert look(tmp_path / "none") == []


def test_an_archive_is_whole_once_it_is_as_long_as_the_manifest_says(tmp_path: Path) -> None:
    put(tmp_path, DATA[:4])
    (half,) = look(tmp_path)
    assert archive_of(half) is None
    put(tmp_path)
    (whole,) = look(tmp_path)
    assert archive_of(whole) == tmp_path / "a.tar.zst"


def test_a_link_is_no_archive(tmp_path: Path) -> None:
    put(tmp_path / "in")
    (tmp_path / "in" / "a.tar.zst").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "a.tar.zst").symlink_to(tmp_path / "elsewhere")
    (found,) = look(tmp_path / "in")
    assert archive_of(found) is None


def test_a_manifest_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (found,) = look(tmp_path)
    with pytest.raises(ReleaseError, match="its format is None"):
        archive_of(found)


@pytest.mark.parametrize("folder", ["", "dist-tarball"])
async def test_what_was_taken_in_is_deleted(tmp_path: Path, folder: str) -> None:
    place = put(tmp_path / folder)
    desk = Desk()
    await taken_in(tmp_path, desk)
    assert desk.taken == [DATA]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("desk", "why"), [(Desk(Result.REJECTED), "it answers 500"), (Desk(refuses="nobody signed it"), "nobody signed it")]
)
async def test_what_is_refused_stays_with_the_reason_and_is_not_tried_again(
    tmp_path: Path, desk: Desk, why: str
) -> None:
    put(tmp_path)
    events = await taken_in(tmp_path, desk)
    assert (tmp_path / "refused.txt").read_text() == f"{why}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar.zst", "manifest.json.refused", "refused.txt"}
    assert why in str(events[-1])
