"""10,000 orphans that end at once, under us as PID 1 and under others."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.figures import Row, Section
from tests.bench.others import s6_argv, supervisord_argv
from tests.bench.rig import (
    IMPORTS,
    PROGRAMS,
    PYTHON,
    SUPERVISOR,
    UNSHARE,
    Plan,
    Started,
    Supervisor,
    environment,
    folder,
    free_port,
    missing,
    sweep,
    wait_until,
)

COUNT, QUICK_COUNT = 10_000, 3_000
SLOW = ("supervisord",)  # about 100 s a run, so only one
METHOD = (
    f"As PID 1 of a PID namespace, over a program that forks {COUNT:,} grandchildren ({QUICK_COUNT:,} with --quick) "
    "whose parents end, and then lets all of them end at once. The program itself counts the namespace's processes, "
    "zombies included, until it is back to what it had been; the time is from letting go to then and so has the "
    "kernel's own work in it. The status API of `supervisor run` is asked all the while, one connection a question, in "
    "turns with a process outside that does nothing but answer: how long that one takes is the machine's doing."
)


@dataclass
class Found:
    """What one init did."""

    gone: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    yardstick: list[float] = field(default_factory=list)


def run(plan: Plan) -> Section:
    """Everybody in turns."""
    count = QUICK_COUNT if plan.quick else COUNT
    section = Section(name="orphans", title=f"{count:,} orphans", method=METHOD)
    found: dict[str, Found] = {}
    for number in range(plan.runs(3, 1)):
        for name, measure in _ways().items():
            if name in SLOW and number:
                continue
            plan.say(f"{name}, run {number + 1}")
            with folder() as home:
                measure(home, count, found.setdefault(name, Found()))
                sweep()  # the namespace goes down with its init, which we adopted
    ours = found["supervisor run"]
    for name, one in found.items():
        is_ours = name.startswith("supervisor ")
        section.rows.append(
            Row(what=f"{name}: until none is left", values=one.gone, unit="s", ours=None if is_ours else ours.gone)
        )
        target = 0 if is_ours else None
        section.rows.append(Row(what=f"{name}: zombies left", values=[max(one.left)], target=target))
    section.rows.append(Row(what="status API before", values=ours.quiet, unit="ms"))
    section.rows.append(Row(what="status API meanwhile", values=ours.during, unit="ms"))
    section.rows.append(Row(what="the idle process meanwhile", values=ours.yardstick, unit="ms"))
    return section


def _ways() -> dict[str, Callable[[Path, int, Found], None]]:
    ways: dict[str, Callable[[Path, int, Found], None]] = {
        "supervisor run": _under_run,
        "supervisor init": lambda home, count, found: _under(
            home, count, found, lambda argv: [*SUPERVISOR, "init", "--", *argv]
        ),
    }
    if not missing("tini"):
        ways["tini"] = lambda home, count, found: _under(home, count, found, lambda argv: ["tini", "--", *argv])
    if not missing("dumb-init"):
        ways["dumb-init"] = lambda home, count, found: _under(
            home, count, found, lambda argv: ["dumb-init", "--", *argv]
        )
    if not missing("s6-svscan"):
        ways["s6-svscan"] = lambda home, count, found: _under(
            home, count, found, lambda argv: s6_argv(home / "s6", {"app": argv})
        )
    if not missing("supervisord"):
        ways["supervisord"] = lambda home, count, found: _under(
            home, count, found, lambda argv: supervisord_argv(home / "supervisord", {"app": argv})
        )
    return ways


def _program(home: Path, count: int) -> list[str]:
    return [PYTHON, "-I", "-S", str(PROGRAMS / "orphans.py"), str(count), str(home / "go"), str(home / "result")]


def _under(home: Path, count: int, found: Found, argv: Callable[[Sequence[str]], list[str]]) -> None:
    (home / "go").touch()
    words = argv(_program(home, count))
    with Started(
        [*UNSHARE, *words],
        log=home / "log",
        env=environment(IMPORTS if words[0] == PYTHON else {}),
        stop_signal=signal.SIGKILL,
    ) as started:
        _note(_result(home, started), found)


def _under_run(home: Path, count: int, found: Found) -> None:
    port, socket_path = free_port(), home / "echo.sock"
    options = ["--no-services", "--app-dir", str(home), "--port", str(port), "--", *_program(home, count)]
    echo = [PYTHON, "-I", "-S", str(PROGRAMS / "echo.py"), str(socket_path)]
    with Started(echo, log=home / "echo.log"), Supervisor(home, *options, prefix=UNSHARE) as supervisor:
        supervisor.booted()
        wait_until(socket_path.exists, what="the yardstick's socket")
        found.quiet.extend(ask(supervisor.socket) * 1000 for _ in range(50))
        (home / "go").touch()
        answers: list[tuple[float, float, float]] = []
        while not (home / "result").exists():
            answers.append((time.monotonic(), ask(supervisor.socket) * 1000, ask(socket_path) * 1000))
            if supervisor.popen.poll() is not None:
                raise RuntimeError(f"it ended: {supervisor.explain()}")
        result = _result(home, supervisor)
        for asked, taken, idle in answers:
            if asked + taken / 1000 >= result["released_at"]:
                found.during.append(taken)
                found.yardstick.append(idle)
        _note(result, found)
        # The one started is unshare, which passes no signal on; its end takes the namespace along.
        supervisor.kill()


def _note(result: dict[str, Any], found: Found) -> None:
    found.gone.append(result["gone"])
    found.left.append(result["left"])


def _result(home: Path, started: Started) -> dict[str, Any]:
    def read() -> dict[str, Any] | None:
        if (home / "result").exists():
            found: dict[str, Any] = json.loads((home / "result").read_text())
            return found
        if started.popen.poll() is not None:
            raise RuntimeError(f"it ended with {started.popen.returncode}: {started.explain()}")
        return None

    result: dict[str, Any] = wait_until(read, what="the end of the orphans", limit_seconds=220)
    return result


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(os.fspath(self._path))


def ask(path: Path) -> float:
    """Seconds for one answer of the status API, connecting included."""
    began = time.monotonic()
    connection = _Unix(path)
    try:
        connection.request("GET", "/v1/status")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.read()
    finally:
        connection.close()
    return time.monotonic() - began
