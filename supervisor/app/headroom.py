"""Whether there is memory for two copies of the app, asked before the second one is started."""

from __future__ import annotations

import anyio.to_thread

from supervisor.process.cgroup import Bound, Room, memory_of, memory_room
from supervisor.process.child import Child
from supervisor.process.listening import process_tree

_FACTOR = 1.2  # a start takes more than what is held later, and the old one goes on growing
_MIB = 1 << 20
_MENDS = {Bound.CONTAINER: "raise the container's memory limit", Bound.MACHINE: "free memory on the machine"}


def need_bytes(held_bytes: int) -> int:
    """What a second copy is expected to take, by what the first one holds."""
    return int(held_bytes * _FACTOR)


def check(need: int | None, room: Room | None) -> str:
    """Why two copies cannot run; empty where they can, and where a figure is not known. `need` in bytes."""
    if need is None or room is None or need <= room.free_bytes:
        return ""
    limit = "limit" if room.bound is Bound.CONTAINER else "the machine has"
    return (
        f"cannot run two copies: {-(-need // _MIB)} MiB needed, {room.free_bytes // _MIB} MiB free "
        f"({limit} {room.limit_bytes // _MIB} MiB); {_MENDS[room.bound]}, or set SUPERVISOR_OVERLAP=false"
    )


async def no_room_beside(child: Child) -> str:
    """`check` for another copy of a running child. Reads in a thread, as the kernel may take some 10 ms for it."""
    return await anyio.to_thread.run_sync(_no_room_beside, child.pid if child.alive else 0, child.marker)


def _no_room_beside(leader: int, marker: str) -> str:
    held = memory_of(process_tree(leader, marker))
    return check(None if held is None else need_bytes(held), memory_room())
