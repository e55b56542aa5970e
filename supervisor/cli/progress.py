"""What is seen of an update on a terminal while it is awaited: bytes sent, bytes and files unpacked, what is tried."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from supervisor.cli.sources import Opened
from supervisor.client.control import ControlClient
from supervisor.core.errors import SupervisorError


class Told:
    """One update, told as it goes on; `tell` takes the supervisor's events, in another thread."""

    def __init__(self, shown: Progress, app: str) -> None:
        self._shown = shown
        self._app = app
        self._rows: dict[str, TaskID] = {}

    def sent(self, source: Opened) -> Iterator[bytes]:
        """The blocks of `source`, counted as they are taken."""
        row = self._row("sending", source.size)
        for block in source.blocks():
            yield block
            self._shown.update(row, advance=len(block))

    def tell(self, event: dict[str, Any]) -> None:
        """Events of other apps, and of other kinds, are not shown."""
        if event.get("app") != self._app:
            return
        if event.get("event") == "release.unpacking":
            row = self._row("unpacking", event["total_bytes"])
            what = f"unpacking ({event['files']:,} files)"
            self._shown.update(row, completed=event["bytes"], description=what)
        elif event.get("event") == "app.generation":
            self._shown.console.print(f"generation {event['generation']}: {event['state']}")

    def _row(self, name: str, total: int | None) -> TaskID:
        if name not in self._rows:
            self._rows[name] = self._shown.add_task(name, total=total)
        return self._rows[name]


@contextmanager
def told(client: ControlClient, app: str, console: Console) -> Iterator[Told]:
    """Shown within the block where `console` is a terminal, and the bars wiped then: what remains is what was tried."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        progress = Told(shown, app)
        if console.is_terminal:
            # It ends with this process: nobody waits for a stream without an end.
            threading.Thread(target=_follow, args=(client, progress), daemon=True).start()
        yield progress


def _follow(client: ControlClient, progress: Told) -> None:
    with suppress(SupervisorError):
        for event in client.lines("/v1/events?n=0&follow=1"):
            progress.tell(event)
