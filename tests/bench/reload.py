"""A reload: how soon the old app is told, and for how long connections are refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.figures import Row, Section
from tests.bench.others import s6_argv, supervisorctl_argv, supervisord_argv
from tests.bench.rig import (
    PROGRAMS,
    PYTHON,
    Plan,
    Ports,
    Started,
    alone,
    at,
    environment,
    folder,
    free_port,
    missing,
    notes_stack,
    wait_until,
)

ORIGINAL_GAP_MS, ORIGINAL_REACTION_MS = 3070.0, 3000.0
METHOD = (
    "`told` is from the signal, the touch or the client's start to the old app's TERM handler, which writes the "
    "time; `gap` is from the first refused or broken request after that to the first answered one, asked every "
    "millisecond. The small app ends at once when told and starts in about 20 ms, so its gap is mostly the "
    "supervisor's; the gap with examples/notes is one of a real app's stop and start. Stop, then start: the "
    "reload without a gap is another issue. The original's figures are those measured for the issue, not measured "
    "again here."
)
PROGRAM = [PYTHON, "-I", "-S", str(PROGRAMS / "app.py")]


@dataclass
class Found:
    """Milliseconds."""

    told: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)


class Asker:
    """Asks the app every millisecond, in a thread, and remembers which questions failed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[tuple[float, float, bool]] = []

    def __enter__(self) -> Asker:
        self._thread.start()
        wait_until(lambda: self.answers and self.answers[-1][2], what="a first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.001):
            began = time.monotonic()
            good = self._ask()
            self.answers.append((began, time.monotonic(), good))

    def _ask(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=2) as connection:
                connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def gap(self, after: float, limit_seconds: float = 30) -> float:
        """Seconds from the first failure after `after` to the next good answer."""

        def found() -> tuple[float, float] | None:
            bad = next((began for began, _, good in self.answers if began >= after - 1 and not good), None)
            if bad is None:
                return None
            answered = next((ended for began, ended, good in self.answers if began > bad and good), None)
            return None if answered is None else (bad, answered)

        bad, answered = wait_until(found, what="the gap's end", limit_seconds=limit_seconds)
        return float(answered - bad)


def run(plan: Plan) -> Section:
    """In turns."""
    section = Section(name="reload", title="reload by HUP and by the trigger file", method=METHOD)
    found: dict[str, Found] = {}
    runs = plan.runs(9)
    with folder() as home, _ours(home) as (pid, port, told):
        trigger = home / ".reload-trigger"
        for _ in range(runs):
            _measure(found, "HUP", port, told, lambda: os.kill(pid, signal.SIGHUP))
            _measure(found, "trigger file", port, told, trigger.touch)
    for name, other in _others().items():
        plan.say(name)
        with folder() as home:
            other(home, found, runs)
    plan.say("the notes app")
    gaps, reactions = _notes(runs)
    for name, one in found.items():
        is_ours = name in ("HUP", "trigger file")
        ours = None if is_ours else found["HUP"]
        section.rows.append(Row(what=f"{name}: told", values=one.told, unit="ms", ours=ours.told if ours else None))
        section.rows.append(Row(what=f"{name}: gap", values=one.gap, unit="ms", ours=ours.gap if ours else None))
    section.rows.append(Row(what="notes, embedded, HUP: gap", values=gaps, unit="ms"))
    section.rows.append(Row(what="notes, embedded, HUP: to our log's draining", values=reactions, unit="ms"))
    section.rows.append(Row(what="the original, HUP: gap", values=[ORIGINAL_GAP_MS], unit="ms", ours=found["HUP"].gap))
    section.rows.append(
        Row(
            what="the original, trigger file: seen, worst",
            values=[ORIGINAL_REACTION_MS],
            unit="ms",
            ours=found["trigger file"].told,
        )
    )
    return section


@contextmanager
def _ours(home: Path) -> Iterator[tuple[int, int, Path]]:
    port, told = free_port(), home / "told"
    with alone(home, port, PROGRAM, settings={"BENCH_TOLD": str(told)}) as supervisor:
        supervisor.booted()
        yield supervisor.pid, port, told


def _measure(found: dict[str, Found], name: str, port: int, told: Path, trigger: Callable[[], object]) -> None:
    """One reload of a healthy, settled app."""
    with Asker(port) as asker:
        time.sleep(1.2)  # as one that ran: s6 and supervisord take a quick end for a failed start
        before = len(told.read_text().splitlines())
        began = time.monotonic()
        trigger()
        lines = wait_until(lambda: told.read_text().splitlines()[before:], what=f"{name}: the app told")
        one = found.setdefault(name, Found())
        one.told.append((float(lines[0]) - began) * 1000)
        one.gap.append(asker.gap(float(lines[0])) * 1000)


def _others() -> dict[str, Callable[[Path, dict[str, Found], int], None]]:
    others: dict[str, Callable[[Path, dict[str, Found], int], None]] = {}
    if not missing("supervisord", "supervisorctl"):
        others["supervisord"] = _supervisord
    if not missing("s6-svscan", "s6-svc"):
        others["s6"] = _s6
    return others


def _call(argv: Sequence[str]) -> None:
    """Run a client to its end, in an environment whose PYTHONPATH cannot lead supervisorctl to our package."""
    subprocess.run(argv, env=environment(), capture_output=True, timeout=30, check=True)


def _supervisord(home: Path, found: dict[str, Found], runs: int) -> None:
    port, told, it = free_port(), home / "told", home / "it"
    env = environment({"PORT": str(port), "BENCH_TOLD": str(told)})
    with Started(supervisord_argv(it, {"app": PROGRAM}), log=home / "log", env=env) as started:
        for _ in range(runs):
            _measure(
                found,
                "supervisorctl restart",
                port,
                told,
                lambda: _call(supervisorctl_argv(it, "restart", "app")),
            )
        for _ in range(runs):
            _measure(found, "supervisord, HUP", port, told, lambda: os.kill(started.pid, signal.SIGHUP))


def _s6(home: Path, found: dict[str, Found], runs: int) -> None:
    port, told, it = free_port(), home / "told", home / "it"
    env = environment({"PORT": str(port), "BENCH_TOLD": str(told)})
    with Started(s6_argv(it, {"app": PROGRAM}), log=home / "log", env=env):
        for _ in range(runs):
            _measure(
                found,
                "s6-svc -r",
                port,
                told,
                lambda: _call(["s6-svc", "-r", str(it / "app")]),
            )


def _notes(runs: int) -> tuple[list[float], list[float]]:
    """(gaps, time to our own log's word that the old app is told) of the real app, in ms."""
    gaps, reactions = [], []
    ports = Ports.choose()
    with folder() as home, notes_stack(home, ports) as stack:
        stack.booted()
        for number in range(runs):
            with Asker(ports.app) as asker:
                began, began_wall = time.monotonic(), time.time()
                os.kill(stack.pid, signal.SIGHUP)
                draining = stack.wait("app.generation", state="draining", generation=number + 1)
                reactions.append((at(draining) - began_wall) * 1000)
                gaps.append(asker.gap(began) * 1000)
                stack.wait("app.generation", state="serving", generation=number + 2)
    return gaps, reactions
