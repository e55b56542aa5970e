"""Memory that is left and memory that is held: on made trees of both versions, and on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from supervisor.process.cgroup import Bound, Room, memory_of, memory_room
from supervisor.process.listening import process_tree
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from tests.process.children import python, start

pytestmark = pytest.mark.anyio

MIB = 1 << 20
GIB = 1 << 30
NO_LIMIT_V1 = 9223372036854771712


def machine(root: Path, own_groups: str, *, available_mib: int = 8192, total_mib: int = 16384) -> None:
    """A tree with /proc/self/cgroup and /proc/meminfo."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own_groups)
    (root / "proc/meminfo").write_text(
        f"MemTotal:       {total_mib * 1024} kB\nMemAvailable:   {available_mib * 1024} kB\nHugePages: 0\n"
    )


def group_v2(root: Path, path: str, limit: object, used: int = 0, inactive_file: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\nfile 2\ninactive_file {inactive_file}\nactive_file 7\n")


def group_v1(root: Path, path: str, limit: int, used: int = 0, inactive_file: int = 0) -> None:
    folder = root / "sys/fs/cgroup/memory" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 5\ntotal_inactive_file {inactive_file}\n")


def test_version_2_in_a_private_namespace_gives_the_limit_at_its_root(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n")
    group_v2(tmp_path, "", 512 * MIB, used=300 * MIB, inactive_file=50 * MIB)
    assert memory_room(tmp_path) == Room(262 * MIB, 512 * MIB)


def test_the_tightest_of_all_groups_above_counts(tmp_path: Path) -> None:
    machine(tmp_path, "0::/pod/app/init\n")
    group_v2(tmp_path, "", "max")
    group_v2(tmp_path, "pod", 600 * MIB, used=500 * MIB)
    group_v2(tmp_path, "pod/app", 512 * MIB, used=100 * MIB)
    group_v2(tmp_path, "pod/app/init", "max", used=100 * MIB)
    assert memory_room(tmp_path) == Room(100 * MIB, 600 * MIB)


@pytest.mark.parametrize("own", ["docker/ab", "", "../beside"])
def test_version_1_finds_its_group_however_it_is_mounted(tmp_path: Path, own: str) -> None:
    machine(tmp_path, f"5:devices:/x\n4:memory,hugetlb:/{own}\n0::/{own}\n")
    # A container without a namespace of its own sees its group as the root of the mount.
    group_v1(tmp_path, "" if own == "../beside" else own, 512 * MIB, used=500 * MIB, inactive_file=20 * MIB)
    group_v1(tmp_path, "../beside", MIB)
    assert memory_room(tmp_path) == Room(32 * MIB, 512 * MIB)


def test_a_group_that_is_mounted_as_the_root_is_found(tmp_path: Path) -> None:
    machine(tmp_path, "4:memory:/docker/ab\n")
    group_v1(tmp_path, "", 512 * MIB, used=500 * MIB)
    assert memory_room(tmp_path) == Room(12 * MIB, 512 * MIB)


def test_without_a_limit_the_machine_is_the_bound(tmp_path: Path) -> None:
    machine(tmp_path, "4:memory:/\n0::/\n", available_mib=700, total_mib=1024)
    group_v1(tmp_path, "", NO_LIMIT_V1, used=500 * MIB)
    group_v2(tmp_path, "unified", "max")
    assert memory_room(tmp_path) == Room(700 * MIB, 1024 * MIB, Bound.MACHINE)
    (tmp_path / "proc/meminfo").unlink()
    assert memory_room(tmp_path) is None


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n")
    group_v2(tmp_path, "", 100 * MIB, used=120 * MIB)
    assert memory_room(tmp_path) == Room(0, 100 * MIB)


def test_a_torn_or_empty_tree_tells_nothing(tmp_path: Path) -> None:
    assert memory_room(tmp_path) is None
    machine(tmp_path, "nonsense\n0::/\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal\nMemAvailable: much kB\n")
    group_v2(tmp_path, "", "what")
    assert memory_room(tmp_path) is None


def process(root: Path, pid: int, rss_mib: int, pss_mib: int | None) -> None:
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True)
    (folder / "statm").write_text(f"99999 {rss_mib * MIB // os.sysconf('SC_PAGE_SIZE')} 5 1 0 3 0\n")
    if pss_mib is not None:
        (folder / "smaps_rollup").write_text(f"00-ff ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss: {pss_mib * 1024} kB\n")


def test_what_processes_share_is_counted_once(tmp_path: Path) -> None:
    process(tmp_path, 10, rss_mib=100, pss_mib=40)
    process(tmp_path, 11, rss_mib=100, pss_mib=35)
    assert memory_of([10, 11], tmp_path) == 75 * MIB


def test_one_process_alone_is_counted_by_what_is_resident(tmp_path: Path) -> None:
    process(tmp_path, 10, rss_mib=100, pss_mib=40)
    assert memory_of([10], tmp_path) == 100 * MIB


def test_a_process_closed_to_us_is_counted_by_what_is_resident(tmp_path: Path) -> None:
    process(tmp_path, 10, rss_mib=100, pss_mib=40)
    process(tmp_path, 11, rss_mib=100, pss_mib=None)
    assert memory_of([10, 11, 12], tmp_path) == 140 * MIB


def test_large_trees_are_counted_in_the_cheap_way(tmp_path: Path) -> None:
    process(tmp_path, 10, rss_mib=3000, pss_mib=40)
    process(tmp_path, 11, rss_mib=3000, pss_mib=35)
    assert memory_of([10, 11], tmp_path) == 6000 * MIB


def test_of_nobody_nothing_is_known(tmp_path: Path) -> None:
    assert memory_of([1], tmp_path) is None
    assert memory_of([]) is None


def test_this_machine_has_room_for_a_test() -> None:
    room = memory_room()
    assert room is not None
    assert 0 < room.free_bytes < room.limit_bytes


async def test_memory_of_a_real_tree_shares_what_is_forked(reaper: Reaper, ring: Ring) -> None:
    """Three forks of 64 MiB hold about 64 MiB together, not 256."""
    code = (
        "import os, signal\nheld = b'x' * (64 << 20)\n"
        "for _ in range(3):\n    if os.fork() == 0: break\n"
        "else: print('up', flush=True)\nsignal.pause()"
    )
    child = await start(reaper, python(code), ring)
    held = memory_of(process_tree(child.pid, child.marker))
    await child.kill()
    assert held is not None
    assert 64 * MIB <= held < 128 * MIB
    with anyio.fail_after(15):
        await child.wait()
