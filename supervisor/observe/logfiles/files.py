"""Writes the log of each source into its file, rotates, and removes what is too old.

Of its own: RotatingFileHandler rotates by size or by age, not both, compresses in the call that logs, renames the whole
row of files each time, and blocks who logs; logrotate is in no slim image, and copytruncate loses lines.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from supervisor.observe.logfiles.attic import Attic
from supervisor.observe.logfiles.live import LiveFile
from supervisor.observe.logfiles.rotation import Keeping
from supervisor.observe.writer import Queue

T = TypeVar("T")

_QUIET_SECONDS = 60.0


class LogFiles(Queue[T], Generic[T]):
    """`put` never blocks; a disk that is full or read-only costs lines, is told once, and again when it is over.

    `source_of` and `render` say into which file an item goes and as which text; `tell` gets what is wrong, from
    another thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source_of: Callable[[T], str],
        render: Callable[[T], str],
        tell: Callable[[str], None],
        keeping: Keeping | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = folder
        self._source_of = source_of
        self._render = render
        self._tell = tell
        self._keeping = keeping or Keeping()
        self._clock = clock
        self._live: dict[str, LiveFile] = {}
        self._trouble: dict[str, _Trouble] = {}
        self._attic = Attic(folder, self._keeping, tell)
        super().__init__("log files")

    def _handle(self, batch: list[T], lost: int) -> None:
        texts: dict[str, list[str]] = {}
        for item in batch:
            texts.setdefault(self._source_of(item), []).append(self._render(item))
        for source, lines in texts.items():
            try:
                self._append(source, "".join(lines).encode(errors="replace"))
            except OSError as error:
                self._failed(source, len(lines), error)
            else:
                self._works(source)

    def _append(self, source: str, data: bytes) -> None:
        is_new = source not in self._live
        if is_new and not self._live:
            self._attic.take_up()
        now = self._clock()
        live = self._live.setdefault(source, LiveFile(self._folder, source, self._keeping))
        rotated = live.append(data, now)
        if rotated is not None:
            self._attic.put(rotated)
        if is_new or rotated is not None:
            self._attic.expire(source, now)

    def _failed(self, source: str, count: int, error: OSError) -> None:
        with self._changed:
            self.total_lost += count
        if source not in self._trouble:
            self._tell(
                f"cannot keep the log of {source!r} in {str(self._folder)!r}: {error.strerror}; its lines are lost "
                f"there until uid {os.geteuid()} can write again: make room, or choose another SUPERVISOR_LOG_DIR"
            )
        trouble = self._trouble.setdefault(source, _Trouble())
        trouble.count += count
        trouble.last = time.monotonic()

    def _works(self, source: str) -> None:
        """On a disk that is all but full one line fits and the next does not; that is one trouble."""
        trouble = self._trouble.get(source)
        if trouble is not None and time.monotonic() - trouble.last >= _QUIET_SECONDS:
            del self._trouble[source]
            self._tell(
                f"the log of {source!r} is kept again in {str(self._folder)!r}; {trouble.count} lines are missing there"
            )


@dataclass
class _Trouble:
    count: int = 0
    last: float = 0.0
