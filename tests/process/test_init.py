"""`supervisor init`: statuses, signals, what the command inherits, what becomes of what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.process.namespaces import INIT, program, run_as_pid1, started

namespaces = pytest.mark.namespaces
both = pytest.mark.parametrize("pid1", [pytest.param(True, marks=namespaces), False], ids=["pid 1", "subreaper"])
FORWARDED = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD})


def run(*argv: str, env: dict[str, str] | None = None, limit_seconds: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*INIT, *argv], capture_output=True, text=True, timeout=limit_seconds, env=env)


def shell(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(*options, "--", "/bin/sh", "-c", script)


# Status


@pytest.mark.parametrize("which", ["codes", "remapped", "signals", "early"])
@namespaces
def test_init_passes_on_every_status(which: str) -> None:
    checked = run_as_pid1(program("statuses", which))
    assert checked.stdout == "done\n", checked.stderr


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 255", 255), ("kill -KILL $$", 137)])
@namespaces
def test_init_passes_on_the_status_as_pid_1(script: str, status: int) -> None:
    assert run_as_pid1([*INIT, "--", "/bin/sh", "-c", script]).returncode == status


def test_init_passes_on_the_status_where_child_signals_are_ignored() -> None:
    ignoring = subprocess.run(
        [*program("with_signals", "", int(signal.SIGCHLD)), *INIT, "/bin/sh", "-c", "exit 7"], timeout=20
    )
    assert ignoring.returncode == 7


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("no-such-program", 127, "'no-such-program': no such program on the PATH"),
        ("/no/such/file", 127, "no such file"),
        ("/etc/passwd", 126, "not executable"),
        ("/", 126, "not executable"),
        ("", 127, "no such program"),
    ],
)
def test_init_says_why_it_cannot_execute(command: str, status: int, words: str) -> None:
    failed = run("--", command)
    assert (failed.returncode, words in failed.stderr) == (status, True), failed.stderr


def test_init_names_a_missing_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    failed = run(str(script))
    assert failed.returncode == 127
    assert "interpreter" in failed.stderr


def test_init_runs_a_script_without_a_first_line(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$@"; exit 5\n')
    script.chmod(0o755)
    done = run("script", "a b", "c", env={"PATH": f"{tmp_path}:/bin"})
    assert (done.returncode, done.stdout) == (5, "a b c\n")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no command given"),
        (["--"], "no command given"),
        (["-e", "256", "true"], "from 0 to 255"),
        (["-e"], "needs a value"),
        (["-x", "true"], "unknown option '-x'"),
        (["--single-child=1", "true"], "unknown option"),
        (["--grace", "nan", "true"], "--grace takes seconds"),
        (["-r", "15", "true"], "SIGNAL:REPLACEMENT"),
        (["-p", "SIGNOPE", "true"], "no such signal"),
        (["-gc", "true"], "exclude each other"),
    ],
)
def test_init_rejects_a_wrong_command_line(argv: list[str], words: str) -> None:
    refused = run(*argv)
    assert refused.returncode == 64
    assert words in refused.stderr
    assert "usage: supervisor init" in refused.stderr


def test_init_takes_the_options_of_tini_and_dumb_init() -> None:
    done = shell("exit 143", "-sgvvw", "-e143", "-p", "SIGTERM", "--rewrite=15:int", "--verbose", "-r", "1:0")
    assert done.returncode == 0, done.stderr


def test_init_explains_itself() -> None:
    assert "--grace SECONDS" in run("-h").stdout
    assert run("--version").stdout.startswith("supervisor ")


# Signals


@both
def test_init_forwards_every_catchable_signal_in_order(pid1: bool) -> None:
    with started([*INIT, "--", *program("echo_signals", 64)], pid1=pid1) as init:
        assert init.line() == "ready"
        for number in FORWARDED:
            os.kill(init.pid, number)
            assert init.line() == str(int(number))
        assert init.wait() == 0


@both
def test_init_loses_no_queued_signal(pid1: bool) -> None:
    with started([*INIT, "--", *program("echo_signals", 64)], pid1=pid1) as init:
        assert init.line() == "ready"
        for _ in range(50):
            os.kill(init.pid, 40)
        os.kill(init.pid, 64)
        assert [init.line() for _ in range(51)] == ["40"] * 50 + ["64"]


def test_init_rewrites_and_drops_signals() -> None:
    with started([*INIT, "-r", "15:3", "--rewrite", "HUP:0", "--", *program("echo_signals", 64)], pid1=False) as init:
        assert init.line() == "ready"
        os.kill(init.pid, signal.SIGHUP)
        os.kill(init.pid, signal.SIGTERM)
        assert init.line() == str(int(signal.SIGQUIT))


@pytest.mark.parametrize("option", [[], ["-g"]], ids=["command alone", "group"])
def test_init_signals_the_command_or_its_group(option: list[str]) -> None:
    script = f"{' '.join(program('echo_signals', 10))} & wait; wait"
    with started([*INIT, *option, "--", "/bin/sh", "-c", f"trap 'echo shell' USR1; {script}"], pid1=False) as init:
        assert init.line() == "ready"
        os.kill(init.pid, signal.SIGUSR1)
        assert {init.line() for _ in range(2 if option else 1)} == ({"shell", "10"} if option else {"shell"})


def test_init_forwards_the_signal_asked_for_at_the_parents_end() -> None:
    command = [*INIT, "-p", "TERM", "--", *program("echo_signals", 15)]
    parent = (
        f"import os, subprocess, sys; p = subprocess.Popen({command!r}, stdout=1); sys.stdin.readline(); os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stdout.readline() == "ready\n"
        popen.stdin.close()
        assert popen.stdout.readline() == "15\n"


@pytest.mark.parametrize("step", range(12))
def test_init_ends_on_a_signal_at_any_moment_of_its_start(step: int) -> None:
    with subprocess.Popen([*INIT, "--", "/bin/sleep", "60"]) as popen:
        time.sleep(step * 0.004)  # the moment is what is tested
        popen.terminate()
        assert popen.wait(20) in (143, -signal.SIGTERM)


# What the command inherits


def _signal_sets(status: str) -> dict[str, set[int]]:
    fields = dict(line.split(":", 1) for line in status.splitlines())
    masks = {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")}
    return {name: {bit + 1 for bit in range(64) if mask >> bit & 1} for name, mask in masks.items()}


@both
def test_init_leaves_mask_and_ignored_signals_as_they_were(pid1: bool) -> None:
    blocked, ignored = {10, 36}, {1, 12, 17, 40}
    listed = (",".join(map(str, numbers)) for numbers in (blocked, ignored))
    argv = [*program("with_signals", *listed), *INIT, "--", "cat", "/proc/self/status"]
    done = run_as_pid1(argv) if pid1 else subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert _signal_sets(done.stdout) == {"SigBlk": blocked, "SigIgn": ignored, "SigCgt": set()}


def test_init_resets_the_signals_python_ignores() -> None:
    plain = [sys.executable, "-c", "import os; os.execvp('cat', ['cat', '/proc/self/status'])"]
    control = subprocess.run(plain, capture_output=True, text=True, timeout=20)
    assert {signal.SIGPIPE, signal.SIGXFSZ} <= _signal_sets(control.stdout)["SigIgn"]
    assert not {signal.SIGPIPE, signal.SIGXFSZ} & _signal_sets(run("cat", "/proc/self/status").stdout)["SigIgn"]


def test_init_passes_the_environment_on_unchanged() -> None:
    # In the C locale Python adds LC_CTYPE to its own environment.
    given = {"PATH": "/usr/bin:/bin", "A": "1"}
    control = subprocess.run(
        [sys.executable, "-c", "import os; os.execv('/usr/bin/env', ['env'])"],
        capture_output=True,
        text=True,
        env=given,
        timeout=20,
    )
    assert "LC_CTYPE" in control.stdout
    assert dict(line.split("=") for line in run("env", env=given).stdout.splitlines()) == given


def test_init_passes_descriptors_on() -> None:
    reading, writing = os.pipe()
    try:
        write = f"import os; os.write({writing}, b'through')"
        subprocess.run([*INIT, sys.executable, "-c", write], pass_fds=[writing], timeout=20, check=True)
        assert os.read(reading, 100) == b"through"
    finally:
        os.close(reading)
        os.close(writing)


def test_init_works_with_standard_streams_closed() -> None:
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *INIT, "-v", "/bin/sh", "-c", "exit 9"], timeout=20
    )
    assert closed.returncode == 9


@pytest.mark.parametrize(("option", "own"), [([], True), (["-c"], False)], ids=["plain", "single child"])
def test_init_gives_the_command_a_session_of_its_own(option: list[str], own: bool) -> None:
    script = "import os; print(os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid())"
    assert run(*option, sys.executable, "-c", script).stdout == f"{own} {own}\n"


# Orphans


def _parent_of_an_orphan(argv: list[str]) -> tuple[int, int]:
    """(pid of the process under test, parent of the orphan that its command left)."""
    code = "import os, time\nr, w = os.pipe()\nif os.fork():\n    os.close(w); os.read(r, 1)\nelse:\n" + (
        "    first = os.getpid()\n"
        "    if os.fork() == 0:\n"
        "        while os.getppid() == first: time.sleep(0.001)\n"
        "        print(os.getppid(), flush=True)\n"
    )
    with subprocess.Popen([*argv, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdout is not None
        return popen.pid, int(popen.stdout.readline())


def test_init_adopts_orphans_although_not_pid_1() -> None:
    pid, parent = _parent_of_an_orphan(INIT)
    assert parent == pid


def test_orphans_go_elsewhere_without_init() -> None:
    # `timeout` stands in: it starts the command as a child and waits, but adopts nobody.
    pid, parent = _parent_of_an_orphan(["timeout", "20"])
    assert parent != pid


@namespaces
@pytest.mark.parametrize("option", [[], ["-w"]])
def test_init_reaps_orphans_as_pid_1(option: list[str]) -> None:
    # The command counts dead processes after all its orphans are gone; without a reaper (test_pid1) they all stay.
    done = run_as_pid1([*INIT, *option, "--", *program("orphans", 100, "count")])
    assert (done.returncode, done.stdout) == (0, "left\n0 unreaped\n")
    assert done.stderr.count("reaped the orphan") == (100 if option else 0)


# What the command leaves behind

LEAVES_POLITE = """
import os, signal, sys, time
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: (print("ended in order", flush=True), os._exit(0)))
    os.write(writing, b"x")
    while True: signal.pause()
