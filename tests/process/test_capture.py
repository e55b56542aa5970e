"""A program run for what it prints: every byte, within a bound and a deadline, and nothing of it is left."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from supervisor.process.capture import Captured, capture
from supervisor.process.child import Command
from supervisor.process.reaper import Reaper

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def reaping() -> AsyncIterator[Reaper]:
    """A reaper that runs."""
    reaper = Reaper()
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        yield reaper
        group.cancel_scope.cancel()


async def captured(body: str, *, max_bytes: int = 1_000_000, seconds: float = 20) -> Captured:
    """What this Python prints."""
    command = Command(name="test", argv=(sys.executable, "-c", body), env=dict(os.environ))
    async with reaping() as reaper:
        return await capture(reaper, command, max_bytes=max_bytes, seconds=seconds)


async def test_every_byte_is_there_and_errors_apart() -> None:
    found = await captured("import os; os.write(1, b'a\\r\\n\\0\\xff' * 50000); os.write(2, b'one\\ntwo'); os._exit(3)")
    assert found == Captured(3, b"a\r\n\0\xff" * 50000, ("one", "two"))


async def test_what_prints_too_much_is_ended() -> None:
    found = await captured("while True: print('x' * 1000)", max_bytes=5000)
    assert found.too_much
    assert len(found.output) == 5000


async def test_what_takes_too_long_is_ended_and_what_it_said_is_kept() -> None:
    found = await captured("import sys, time; print('a', flush=True); time.sleep(300)", seconds=2)
    assert (found.status, found.output) == (None, b"a\n")


async def test_a_grandchild_that_holds_the_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pid = str(tmp_path / "pid")
    body = f"import subprocess as s; p = s.Popen(['sleep', '300']); open({pid!r}, 'w').write(str(p.pid)); print('a')"
    found = await captured(body)
    assert (found.status, found.output) == (0, b"a\n")
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_cancelling_ends_it_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = Command(name="test", argv=("/bin/sh", "-c", f"echo $$ >{pid}; exec sleep 300"), env=dict(os.environ))
    async with reaping() as reaper:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(capture, reaper, command, max_bytes=10, seconds=100))
            with anyio.fail_after(20):
                while not pid.exists() or not pid.read_text():
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        assert reaper.children == []


async def test_a_program_that_is_not_there_raises_and_leaves_no_descriptor() -> None:
    async with reaping() as reaper:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError):
            await capture(reaper, Command(name="t", argv=("no-such",), env={}), max_bytes=1, seconds=1)
        assert len(os.listdir("/proc/self/fd")) == before
