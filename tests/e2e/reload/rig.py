"""What the tests of reloads add to the harness: an app that is told what to do, reloads and load in one line each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from supervisor.client.control import ControlClient
from tests.e2e.harness import Supervisor, is_running, wait_until
from tests.load.plan import Plan
from tests.load.process import Load
from tests.load.report import Report

PROGRAM = Path(__file__).parent / "echo_app.py"
COMMAND = ("--", "python", "-S", "echo_app.py")
LOST = frozenset({"status 502", "closed before the answer"})
"""How a request ends that a killed app had in hand: on a connection that was used before, HAProxy closes it instead."""

MOST_LOST = 60
"""Of what was in flight: a tenth of a second of the load at each of two crashes, for a machine that is busy."""


class App:
    """A supervisor with the app of `echo_app`; `release` puts new code onto the disk, `reload` makes it serve."""

    def __init__(self, supervisor: Supervisor, folder: Path) -> None:
        self.supervisor = supervisor
        self.folder = folder
        self.version = 0
        folder.mkdir(exist_ok=True)
        shutil.copy(PROGRAM, folder)
        supervisor.environ |= {"SUPERVISOR_BAKE_SECONDS": "0.3"}
        self.release()

    def release(self, **behaviour: Any) -> int:
        """New code; gives its version."""
        self.version += 1
        text = json.dumps({"version": self.version, **behaviour})
        made = self.folder / "behaviour.new"
        made.write_text(text)
        made.rename(self.folder / "behaviour.json")
        return self.version

    def boot(self, **environ: str) -> Supervisor:
        """Start the supervisor and wait until the app serves."""
        self.supervisor.environ |= environ
        return self.supervisor.boot()

    def reload(self, query: str = "") -> dict[str, Any]:
        """One reload to its outcome."""
        return self.client.post(f"/v1/reload{query}", timeout_seconds=20).body

    @contextmanager
    def reloading(self, query: str = "") -> Iterator[dict[str, Any]]:
        """A reload that goes on while the block runs; its outcome is in the dictionary after it."""
        outcome: dict[str, Any] = {}
        thread = threading.Thread(target=lambda: outcome.update(self.reload(query)))
        thread.start()
        try:
            yield outcome
        finally:
            thread.join(60)
        assert outcome, f"the reload did not end:\n{self.supervisor.log()[-6000:]}"

    @property
    def client(self) -> ControlClient:
        return ControlClient(str(self.supervisor.folder / "run" / "control.sock"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.supervisor.port}/echo"

    def wait_begun(self, version: int) -> None:
        """Until a process of this version runs, so that it does not change by what is released next."""
        wait_until(f"version {version} begins", lambda: f"version {version} begins" in self.supervisor.output("app"))

    def wait_state(self, generation: int, state: str) -> dict[str, Any]:
        """Until a generation came to a state."""
        return self.supervisor.wait_event("app.generation", generation=generation, state=state, limit=30)

    def pid_of(self, generation: int) -> int:
        """The process of a generation."""
        return int(self.wait_state(generation, "starting")["pid"])

    def kill(self, generation: int) -> None:
        """kill -9 of its process."""
        os.kill(self.pid_of(generation), signal.SIGKILL)

    def haproxy_pid(self) -> int:
        """The pid of the HAProxy of now, a child of the supervisor."""

        def found() -> int | None:
            own = self.supervisor.pid
            for word in Path(f"/proc/{own}/task/{own}/children").read_text().split():
                if Path(f"/proc/{word}/comm").read_text().strip() == "haproxy":
                    return int(word)
            return None

        return int(wait_until("haproxy runs", found, limit=15))

    @contextmanager
    def frozen_haproxy(self) -> Iterator[None]:
        """HAProxy does not run within the block, so a switch goes on until it ends."""
        pid = self.haproxy_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def wait_gone(self, *pids: int) -> None:
        """Until none of these processes is there."""
        wait_until(f"of {pids} all are gone", lambda: not any(is_running(pid) for pid in pids), limit=20)


class BothLoads:
    """Requests on kept connections, half of them POST, and on a new connection each, at a time."""

    def __init__(self, app: App, *, rate: float = 150) -> None:
        common: dict[str, Any] = {"url": app.url, "rate": rate, "post_every": 2, "limit_seconds": 15}
        self._loads = [Load(Plan(**common, connections=connections)) for connections in (10, 0)]

    def __enter__(self) -> BothLoads:
        for load in self._loads:
            load.__enter__()
        for load in self._loads:
            load.began_at()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for load in self._loads:
            load.__exit__(kind, error, trace)

    def version_at(self, version: int) -> float:
        """When this version first answered."""
        return self._loads[0].version_at(version)

    def stop(self) -> list[Report]:
        """End both; the reports of the kept connections and of the new ones."""
        return [load.stop() for load in self._loads]


def failures(reports: list[Report], *, may_go_back: bool = False) -> dict[str, int]:
    """All failures by kind; empty where none failed.

    Fails where next to nothing was sent, and where a connection was answered by older code than before.
    """
    assert all(report.after.sent > 20 for report in reports), reports
    assert may_go_back or all(report.backwards == 0 for report in reports), reports
    kinds: dict[str, int] = {}
    for report in reports:
        for kind, count in report.after.failures.items():
            kinds[kind] = kinds.get(kind, 0) + count
    return kinds


def answered(reports: list[Report]) -> int:
    """How many requests were answered well."""
    return sum(report.after.answered for report in reports)


def longest_ms(reports: list[Report]) -> float:
    """The longest wait of all."""
    return max(report.after.longest_ms for report in reports)
