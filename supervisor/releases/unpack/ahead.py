"""Reading ahead: the next pieces are unpacked by a second thread while the last ones are written."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator

_PIECES = 8
"""At most so many wait; with pieces of 1 MiB that is 8 MiB. Each costs the writer the GIL a few times."""


def read_ahead(chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The same pieces, and in their place the error that `chunks` raises. zlib, zstd and SHA-256 work without the GIL.

    Closing it, or reading it to its end, ends the thread; until then `chunks` belongs to that.
    """
    pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(_PIECES)
    closed = threading.Event()

    def work() -> None:
        last: BaseException | None = None
        try:
            for chunk in chunks:
                pieces.put(chunk)
                if closed.is_set():
                    return
        except BaseException as error:  # it is raised again where the pieces are taken
            last = error
        pieces.put(last)

    thread = threading.Thread(target=work, name="unpack ahead", daemon=True)
    thread.start()
    try:
        while isinstance(piece := pieces.get(), bytes):
            yield piece
        if piece is not None:
            raise piece
    finally:
        closed.set()
        # With all of the room free again the thread gets its next piece in, looks up, and ends.
        with contextlib.suppress(queue.Empty):
            while True:
                pieces.get_nowait()
        thread.join()
