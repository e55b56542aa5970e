"""Whether a folder outlives our container: on a named volume or a bind mount it does, elsewhere it is lost with it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from supervisor.engine.dockerd.mounts import Mount, mount_of, read_mounts

VOLUME = "dokploy-supervisor"
"""The name of the volume in the documented lines."""
# Engines bind these two into every container, on the host's own root they are plain files.
_OF_A_CONTAINER = frozenset({"/etc/hosts", "/etc/hostname"})
# An engine names a volume that nobody named by 32 random bytes.
_ANONYMOUS = re.compile(r"(?:^|/)([0-9a-f]{64})/_data(?:/|$)")
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def state_keeping(path: Path, mounts: Sequence[Mount] | None = None, *, volume: str = VOLUME) -> str:
    """A warning for people where the state folder `path` goes with our container, "" where it stays.

    Outside containers it always stays. The folder need not be there yet. `mounts`: default our own table, read now;
    "" where that cannot be read.
    """
    try:
        table = read_mounts() if mounts is None else mounts
    except OSError:
        return ""
    if not in_container(table):
        return ""
    loss = _loss(mount_of(os.path.realpath(path), table))
    if not loss:
        return ""
    return (
        f"the state folder {str(path)!r} lies {loss}: install id, passwords and releases are lost with it; "
        f"start the container with `-v {volume}:{path}`"
    )


def in_container(mounts: Sequence[Mount]) -> bool:
    """Whether an engine made this mount table."""
    return any(mount.point in _OF_A_CONTAINER for mount in mounts)


def _loss(mount: Mount | None) -> str:
    """Where it lies and what ends that; "" for a mount that stays."""
    if mount is None or mount.point == "/":
        return "in the container's own layer, which goes when the container is made anew"
    if mount.kind in _IN_MEMORY:
        return "in memory, which goes when the container stops"
    if found := _ANONYMOUS.search(mount.root):
        return f"on an anonymous volume ({found[1][:12]}), which a container that is made anew does not get again"
    return ""
