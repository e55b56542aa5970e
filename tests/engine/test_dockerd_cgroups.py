"""Control groups: the decision on recorded facts, the moves on a real hierarchy of version 2 where one is mounted."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.errors import EngineError, ExitCode
from supervisor.engine.dockerd import cgroups
from supervisor.engine.dockerd.cgroups import CgroupFacts, Nest, Version, cgroup_facts, nest, plan, to_enable
from supervisor.engine.dockerd.mounts import parse_mounts, read_mounts

V2 = "30 23 0:26 / /sys/fs/cgroup {flags},nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate"
V1 = """31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices {flags},relatime - cgroup cgroup rw,devices
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"""
V1_GROUPS = "5:devices:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab\n"
ROOT = Path("/sys/fs/cgroup")


def facts_of(table: str, groups: str) -> CgroupFacts:
    return cgroup_facts(parse_mounts(table), groups)


def test_version_2_in_a_private_namespace_is_nested_at_its_root() -> None:
    assert plan(facts_of(V2.format(flags="rw"), "0::/\n")) == Nest(ROOT, remount=False, parent=None)


def test_version_2_is_nested_at_the_same_place_once_we_moved() -> None:
    assert plan(facts_of(V2.format(flags="rw"), "0::/init\n")) == Nest(ROOT, remount=False, parent=None)


@pytest.mark.parametrize("own", ["/docker/ab12", "/docker/ab12/init"])
def test_version_2_in_the_hosts_namespace_touches_only_our_own_group(own: str) -> None:
    step = plan(facts_of(V2.format(flags="rw"), f"0::{own}\n"))
    assert step == Nest(ROOT / "docker/ab12", remount=False, parent="/docker/ab12/docker")


def test_a_read_only_version_2_is_to_be_mounted_again() -> None:
    step = plan(facts_of(V2.format(flags="ro"), "0::/\n"))
    assert step is not None
    assert step.remount


def test_version_1_with_its_devices_controller_is_left_as_it_is() -> None:
    facts = facts_of(V1.format(flags="rw"), V1_GROUPS)
    assert facts.version is Version.V1
    assert plan(facts) is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("27 1 254:0 / / rw - ext4 /dev/vda rw", "no control groups are mounted"),
        (V1.format(flags="ro"), "read-only"),
        ("\n".join(line for line in V1.format(flags="rw").splitlines() if "devices" not in line), "'devices'"),
    ],
)
def test_a_hierarchy_that_cannot_do_is_e21(table: str, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        plan(facts_of(table, V1_GROUPS))
    assert (caught.value.code, caught.value.exit_code) == ("E21", ExitCode.PRIVILEGE)


def test_the_required_controllers_are_enabled_first() -> None:
    available = ["cpuset", "cpu", "io", "memory", "pids", "rdma"]
    assert to_enable(available, ["pids"]) == ["cpu", "memory", "cpuset", "io", "rdma"]
    assert to_enable(available, available) == []


def test_a_missing_required_controller_is_named() -> None:
    with pytest.raises(EngineError, match=r"no cpu, pids controller.*it has io, memory"):
        to_enable(["memory", "io"], [])


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real group of version 2 whose one controller stands for the required ones."""
    points = [mount.point for mount in read_mounts() if mount.kind == "cgroup2"]
    if os.geteuid() != 0 or not points:
        pytest.skip("needs root and a mounted cgroup v2 hierarchy")
    root = Path(points[0])
    handed_on = set((root / "cgroup.subtree_control").read_text().split())
    known = handed_on or set((root / "cgroup.controllers").read_text().split())
    if not known:
        pytest.skip("the cgroup v2 hierarchy has no controllers at all")
    chosen = sorted(known)[0]
    (root / "cgroup.subtree_control").write_text(f"+{chosen}")
    made = root / f"supervisor-test-{uuid.uuid4().hex[:8]}"
    made.mkdir()
    monkeypatch.setattr(cgroups, "REQUIRED", frozenset({chosen}))
    try:
        yield made
    finally:
        for folder in (made / "init", made):
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
        if chosen not in handed_on:
            (root / "cgroup.subtree_control").write_text(f"-{chosen}")


@pytest.fixture
def member(group: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in that group."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        (group / "cgroup.procs").write_text(str(sleeper.pid))
        try:
            yield sleeper
        finally:
            sleeper.kill()


def words(path: Path) -> list[str]:
    return path.read_text().split()


@pytest.mark.anyio
async def test_nesting_moves_every_process_and_hands_the_controllers_on(
    group: Path, member: subprocess.Popen[bytes]
) -> None:
    step = Nest(group, remount=False, parent=None)
    for _ in range(2):  # the second time changes nothing
        await nest(step)
        assert words(group / "cgroup.procs") == []
        assert words(group / "init" / "cgroup.procs") == [str(member.pid)]
        assert set(words(group / "cgroup.subtree_control")) == set(words(group / "cgroup.controllers"))


@pytest.mark.anyio
async def test_nesting_tries_again_when_a_process_lands_in_the_group_meanwhile(
    group: Path, member: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = iter([lambda _: None, lambda _: None])  # twice as if it came right after the move
    real = cgroups._move_all
    tried: list[Path] = []

    def move(folder: Path) -> None:
        tried.append(folder)
        next(moves, real)(folder)

    monkeypatch.setattr(cgroups, "_move_all", move)
    await nest(Nest(group, remount=False, parent=None))
    assert len(tried) == 3
    assert words(group / "init" / "cgroup.procs") == [str(member.pid)]


@pytest.mark.anyio
async def test_nesting_gives_up_with_e21(
    group: Path, member: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_move_all", lambda _: None)
    monkeypatch.setattr(cgroups, "TRY_SECONDS", 0.0)
    with pytest.raises(EngineError, match=r"does not hand on .*busy.*--privileged"):
        await nest(Nest(group, remount=False, parent=None))


@pytest.mark.anyio
async def test_a_folder_that_is_no_control_group_is_e21(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cgroup.controllers.*No such file"):
        await nest(Nest(tmp_path, remount=False, parent=None))
