"""Runs a program for what it prints: every byte of it up to a bound, within a deadline."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from supervisor.process.child import Child, Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

_BLOCK = 64 * 1024
_GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class Captured:
    """`status` as a shell has it, None where the deadline came first; `errors` are the last lines of standard error."""

    status: int | None
    output: bytes
    errors: tuple[str, ...]
    too_much: bool = False


async def capture(reaper: Reaper, command: Command, *, max_bytes: int, seconds: float, lines: int = 5) -> Captured:
    """Run it to its end, its input empty. Raises OSError where it cannot be started.

    It ends with all it started: at its own end, after `seconds`, beyond `max_bytes`, or when this is cancelled.
    """
    ring = Ring(command.name)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    gathered = bytearray()
    try:
        try:
            child = reaper.spawn(replace(command, stdout=writing), ring)
        finally:
            os.close(writing)
        status = await _to_its_end(child, reading, gathered, max_bytes, seconds)
    finally:
        os.close(reading)
    errors = tuple(line.text for line in ring.tail(lines))
    return Captured(status, bytes(gathered[:max_bytes]), errors, too_much=len(gathered) > max_bytes)


async def _to_its_end(child: Child, reading: int, gathered: bytearray, max_bytes: int, seconds: float) -> int | None:
    status = None
    try:
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as group:
                group.start_soon(_read, reading, gathered, max_bytes, group.cancel_scope)
                ended = await child.wait()
                status = ended.status
                group.cancel_scope.cancel()  # others may still hold the pipe; what it wrote itself is in there
            _drain(reading, gathered, max_bytes)
    finally:
        with anyio.CancelScope(shield=True):
            if child.alive:
                await child.stop(grace_seconds=_GRACE_SECONDS)
            await child.kill()
    return status


async def _read(reading: int, gathered: bytearray, max_bytes: int, scope: anyio.CancelScope) -> None:
    while True:
        await anyio.wait_readable(reading)
        if not _drain(reading, gathered, max_bytes):
            break
    if len(gathered) > max_bytes:
        scope.cancel()


def _drain(reading: int, gathered: bytearray, max_bytes: int) -> bool:
    """Take what is there; False at the end of the pipe, or where it is more than enough."""
    with suppress(BlockingIOError):
        while len(gathered) <= max_bytes:
            data = os.read(reading, _BLOCK)
            if not data:
                return False
            gathered += data
        return False
    return True
