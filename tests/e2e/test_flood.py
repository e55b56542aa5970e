"""An app that prints as fast as it can blocks nothing, eats no memory and is not blocked itself."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.client.control import ControlClient
from tests.e2e.conftest import Make
from tests.e2e.harness import Supervisor, request, wait_until

PROGRAM = Path(__file__).parent / "flood_app.py"
MOST_GROWN_KIB = 20 * 1024
ANSWER_SECONDS = 1.0
OFFERED_BYTES_A_SECOND = 200_000_000


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


class Watch:
    """The most memory that a process had within the block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most_kib = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most_kib = max(self.most_kib, resident_kib(self._pid))


@pytest.fixture
def app(make: Make, folder: Path) -> Supervisor:
    """The flooding app, not started yet."""
    where = folder / "app"
    where.mkdir()
    shutil.copy(PROGRAM, where)
    low = 30000 + 20 * secrets.randbelow(120)
    supervisor = make("--no-services", "--app-dir", str(where), "--", "python", "-S", PROGRAM.name)
    supervisor.environ |= {
        "SUPERVISOR_APP_PORTS": f"{low}-{low + 199}",
        "SUPERVISOR_BAKE_SECONDS": "0",
        "SUPERVISOR_APP_MIN_UPTIME_SECONDS": "0",
    }
    return supervisor


def answer_seconds(client: ControlClient) -> float:
    began = time.monotonic()
    assert client.get("/v1/status").body["state"] in ("running", "degraded")
    return time.monotonic() - began


def reload_seconds(client: ControlClient) -> float:
    began = time.monotonic()
    outcome = client.post("/v1/reload", timeout_seconds=30).body
    assert outcome["result"] == "ok", outcome
    return time.monotonic() - began


def floods(folder: Path) -> list[dict[str, Any]]:
    """What each of the app's floods got rid of, those that are over."""
    return [json.loads(path.read_text()) for path in folder.glob("flood-*.json")]


@pytest.mark.parametrize("kind", ["lines", "yes"])
def test_flooding_app_costs_little_memory_and_keeps_nobody_waiting(app: Supervisor, kind: str, soak: bool) -> None:
    seconds = 10.0 if soak else 3.0
    app.boot()
    client = ControlClient(str(app.folder / "run" / "control.sock"))
    reload_seconds(client)  # what a first reload imports is no flood's
    # The second is for a machine of its own; where a reload in silence is slow, others are at work here.
    limit = max(ANSWER_SECONDS, 4 * max(reload_seconds(client) for _ in range(2)))
    idle = resident_kib(app.pid)
    with Watch(app.pid) as watch:
        began = time.monotonic()
        request(app.port, f"/flood/{kind}/{seconds}")
        answers, reloads = [], []
        while time.monotonic() - began < seconds:
            answers += [answer_seconds(client) for _ in range(5)]
            reloads.append(reload_seconds(client))
        spent = time.monotonic() - began
    assert watch.most_kib - idle < MOST_GROWN_KIB, f"from {idle} to {watch.most_kib} KiB"
    assert max(answers) < limit, f"a status took {max(answers):.2f} s"
    assert max(reloads) < limit, f"reloads took {reloads}, not {limit:.2f} s"
    generations = len(reloads) + 3
    found = wait_until(
        "every flood is over",
        lambda: len(over := floods(app.folder.parent / "app")) >= len(reloads) and over,
        limit=20,
    )
    assert max(flood["longest_seconds"] for flood in found) < 2.0, found
    assert sum(flood["bytes"] for flood in found) > OFFERED_BYTES_A_SECOND * spent / 4, found
    (row,) = client.get("/v1/status").body["output_dropped"]
    assert row["source"] == "app"
    assert row["lines"] > 0
    said = app.events("log.dropped", source="app")
    assert len(said) <= (spent + 2) * generations
    assert sum(event["count"] for event in said) <= row["lines"]
    assert "the last words of" in app.output("app")
    assert "log lines dropped: app printed faster than" in app.cli("logs", "app", "-n", "5000").stdout


def test_log_files_hold_each_source_within_their_bounds(app: Supervisor) -> None:
    where = app.folder / "logs"
    app.environ |= {"SUPERVISOR_LOG_DIR": str(where), "SUPERVISOR_LOG_MAX_MIB": "1", "SUPERVISOR_LOG_KEEP": "2"}
    app.boot()
    request(app.port, "/flood/lines/1")
    wait_until("the flood is over", lambda: floods(app.folder.parent / "app"), limit=20)
    app.stop()
    assert {"app.log", "supervisor.log"} <= {path.name for path in where.iterdir()}
    assert all(path.stat().st_size <= 1024 * 1024 for path in where.iterdir())
    lines = [json.loads(line) for line in (where / "app.log").read_text().splitlines()]
    assert {line["source"] for line in lines} == {"app"}
