"""Whether two copies fit: the decision on figures, and once on a real child."""

from __future__ import annotations

import os
import sys

import anyio
import pytest

from supervisor.app import headroom
from supervisor.app.headroom import check, need_bytes, no_room_beside
from supervisor.process.cgroup import Bound, Room
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def test_a_second_copy_needs_a_fifth_more_than_the_first_holds() -> None:
    assert need_bytes(100 * MIB) == 120 * MIB


@pytest.mark.parametrize(
    ("need", "room"),
    [
        (100 * MIB, Room(100 * MIB, 512 * MIB)),
        (0, Room(0, 512 * MIB)),
        (None, Room(0, 512 * MIB)),
        (100 * MIB, None),
        (None, None),
    ],
)
def test_what_fits_or_is_not_known_is_allowed(need: int | None, room: Room | None) -> None:
    assert check(need, room) == ""


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (
            Room(99 * MIB, 512 * MIB),
            "cannot run two copies: 100 MiB needed, 99 MiB free (limit 512 MiB); "
            "raise the container's memory limit, or set SUPERVISOR_OVERLAP=false",
        ),
        (
            Room(99 * MIB, 1024 * MIB, Bound.MACHINE),
            "cannot run two copies: 100 MiB needed, 99 MiB free (the machine has 1024 MiB); "
            "free memory on the machine, or set SUPERVISOR_OVERLAP=false",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_figures_and_the_mend(room: Room, said: str) -> None:
    assert check(100 * MIB, room) == said


def test_a_need_just_above_is_not_rounded_away() -> None:
    assert "100 MiB needed, 99 MiB free" in check(99 * MIB + 1, Room(99 * MIB, 512 * MIB))


async def test_a_running_child_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "held = b'x' * (64 << 20); print('up', flush=True); import signal; signal.pause()"
    ring = Ring("app")
    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            reaper = Reaper(linger_seconds=0)
            await group.start(reaper.run)
            child = reaper.spawn(Command("app", [sys.executable, "-c", code], dict(os.environ)), ring)
            await ring.wait_newer(0)
            assert await no_room_beside(child) == ""
            monkeypatch.setattr(headroom, "memory_room", lambda: Room(70 * MIB, 512 * MIB))
            assert "70 MiB free (limit 512 MiB)" in await no_room_beside(child)
            await child.kill()
            assert await no_room_beside(child) == ""
            group.cancel_scope.cancel()
