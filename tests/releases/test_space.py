"""Whether a release fits, from figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.releases.manifest import Tree
from supervisor.releases.space import Need, Space, keep_free_bytes, read_space, reserve_bytes, why_no_room

MIB, GIB = 1024**2, 1024**3


def tree(size: int, entries: int = 1) -> Tree:
    return Tree(digest="b" * 64, bytes=size, entries=entries)


@pytest.mark.parametrize(
    ("total", "kept"), [(1000, 30), (10 * GIB, 10 * GIB * 3 // 100), (35 * GIB, GIB), (9000 * GIB, GIB), (0, 0)]
)
def test_the_smaller_of_a_share_and_a_gibibyte_stays_free(total: int, kept: int) -> None:
    assert keep_free_bytes(Space(total, total)) == kept


def test_an_update_needs_a_tenth_more_than_it_unpacks_the_snapshot_and_a_reserve() -> None:
    need = Need.of(tree(100 * MIB, 8000), snapshot_bytes=7 * MIB)
    assert need.unpacked_bytes == max(110 * MIB, 100 * MIB + 8000 * 4096)
    assert Need.of(tree(1000 * MIB, 10)).bytes == 1100 * MIB
    assert need.bytes == need.unpacked_bytes + 7 * MIB
    assert need.entries == 8000 + 800 + 1000


def test_many_small_files_need_whole_blocks() -> None:
    assert Need.of(tree(50_000, 50_000)).unpacked_bytes == 50_000 + 50_000 * 4096


@pytest.mark.parametrize(
    ("total", "reserve"), [(0, 0), (64 * MIB, 4 * MIB), (1000, 62), (GIB, 64 * MIB), (GIB - 16, 64 * MIB - 1)]
)
def test_reserve_of_a_small_disk_is_a_part_of_it(total: int, reserve: int) -> None:
    assert reserve_bytes(Space(total, total)) == reserve
    assert reserve_bytes(Space(9000 * GIB, 0)) == 64 * MIB


def test_small_disk_takes_a_release_that_is_small() -> None:
    """Beside its archive, which lies there already, and what is kept back for the records."""
    disk = Space(64 * MIB, 64 * MIB - 2 * MIB - 16 * MIB)
    assert why_no_room(Need.of(tree(20 * MIB, 100)), disk) == []
    assert why_no_room(Need.of(tree(40 * MIB, 100)), disk) != []


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(0, 10 * GIB), entries=st.integers(0, 10**6), total=st.integers(0, 100 * GIB), share=st.floats(0, 1)
)
def test_what_fits_leaves_what_must_stay_free(size: int, entries: int, total: int, share: float) -> None:
    need, space = Need.of(tree(size, entries)), Space(total, int(total * share))
    left = space.free_bytes - need.bytes - reserve_bytes(space)
    assert (why_no_room(need, space) == []) is (left >= keep_free_bytes(space))


def test_too_little_space_is_told_in_figures() -> None:
    (why,) = why_no_room(Need.of(tree(100_000_000), 2_000_000), Space(1_000_000_000, 150_000_000))
    assert why == (
        "54,500,000 bytes are missing on the disk: the update takes 174,500,000 (110,000,000 unpacked, 2,000,000 for "
        "the snapshot, 62,500,000 in reserve), 30,000,000 must stay free, and 150,000,000 are free; remove old "
        "releases with `supervisor release prune`, or make the volume larger"
    )


def test_the_last_byte_counts() -> None:
    need, disk = Need.of(tree(MIB)), Space(1000 * MIB, 0)
    kept = keep_free_bytes(disk) + reserve_bytes(disk)
    assert why_no_room(need, Space(1000 * MIB, need.bytes + kept)) == []
    (why,) = why_no_room(need, Space(1000 * MIB, need.bytes + kept - 1))
    assert why.startswith("1 bytes are missing")


def test_too_few_inodes_are_told_in_figures() -> None:
    need = Need.of(tree(1, 20))
    (why,) = why_no_room(need, Space(10 * GIB, 10 * GIB, 5000, 1021))
    assert why.startswith("the disk has too few inodes: the update takes 1,022, and 1,021 are free; remove")
    assert why_no_room(need, Space(10 * GIB, 10 * GIB, 5000, 1022)) == []
    assert why_no_room(need, Space(10 * GIB, 10 * GIB, 0, 0)) == []


def test_a_real_disk_has_figures(tmp_path: Path) -> None:
    space = read_space(tmp_path)
    assert 0 < space.free_bytes <= space.total_bytes
    assert space.free_entries <= space.total_entries
