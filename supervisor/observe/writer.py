"""Writing to a descriptor that may block, from a thread, so that nobody who logs ever waits for a reader."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

QUEUE_BYTES = 4 * 1024 * 1024  # holds the burst that a source may print at once
_BATCH_BYTES = 16 * 1024  # between two of them the loop gets the interpreter lock


class Queue(Generic[T]):
    """Hands items on in a thread, in the order of `put`; beyond `max_bytes` the oldest are dropped and counted.

    The thread sleeps while there is nothing to do, and is a daemon thread: what it waits for cannot keep the process
    alive.
    """

    def __init__(self, name: str, max_bytes: int = QUEUE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._lost = 0
        self.total_lost = 0
        self._busy = False
        self._closing = False
        # Its lock is re-entrant: a Python signal handler that logs may interrupt a `put` of the same thread.
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _handle(self, batch: list[T], lost: int) -> None:
        """Called in the thread; `lost` items are gone since the last call."""
        raise NotImplementedError

    def put(self, item: T, size_bytes: int) -> None:
        """Queue one item; never blocks. From any thread."""
        with self._changed:
            if self._closing:
                return
            self._items.append((item, size_bytes))
            self._bytes += size_bytes
            while self._bytes > self._max_bytes and len(self._items) > 1:
                self._bytes -= self._items.popleft()[1]
                self._lose(1)
            self._changed.notify_all()

    def flush(self, deadline_seconds: float) -> bool:
        """Block until everything queued was written, or the deadline; whether it was."""
        until = time.monotonic() + deadline_seconds
        with self._changed:
            return self._changed.wait_for(self._is_idle, max(0.0, until - time.monotonic()))

    def close(self, deadline_seconds: float = 1.0) -> None:
        """Flush, then end the thread; later items are ignored. Blocks up to the deadline."""
        self.flush(deadline_seconds)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout=0.1)

    def _is_idle(self) -> bool:
        return not self._items and not self._busy

    def _lose(self, count: int) -> None:
        self._lost += count
        self.total_lost += count

    def _run(self) -> None:
        while True:
            batch, lost = self._take()
            if not batch:
                return
            self._handle(batch, lost)

    def _take(self) -> tuple[list[T], int]:
        """Wait for items; an empty batch means that it is over."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._closing)
            self._busy = True
            lost, self._lost = self._lost, 0
            batch: list[T] = []
            room = _BATCH_BYTES
            while self._items and room > 0:
                item, size = self._items.popleft()
                batch.append(item)
                self._bytes -= size
                room -= size
            return batch, lost


class Writer(Queue[T]):
    """Renders and writes items to a descriptor, which stays the caller's.

    When the reader stalls, the oldest items are dropped; when writing works again, `announce(count)` is written in
    their place. A closed pipe or a full disk loses items and nothing else: a line cut off there is ended before the
    next one.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        render: Callable[[T], str],
        announce: Callable[[int], str],
        max_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._render = render
        self._announce = announce
        self._torn = False
        super().__init__("log writer", max_bytes)

    def _handle(self, batch: list[T], lost: int) -> None:
        pieces = [_encoded(self._rendered(item)) for item in batch]
        head = _encoded(self._announce(lost)) if lost else b""
        mend = b"\n" if self._torn else b""
        written = self._write(b"".join([mend, head, *pieces]))
        if written is not None:
            self._account(written - len(mend) - len(head), pieces, lost)

    def _account(self, written: int, pieces: list[bytes], announced: int) -> None:
        """After a write that failed: what is whole out there is not lost."""
        with self._changed:
            if written < 0:
                self._lost += announced
            for piece in pieces:
                written -= len(piece)
                if written < 0:
                    self._lose(1)

    def _rendered(self, item: T) -> str:
        try:
            return self._render(item)
        except Exception as error:  # the log must survive a value nobody thought of
            return f"cannot render a log record: {error!r}\n"

    def _write(self, data: bytes) -> int | None:
        """How much was written before it failed; None when all was."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                self._wait_writable()
            except OSError:
                written = len(data) - len(view)
                self._torn = data[:written][-1:] not in (b"", b"\n") or (written == 0 and self._torn)
                return written
        self._torn = False
        return None

    def _wait_writable(self) -> None:
        """Whoever shares our terminal may have made it non-blocking; that flag belongs to all who share it."""
        poll = select.poll()
        with contextlib.suppress(OSError):
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")
