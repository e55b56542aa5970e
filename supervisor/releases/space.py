"""Whether a release fits on the disk: refused before it is unpacked, not half-way. Figures in, words out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from supervisor.releases.manifest import Tree

RESERVE_BYTES = 64 * 1024 * 1024
"""For what the app and others write meanwhile; of a small disk a part."""
_RESERVE_PART = 16
KEEP_FREE_BYTES = 1024**3
_BLOCK_BYTES = 4096
_SPARE_ENTRIES = 1000


@dataclass(frozen=True)
class Space:
    """A filesystem's figures for one who is not root. `entries` are inodes; a total of 0: it has no limit of them."""

    total_bytes: int
    free_bytes: int
    total_entries: int = 0
    free_entries: int = 0


@dataclass(frozen=True)
class Need:
    """What an update takes on the disk until it is done."""

    unpacked_bytes: int
    entries: int
    snapshot_bytes: int = 0

    @classmethod
    def of(cls, tree: Tree, snapshot_bytes: int = 0) -> Need:
        """A tenth more than the files, and never less than what they take in whole blocks: many are small."""
        unpacked = max(tree.bytes + -(-tree.bytes // 10), tree.bytes + tree.entries * _BLOCK_BYTES)
        return cls(unpacked, tree.entries + tree.entries // 10 + _SPARE_ENTRIES, snapshot_bytes)

    @property
    def bytes(self) -> int:
        """All of it, without the reserve."""
        return self.unpacked_bytes + self.snapshot_bytes


def read_space(folder: Path) -> Space:
    """Raises OSError."""
    found = os.statvfs(folder)
    return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, found.f_files, found.f_favail)


def keep_free_bytes(space: Space) -> int:
    """What must stay free for all else: the smaller of 3 % and 1 GiB (a share alone hurts on big and small disks)."""
    return min(space.total_bytes * 3 // 100, KEEP_FREE_BYTES)


def reserve_bytes(space: Space) -> int:
    """What is kept for what others write while it is applied: 64 MiB, of less than 1 GiB a sixteenth."""
    return min(space.total_bytes // _RESERVE_PART, RESERVE_BYTES)


def why_no_room(need: Need, space: Space) -> list[str]:
    """Why the update does not fit, with figures and what to do; empty where it does."""
    mend = "remove old releases with `supervisor release prune`, or make the volume larger"
    reasons = []
    reserve = reserve_bytes(space)
    missing = need.bytes + reserve + keep_free_bytes(space) - space.free_bytes
    if missing > 0:
        reasons.append(
            f"{missing:,} bytes are missing on the disk: the update takes {need.bytes + reserve:,} "
            f"({need.unpacked_bytes:,} unpacked, {need.snapshot_bytes:,} for the snapshot, {reserve:,} in reserve), "
            f"{keep_free_bytes(space):,} must stay free, and {space.free_bytes:,} are free; {mend}"
        )
    if space.total_entries and need.entries > space.free_entries:
        reasons.append(
            f"the disk has too few inodes: the update takes {need.entries:,}, and {space.free_entries:,} are free; "
            f"{mend}"
        )
    return reasons