os.read(reading, 1)
sys.exit(4)
"""
LEAVES_STUBBORN = LEAVES_POLITE.replace(
    'lambda *_: (print("ended in order", flush=True), os._exit(0))', "signal.SIG_IGN"
)
LEAVES_STOPPED = LEAVES_POLITE.replace(
    'os.write(writing, b"x")', 'os.write(writing, b"x"); os.kill(os.getpid(), signal.SIGSTOP)'
)
# The first daemon dies of TERM and leaves the second, which nobody but the init can tell then.
LEAVES_CHAIN = LEAVES_POLITE.replace("setsid()\n", "setsid()\n    if os.fork(): signal.pause()\n    os.setsid()\n")


def _ended(argv: list[str], *, pid1: bool) -> subprocess.CompletedProcess[str]:
    if pid1:
        return run_as_pid1(argv, limit_seconds=20)
    return subprocess.run(argv, capture_output=True, text=True, timeout=20)


@namespaces
def test_orphans_stay_unreaped_beside_another_pid_1() -> None:
    code = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    done = run_as_pid1([sys.executable, "-c", code, *program("orphans", 100, "count")])
    assert done.stdout == "left\n100 unreaped\n"


@both
@pytest.mark.parametrize("leaves", [LEAVES_POLITE, LEAVES_STOPPED, LEAVES_CHAIN], ids=["one", "stopped", "chain"])
def test_init_stops_what_is_left_and_leaves_at_once(pid1: bool, leaves: str) -> None:
    # With the whole grace used up the run would meet its own limit.
    done = _ended([*INIT, "--grace", "600", "--", sys.executable, "-c", leaves], pid1=pid1)
    assert (done.returncode, done.stdout) == (4, "ended in order\n")


@both
def test_init_kills_what_does_not_stop(pid1: bool) -> None:
    # The pipe to us is held by what is left, so this returns only when that is gone.
    done = _ended([*INIT, "--grace", "0.2", "--", sys.executable, "-c", LEAVES_STUBBORN], pid1=pid1)
    assert (done.returncode, done.stderr) == (4, "")


@both
def test_init_forwards_signals_to_what_is_left(pid1: bool) -> None:
    code = LEAVES_POLITE.replace("os._exit(0)", "signal.signal(10, lambda *_: os._exit(0))")
    with started([*INIT, "--grace", "600", "--", sys.executable, "-c", code], pid1=pid1) as init:
        assert init.line() == "ended in order"
        os.kill(init.pid, signal.SIGUSR1)
        assert init.wait() == 4
