"""What is seen of an update on a terminal."""

from __future__ import annotations

import io
from typing import cast

from rich.console import Console
from rich.progress import Progress

from supervisor.cli.progress import Told, told
from supervisor.cli.sources import Opened
from supervisor.client.control import ControlClient


def source() -> Opened:
    return Opened(io.BytesIO(bytes(3_000_000)), "it", 3_000_000)


def test_sent_bytes_and_unpacked_files_are_counted() -> None:
    out = io.StringIO()
    with Progress(
        console=Console(file=out, force_terminal=True, width=100, highlight=False), auto_refresh=False
    ) as shown:
        progress = Told(shown, "app")
        assert sum(len(block) for block in progress.sent(source())) == 3_000_000
        unpacking = {"event": "release.unpacking", "app": "app", "files": 1200, "bytes": 5, "total_bytes": 10}
        progress.tell(unpacking)
        progress.tell(unpacking | {"app": "another", "bytes": 9})
        progress.tell({"event": "app.generation", "app": "app", "generation": 2, "state": "starting"})
        rows = [(task.description, task.completed, task.total) for task in shown.tasks]
    assert rows == [("sending", 3_000_000, 3_000_000), ("unpacking (1,200 files)", 5, 10)]
    assert "generation 2: starting" in out.getvalue()


def test_without_a_terminal_nothing_is_shown_and_nothing_asked() -> None:
    out = io.StringIO()
    with told(cast(ControlClient, None), "app", Console(file=out)) as progress:
        assert sum(len(block) for block in progress.sent(source())) == 3_000_000
    assert out.getvalue() == ""
