"""The end of a daemon that does not end by itself: KILL for it, its containerd, the shims, and what those ran."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator

import anyio
import anyio.to_thread

from supervisor.process import procfs
from supervisor.process.child import Child
from supervisor.process.leftovers import Survivor

CONTAINERD_SECONDS = 5.0
FINAL_SECONDS = 2.0
_ORDER = ("containerd", "containerd-shim")


def rank(name: str) -> int:
    """In which turn a process is ended: containerd, then shims, then the rest."""
    if name == _ORDER[0]:
        return 0
    return 1 if name.startswith(_ORDER[1]) else 2


async def end_by_force(child: Child) -> None:
    """KILL what is left of a daemon, in order; nothing to do after an orderly end. Bounded by some seconds."""
    if not child.alive and not child.survivors:
        return
    child.signal_group(signal.SIGKILL)
    with anyio.move_on_after(FINAL_SECONDS):
        await child.wait()
    rest = sorted(child.survivors, key=lambda survivor: rank(survivor.name))
    shims = {survivor.pid for survivor in rest if rank(survivor.name) == 1}
    inner = list(hold_below(shims))  # looked for before the shims end: afterwards nothing tells whose they were
    for process in [*rest, *inner]:
        process.signal(signal.SIGKILL)
    await child.kill()
    with anyio.move_on_after(FINAL_SECONDS):
        await _all_gone(inner)
    for process in inner:
        process.close()
    with anyio.move_on_after(FINAL_SECONDS):
        await anyio.to_thread.run_sync(os.sync, abandon_on_cancel=True)


def hold_below(parents: Iterable[int]) -> Iterator[Survivor]:
    """What runs below these processes, each held by a pidfd: containers have an environment without our marker."""
    above = set(parents)
    if not above:
        return
    for pid in list(procfs.pids()):
        found = procfs.read_stat(pid)
        if found is None or pid in above or not any(procfs.descends_from(pid, parent) for parent in above):
            continue
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        again = procfs.read_stat(pid)
        if again is None or again.start_ticks != found.start_ticks:
            os.close(descriptor)
            continue
        yield Survivor(pid, found.comm, found.group, descriptor)


async def _all_gone(processes: Iterable[Survivor]) -> None:
    for process in processes:
        await process.wait()


async def wait_for_containerd(child: Child) -> None:
    """Wait until the containerd of a daemon that ended is gone, by force after 5 s; shims are left alone.

    It dies with its daemon (a parent-death signal), but a moment later, and a new daemon that still sees it hangs.
    """
    left = [survivor for survivor in child.survivors if rank(survivor.name) == 0]
    with anyio.move_on_after(CONTAINERD_SECONDS):
        await _all_gone(left)
    for survivor in left:
        survivor.signal(signal.SIGKILL)
    with anyio.move_on_after(FINAL_SECONDS):
        await _all_gone(left)
