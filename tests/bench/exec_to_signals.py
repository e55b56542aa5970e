"""From exec to the moment signals are handled."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import procfs
from tests.bench.figures import Row, Section
from tests.bench.others import s6_argv, supervisord_argv
from tests.bench.rig import BIN, IMPORTS, PYTHON, SUPERVISOR, Plan, environment, folder, missing, sweep

TARGET_MS = 30.0
LIMIT_SECONDS = 5.0
WANTED = (int(signal.SIGTERM), int(signal.SIGHUP))
METHOD = (
    "A forked child takes the time and execs; we read its /proc status without a pause until TERM and HUP are "
    "caught, or blocked for a sigwait, as inits do. `python itself` is an interpreter that only sets two "
    "handlers: the part that nobody's own code can save. The processes are killed at once, so nothing but their "
    "first moments is measured."
)
_FLOOR = "import signal, time\nfor n in (1, 15):\n    signal.signal(n, lambda *_: None)\ntime.sleep(9)"


def run(plan: Plan) -> Section:
    """Ours in its four forms, then the others; in turns, so that all see the same machine."""
    section = Section(name="signals", title="exec to signals handled", method=METHOD)
    with folder() as home:
        commands = _commands(home)
        values: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(plan.runs(21, 5)):
            plan.say(f"round {number + 1}")
            for name, argv in commands.items():
                values[name].append(measure(argv, home) * 1000)
    ours = next(iter(values.values()))
    for name, found in values.items():
        is_ours = name.startswith("supervisor ") or " -m supervisor " in name
        target = TARGET_MS if is_ours else None
        section.rows.append(Row(what=name, values=found, unit="ms", target=target, ours=None if is_ours else ours))
    return section


def _commands(home: Path) -> dict[str, list[str]]:
    run, init = ["run", "--no-services", "--", "sleep", "9"], ["init", "--", "sleep", "9"]
    script = [str(BIN / "supervisor")]
    commands = {
        "python -m supervisor run": [*SUPERVISOR, *run],
        "supervisor run": [*script, *run],
        "python -m supervisor init": [*SUPERVISOR, *init],
        "supervisor init": [*script, *init],
        "python itself": [PYTHON, "-c", _FLOOR],
    }
    if not missing("tini"):
        commands["tini"] = ["tini", "-s", "--", "sleep", "9"]
    if not missing("dumb-init"):
        commands["dumb-init"] = ["dumb-init", "--", "sleep", "9"]
    if not missing("supervisord"):
        commands["supervisord"] = supervisord_argv(home / "supervisord", {"app": ["sleep", "9"]})
    if not missing("s6-svscan"):
        commands["s6-svscan"] = s6_argv(home / "s6", {"app": ["sleep", "9"]})
    return commands


def measure(argv: Sequence[str], home: Path) -> float:
    """Seconds from exec to signals handled; the process is killed then."""
    state = {"SUPERVISOR_STATE_DIR": str(home / "state"), "SUPERVISOR_RUNTIME_DIR": str(home / "run")}
    env = environment({**state, **(IMPORTS if argv[0].startswith(str(BIN)) else {})})
    program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.chdir(home)
            os.write(write_end, repr(time.monotonic()).encode())
            os.execve(program, list(argv), env)
        finally:
            os._exit(127)
    try:
        os.close(write_end)
        began = float(os.read(read_end, 64))
        while not procfs.takes_signals(pid, WANTED):
            if time.monotonic() > began + LIMIT_SECONDS:
                raise TimeoutError(f"{argv}: TERM and HUP not handled within {LIMIT_SECONDS:g} s")
        return time.monotonic() - began
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)
        sweep()  # with it what it started so far, which came to us
