"""Bytes from a reading thread to the loop: many small pieces become few, and a slow taker holds the thread back."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import anyio
import anyio.lowlevel

MAX_BYTES = 1024 * 1024


class Handover:
    """One thread puts, one task takes; made in the loop.

    The engine sends a line of output as a piece. The thread does not wait until each is taken: it goes on reading, and
    the loop is woken once for all that came meanwhile.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._told = False
        self._ended = False
        self._closed = False
        self._arrived = anyio.Event()

    def put(self, data: bytes) -> bool:
        """From the thread. Waits while there is more than `max_bytes`; False where the taker has left."""
        with self._changed:
            while self._bytes >= self._max_bytes and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._pieces.append(data)
            self._bytes += len(data)
            told, self._told = self._told, True
        if not told:
            with suppress(RuntimeError):  # of a thread that was left behind: the loop is gone
                self._loop.call_soon_threadsafe(self._tell)
        return True

    def _tell(self) -> None:
        self._arrived.set()

    async def take(self) -> bytes:
        """All that has come; empty at the end."""
        await anyio.lowlevel.checkpoint()  # a flood must leave others their turns
        while True:
            with self._changed:
                data = b"".join(self._pieces)
                self._pieces.clear()
                self._bytes = 0
                self._told = False
                self._changed.notify_all()
            if data or self._ended:
                return data
            self._arrived = anyio.Event()
            await self._arrived.wait()

    def end(self) -> None:
        """From the loop: the thread puts no more."""
        self._ended = True
        self._arrived.set()

    def close(self) -> None:
        """From the loop: nobody takes any more; a thread that waits goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
