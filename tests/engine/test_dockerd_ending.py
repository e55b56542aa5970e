"""Who is ended when a daemon does not end by itself, and who is spared; plain processes under the engine's names."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from supervisor.engine.dockerd import ending
from supervisor.process import procfs
from supervisor.process.child import Child, Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

pytestmark = pytest.mark.anyio
# Like the engine's: containerd and shim carry the daemon's environment, what a shim runs does not.
DAEMON = """
cd "$1"
setsid ./containerd 1000 & echo $!
setsid ./containerd-shim-runc-v2 -c 'env -i setsid ./sleep 1000 & echo $!; wait' & echo $!
wait
"""


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[tuple[Child, dict[str, int]]]:
    """A `dockerd` with a containerd, a shim and a container's process below it; the pids by name."""
    for name, program in (("containerd", "sleep"), ("containerd-shim-runc-v2", "sh"), ("sleep", "sleep")):
        shutil.copy(shutil.which(program) or "", folder / name)
    async with anyio.create_task_group() as group:
        reaper = Reaper(linger_seconds=0.0)
        await group.start(reaper.run)
        ring = Ring("dockerd")
        command = Command(
            name="dockerd", argv=["/bin/sh", "-c", DAEMON, "sh", str(folder)], env={"PATH": "/usr/bin:/bin"}
        )
        child = reaper.spawn(command, ring)
        try:
            with anyio.fail_after(30):
                yield child, await named(ring)
        finally:
            with anyio.CancelScope(shield=True):
                await reaper.end_all()
            group.cancel_scope.cancel()


async def named(ring: Ring) -> dict[str, int]:
    """Wait until all three run under their names."""
    found: dict[str, int] = {}
    while len(found) < 3:
        await anyio.sleep(0.01)
        stats = [procfs.read_stat(int(line.text)) for line in ring.since(0)]
        found = {stat.comm: stat.pid for stat in stats if stat is not None and stat.comm.startswith(("cont", "sleep"))}
    return found


def alive(pids: dict[str, int]) -> set[str]:
    stats = {name: procfs.read_stat(pid) for name, pid in pids.items()}
    return {name for name, stat in stats.items() if stat is not None and stat.state not in "ZX"}


async def test_a_containerd_that_outlives_its_daemon_is_ended_and_shims_are_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "CONTAINERD_SECONDS", 0.05)
    async with daemon(tmp_path) as (child, pids):
        child.signal(9)
        await child.wait()
        assert alive(pids) == {"containerd", "containerd-shim", "sleep"}
        await ending.wait_for_containerd(child)
        assert alive(pids) == {"containerd-shim", "sleep"}


async def test_by_force_nothing_is_left_not_even_what_a_shim_ran(tmp_path: Path) -> None:
    async with daemon(tmp_path) as (child, pids):
        await ending.end_by_force(child)
        assert alive(pids) == set()
        assert child.exit is not None
        assert child.exit.signal_name == "SIGKILL"


def test_the_order_is_containerd_then_shims_then_the_rest() -> None:
    names = ["sleep", "containerd-shim", "containerd"]
    assert sorted(names, key=ending.rank) == ["containerd", "containerd-shim", "sleep"]
