"""The trigger file: touching it asks for a reload. The first touch counts at once, the rest share what is pending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

POLL_SECONDS = 1.0  # where the folder cannot be watched
WATCHED_POLL_SECONDS = 2.5  # where it is: only for bind mounts that lose events
_STEP_MILLISECONDS = 20
_DEBOUNCE_MILLISECONDS = 100
_FOLDER_RETRY_SECONDS = 2.0
_THREAD_MILLISECONDS = 60_000  # how long its thread waits before it asks Python again; the stop event ends it sooner

Stamp = tuple[int, int, int] | None


def stamp(path: Path) -> Stamp:
    """What tells one touch from the next: (mtime in ns, inode, size); None while the file is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def touched(before: Stamp, after: Stamp) -> bool:
    """Whether the file was touched between two stamps; its removal is no touch."""
    return after is not None and after != before


class TriggerFile:
    """Watches `path`; calls `on_touch` for each touch seen. The file is never removed.

    `seen` is its stamp (see `stamp`) when the supervisor started. The folder is watched, as editors and `mv` replace
    files; where inotify is missing or a bind mount loses events, a comparison every second or two finds the touch too.
    """

    def __init__(
        self, path: Path, on_touch: Callable[[], None], *, seen: Stamp, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._path = path
        self._on_touch = on_touch
        self._poll_seconds = poll_seconds
        self._seen = seen
        self.watching = "nothing yet"

    def look(self) -> None:
        """Compare now, and report a touch."""
        now = stamp(self._path)
        if touched(self._seen, now):
            self._seen = now
            self._on_touch()
        elif now is None:
            self._seen = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; ready at once."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._poll)
            group.start_soon(self._watch)
            task_status.started()

    async def _poll(self) -> None:
        while True:
            watched = self.watching == "inotify"
            await anyio.sleep(max(self._poll_seconds, WATCHED_POLL_SECONDS) if watched else self._poll_seconds)
            self.look()

    async def _watch(self) -> None:
        while True:
            folder = self._path.parent
            if folder.is_dir():
                self.look()
                try:
                    await self._watch_folder(folder)
                except (OSError, RuntimeError):
                    # No watches left, or none on this file system: the comparison of each second goes on alone.
                    self.watching = "polling"
            await anyio.sleep(_FOLDER_RETRY_SECONDS)

    async def _watch_folder(self, folder: Path) -> None:
        """Until the watch breaks. A cancelled watchfiles waits for its thread, so the thread is told to end first."""
        from watchfiles import awatch

        stop = anyio.Event()
        async with anyio.create_task_group() as group:

            async def end_the_thread() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    stop.set()

            group.start_soon(end_the_thread)
            changes = awatch(
                folder,
                watch_filter=lambda _, path: Path(path).name == self._path.name,
                step=_STEP_MILLISECONDS,
                debounce=_DEBOUNCE_MILLISECONDS,
                rust_timeout=_THREAD_MILLISECONDS,
                recursive=False,
                stop_event=stop,
            )
            self.watching = "inotify"
            async for _ in changes:
                self.look()
            group.cancel_scope.cancel()
