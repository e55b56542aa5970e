"""The trigger file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from supervisor.triggers.files import TriggerFile, stamp, touched

pytestmark = pytest.mark.anyio


class Touches:
    """Counts touches and lets a test wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._more = anyio.Event()

    def add(self) -> None:
        self.count += 1
        self._more.set()

    async def wait_for(self, count: int) -> None:
        with anyio.fail_after(5):
            while self.count < count:
                self._more = anyio.Event()
                await self._more.wait()


@asynccontextmanager
async def watching(path: Path, *, poll_seconds: float = 60.0) -> AsyncIterator[Touches]:
    """A running trigger whose polling is out of the way, unless asked for."""
    touches = Touches()
    trigger = TriggerFile(path, touches.add, seen=stamp(path), poll_seconds=poll_seconds)
    async with anyio.create_task_group() as group:
        await group.start(trigger.run)
        with anyio.fail_after(5):
            while trigger.watching == "nothing yet":
                await anyio.wait_all_tasks_blocked()
        yield touches
        group.cancel_scope.cancel()


def replace_by_move(path: Path) -> None:
    new = path.with_name("other")
    new.write_text("now")
    new.replace(path)


@pytest.mark.parametrize("touch", [Path.touch, replace_by_move, lambda path: path.write_text("reason")])
async def test_a_touch_is_seen_however_it_is_made(tmp_path: Path, touch: Callable[[Path], object]) -> None:
    path = tmp_path / ".reload-trigger"
    async with watching(path) as touches:
        touch(path)
        await touches.wait_for(1)
        assert path.exists()


async def test_a_file_present_at_the_start_counts_as_seen(tmp_path: Path) -> None:
    path = tmp_path / ".reload-trigger"
    path.touch()
    async with watching(path, poll_seconds=0.01) as touches:
        os.utime(path, ns=(1, 1))
        await touches.wait_for(1)
        assert touches.count == 1


async def test_a_removal_is_no_touch_and_a_new_file_is_one(tmp_path: Path) -> None:
    path = tmp_path / ".reload-trigger"
    path.touch()
    touches = Touches()
    trigger = TriggerFile(path, touches.add, seen=stamp(path))
    path.unlink()
    trigger.look()
    assert touches.count == 0
    path.touch()
    trigger.look()
    assert touches.count == 1


async def test_polling_alone_finds_a_touch_where_the_folder_appears_late(tmp_path: Path) -> None:
    path = tmp_path / "later" / ".reload-trigger"
    touches = Touches()
    trigger = TriggerFile(path, touches.add, seen=None, poll_seconds=0.01)
    async with anyio.create_task_group() as group:
        await group.start(trigger.run)
        path.parent.mkdir()
        path.touch()
        await touches.wait_for(1)
        group.cancel_scope.cancel()


async def test_other_files_in_the_folder_are_no_touch(tmp_path: Path) -> None:
    path = tmp_path / ".reload-trigger"
    async with watching(path) as touches:
        (tmp_path / "app.py").write_text("new code")
        path.touch()
        await touches.wait_for(1)
        assert touches.count == 1


def test_same_size_and_time_but_another_inode_is_a_touch() -> None:
    assert touched((1, 10, 0), (1, 11, 0))
    assert not touched((1, 10, 0), (1, 10, 0))
    assert not touched((1, 10, 0), None)
    assert touched(None, (1, 10, 0))
