"""Releases that are put into a folder: what counts as whole, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import pytest

from supervisor.core.errors import RejectedError
from supervisor.core.events import Event
from supervisor.core.requests import Outcome, Result
from supervisor.releases.manifest import manifest_bytes, parse_manifest
from supervisor.releases.steps import Admitted
from supervisor.rollout.desk import Examined, ReleaseDesk
from supervisor.rollout.inbox import Inbox, look
from tests.releases.test_base import manifest

pytestmark = pytest.mark.anyio
DATA = b"an archive"


def put(folder: Path, data: bytes = DATA, size: int = len(DATA)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    archive = {"file": "a.tar.zst", "sha256": "0" * 64, "size": size, "compression": "zstd"}
    (folder / "a.tar.zst").write_bytes(data)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest(archive=archive)))
    return folder


@dataclass
class Desk:
    """Takes what is offered, or refuses it."""

    result: Result = Result.OK
    refuses: str = ""
    active: bool = False
    failed: str = ""
    taken: list[bytes] = field(default_factory=list)

    async def examine(self, data: bytes, signatures: list[bytes], *, allow_downgrade: bool) -> Examined:
        if self.refuses:
            raise RejectedError(self.refuses)
        known = parse_manifest(data)
        return Examined(Admitted(release="1.0", manifest=known, data=data, digest=""), (), ())

    def is_active(self, release: str) -> bool:
        return self.active

    def why_failed(self, release: str) -> str:
        return self.failed

    async def bring_in(self, examined: Examined, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        self.taken.append(b"".join([block async for block in blocks]))
        return Outcome(result=self.result, reason="" if self.result is Result.OK else "it answers 500")


@asynccontextmanager
async def watched(folder: Path, desk: Desk, patience: float = 60.0) -> AsyncIterator[list[Event]]:
    """With the inbox running."""
    events: list[Event] = []
    short = {"look_seconds": 0.05, "still_seconds": 0.05, "patience_seconds": patience}
    inbox = Inbox(folder, cast(ReleaseDesk, desk), events.append, **short)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.run)
            yield events
            group.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.sleep(0.01)


async def taken_in(folder: Path, desk: Desk, patience: float = 60.0) -> list[Event]:
    """Run until the manifest is gone."""
    async with watched(folder, desk, patience) as events:
        await until(lambda: not look(folder))
    return events


def test_a_folder_without_a_manifest_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_bytes(DATA)
    (tmp_path / "empty").mkdir()
    assert look(tmp_path) == []
    assert look(tmp_path / "none") == []


async def test_an_archive_is_whole_once_it_is_as_long_as_the_manifest_says(tmp_path: Path) -> None:
    put(tmp_path, DATA[:4])
    desk = Desk()
    async with watched(tmp_path, desk) as events:
        await until(lambda: events)
        assert "its archive 'a.tar.zst' has 4 of 10 bytes" in str(events)
        assert desk.taken == []
        (tmp_path / "a.tar.zst").write_bytes(DATA)
        await until(lambda: not look(tmp_path))
    assert desk.taken == [DATA]


async def test_a_link_is_no_archive(tmp_path: Path) -> None:
    put(tmp_path / "in")
    (tmp_path / "in" / "a.tar.zst").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "a.tar.zst").symlink_to(tmp_path / "elsewhere")
    desk = Desk()
    events = await taken_in(tmp_path / "in", desk, patience=0)
    assert desk.taken == []
    assert "its archive 'a.tar.zst' is not there" in str(events[-1])


async def test_a_signature_may_come_last(tmp_path: Path) -> None:
    put(tmp_path)
    desk = Desk(refuses="nobody signed it")
    async with watched(tmp_path, desk) as events:
        await until(lambda: events)
        assert "is not whole yet: nobody signed it" in str(events)
        desk.refuses = ""
        (tmp_path / "manifest.json.minisig").write_text("a signature")
        await until(lambda: not look(tmp_path))
    assert desk.taken == [DATA]


async def test_what_does_not_become_whole_is_refused_in_the_end(tmp_path: Path) -> None:
    put(tmp_path)
    await taken_in(tmp_path, Desk(refuses="nobody signed it"), patience=0)
    assert (tmp_path / "refused.txt").read_text() == "nobody signed it\n"


async def test_what_is_active_already_is_put_away(tmp_path: Path) -> None:
    put(tmp_path)
    desk = Desk(active=True)
    await taken_in(tmp_path, desk)
    assert (desk.taken, list(tmp_path.iterdir())) == ([], [])


async def test_what_did_not_hold_before_is_not_tried_again_by_itself(tmp_path: Path) -> None:
    put(tmp_path)
    desk = Desk(failed="it crashed")
    await taken_in(tmp_path, desk)
    assert desk.taken == []
    assert (tmp_path / "refused.txt").read_text().startswith("it did not hold before: it crashed; to try it again")


async def test_what_a_stop_cut_off_stays_for_the_next_start(tmp_path: Path) -> None:
    put(tmp_path)
    desk = Desk(Result.CANCELLED)
    async with watched(tmp_path, desk):
        await until(lambda: desk.taken)
        await anyio.wait_all_tasks_blocked()
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar.zst", "manifest.json"}


@pytest.mark.parametrize("folder", ["", "dist-tarball"])
async def test_what_was_taken_in_is_deleted(tmp_path: Path, folder: str) -> None:
    place = put(tmp_path / folder)
    desk = Desk()
    await taken_in(tmp_path, desk)
    assert desk.taken == [DATA]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("desk", "why"), [(Desk(Result.REJECTED), "it answers 500"), (Desk(refuses="not trusted"), "not trusted")]
)
async def test_what_is_refused_stays_with_the_reason_and_is_not_tried_again(
    tmp_path: Path, desk: Desk, why: str
) -> None:
    put(tmp_path)
    signature = "manifest.json.minisig"
    (tmp_path / signature).write_text("a signature")
    events = await taken_in(tmp_path, desk)
    assert (tmp_path / "refused.txt").read_text() == f"{why}\n"
    left = {"a.tar.zst", "manifest.json.refused", "refused.txt", signature}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert why in str(events[-1])


async def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "manifest.json.minisig").write_text("a signature")
    events = await taken_in(tmp_path, Desk())
    assert "its format is None" in str(events[-1])
