"""A command that sees one folder in the place of another."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from supervisor.process.child import Identity
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.view import Mount, seen
from tests.process.children import shell

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for name in ("app", "release", "spare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    return tmp_path


async def lines_of(reaper: Reaper, ring: Ring, script: str, *mounts: Mount, identity: Identity | None = None) -> str:
    child = reaper.spawn(seen(shell(script, cwd="/", identity=identity), mounts), ring)
    with anyio.fail_after(15):
        await child.wait()
    return "\n".join(line.text for line in ring.tail(20))


async def test_it_runs_in_the_last_of_its_mounts_and_nobody_else_sees_them(
    place: Path, reaper: Reaper, ring: Ring
) -> None:
    mounts = [Mount(str(place / "app"), str(place / "spare")), Mount(str(place / "release"), str(place / "app"))]
    said = await lines_of(reaper, ring, f"pwd; cat name {place}/app/name {place}/spare/name", *mounts)
    assert said == f"{place}/app\nreleasereleaseapp"
    assert [(place / name / "name").read_text() for name in ("app", "spare")] == ["app", "spare"]


async def test_it_runs_as_whom_it_is_to(place: Path, reaper: Reaper, ring: Ring) -> None:
    mount = Mount(str(place / "release"), str(place / "app"))
    whom = Identity(12345, 23456, (34567,))
    said = await lines_of(reaper, ring, "id -u; id -G; grep CapEff /proc/self/status", mount, identity=whom)
    assert said == "12345\n23456 34567\nCapEff:\t0000000000000000"
    said = await lines_of(reaper, Ring("again"), "id -G", mount, identity=Identity(12345, 23456))
    assert said == "23456"


async def test_it_is_the_process_that_was_spawned_and_keeps_its_descriptors(
    place: Path, reaper: Reaper, ring: Ring
) -> None:
    mount = Mount(str(place / "release"), str(place / "app"))
    read, write = os.pipe()
    try:
        command = seen(shell(f"echo $$ >/proc/self/fd/{write}; exit 7", pass_fds=(write,)), [mount])
        child = reaper.spawn(command, ring)
        with anyio.fail_after(15):
            ended = await child.wait()
    finally:
        os.close(write)
    with open(read, "rb") as file:
        assert (ended.code, int(file.read() or 0)) == (7, child.pid)


async def test_what_cannot_be_mounted_is_told(place: Path, reaper: Reaper, ring: Ring) -> None:
    said = await lines_of(reaper, ring, "echo never", Mount(str(place / "none"), str(place / "app")))
    assert "never" not in said
    assert str(place / "none") in said
