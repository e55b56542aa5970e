"""From kill -9 of the app to a new process running the same program."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import procfs
from tests.bench.figures import Row, Section
from tests.bench.others import s6_argv, supervisord_argv
from tests.bench.rig import PROGRAMS, PYTHON, Plan, Started, alone, environment, folder, free_port, missing, wait_until

TARGET_MS = 20.0
HEALTHY_SECONDS = 1.5  # supervisord and s6 take an end within the first second for a failed start
WHY = (
    "most of it is the search for what the dead process left, which reads the environment of every process there is: "
    "some 0.1 ms each, so it grows with the machine"
)
METHOD = (
    f"The same small program under each, killed with -9 after {HEALTHY_SECONDS:g} s of healthy running, the first "
    "crash of each run. The time ends when a child of the supervisor with another pid runs that program, read "
    "from /proc without a pause."
)


def run(plan: Plan) -> Section:
    """In turns."""
    section = Section(name="crash", title="crash to new process", method=METHOD)
    values: dict[str, list[float]] = {}
    for number in range(plan.runs(11, 3)):
        plan.say(f"round {number + 1}")
        for name, start in _ways().items():
            with folder() as home, start(home) as parents:
                values.setdefault(name, []).append(_crash(parents) * 1000)
    for name, found in values.items():
        is_ours = name.startswith("supervisor ")
        target = TARGET_MS if is_ours else None
        ours = None if is_ours else values["supervisor run"]
        section.rows.append(Row(what=name, values=found, unit="ms", target=target, ours=ours, why=WHY))
    return section


Parents = Callable[[], list[int]]


def _ways() -> dict[str, Callable[[Path], contextlib.AbstractContextManager[Parents]]]:
    ways: dict[str, Callable[[Path], contextlib.AbstractContextManager[Parents]]] = {"supervisor run": _ours}
    if not missing("supervisord"):
        ways["supervisord"] = _supervisord
    if not missing("s6-svscan"):
        ways["s6-supervise"] = _s6
    return ways


PROGRAM: Sequence[str] = [PYTHON, "-I", "-S", str(PROGRAMS / "app.py")]


@contextlib.contextmanager
def _ours(home: Path) -> Iterator[Parents]:
    with alone(home, free_port(), PROGRAM) as supervisor:
        supervisor.booted()
        yield lambda: [supervisor.pid]


@contextlib.contextmanager
def _supervisord(home: Path) -> Iterator[Parents]:
    env = environment({"PORT": str(free_port())})
    with Started(supervisord_argv(home / "it", {"app": PROGRAM}), log=home / "log", env=env) as started:
        yield lambda: [started.pid]


@contextlib.contextmanager
def _s6(home: Path) -> Iterator[Parents]:
    env = environment({"PORT": str(free_port())})
    with Started(s6_argv(home / "it", {"app": PROGRAM}), log=home / "log", env=env) as started:
        yield lambda: procfs.children(started.pid)  # each service has an s6-supervise of its own


def _crash(parents: Parents) -> float:
    first = wait_until(lambda: _running(parents()), what="the app")
    time.sleep(HEALTHY_SECONDS)
    watched = parents()
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: _running(watched, besides=first), what="the new process", limit_seconds=15, poll=0)
    return time.monotonic() - began


def _running(parents: Sequence[int], besides: int = 0) -> int:
    """The pid of a child that runs the program; 0 when there is none."""
    for parent in parents:
        for pid in procfs.children(parent):
            if pid != besides and procfs.command_line(pid) == list(PROGRAM):
                return pid
    return 0
