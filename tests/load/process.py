"""Starts the generator as a process and listens to it. For tests and benchmarks; every wait has a limit."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.load.plan import Plan
from tests.load.report import Report

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 30.0

Line = dict[str, Any]


class Load:
    """A running load; leaving the `with` ends it. All methods block, so async code calls them in a thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lines: list[Line] = []
        self._ended = False
        self._heard = threading.Condition()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.load", *plan.arguments()],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.kill()
        self._popen.wait(LIMIT_SECONDS)
        self._thread.join(LIMIT_SECONDS)
        if self._popen.stdout:
            self._popen.stdout.close()

    def began_at(self, limit_seconds: float = LIMIT_SECONDS) -> float:
        """When the first request was due, in monotonic seconds."""
        line = self._find("the load's start", limit_seconds, lambda line: line["event"] == "began")
        return float(line["at"])

    def version_at(self, version: int, limit_seconds: float = LIMIT_SECONDS) -> float:
        """When this version of the app first answered, in monotonic seconds."""
        line = self._find(
            f"an answer of version {version}",
            limit_seconds,
            lambda line: line["event"] == "version" and line["version"] == version,
        )
        return float(line["at"])

    def wait_quiet(self) -> None:
        """Until the seconds that are reported apart are over."""
        time.sleep(max(0.0, self.began_at() + self._plan.quiet_seconds - time.monotonic()))

    def stop(self) -> Report:
        """Send nothing more, wait for what is on its way, and give the report."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        return self.report(self._plan.limit_seconds + LIMIT_SECONDS)

    def report(self, limit_seconds: float | None = None) -> Report:
        """Wait for the end of the plan."""
        limit = limit_seconds or self._plan.seconds + self._plan.limit_seconds + LIMIT_SECONDS
        line = dict(self._find("the load's report", limit, lambda line: line["event"] == "report"))
        line.pop("event")
        return Report.from_dict(line)

    def _listen(self) -> None:
        for text in self._popen.stdout or ():
            with self._heard:
                self._lines.append(json.loads(text))
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def _find(self, what: str, limit_seconds: float, is_it: Callable[[Line], bool]) -> Line:
        def found() -> Line | None:
            return next((line for line in self._lines if is_it(line)), None)

        with self._heard:
            self._heard.wait_for(lambda: found() or self._ended, limit_seconds)
            if line := found():
                return line
            if self._ended:
                raise RuntimeError(f"cannot get {what}: the generator has ended; its own error is above")
            raise TimeoutError(f"cannot get {what}: not within {limit_seconds:g} s")
