"""The daemon as PID 1 of a real PID namespace: alone without root, with the whole stack as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.apps import SERVER, write_app
from tests.e2e.conftest import Make
from tests.e2e.harness import Supervisor, request, wait_until

USER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
ROOT = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

pytestmark = pytest.mark.namespaces


def namespaces(command: list[str]) -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True).returncode == 0


def orphan_maker(count: int) -> str:
    """Python that leaves `count` orphans which exit, then serves."""
    return f"""
import os, sys
for _ in range({count}):
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
print("orphans made", flush=True)
{SERVER}
"""


@pytest.fixture
def pid1(make: Make, folder: Path) -> Supervisor:
    if not namespaces(USER):
        pytest.skip("no user namespaces here (unshare --user fails)")
    app = write_app(folder / "app")
    made = make("--no-services", "--app-dir", str(app), "--", "python", "-S", "app.py", prefix=USER)
    made.environ |= {"SUPERVISOR_APP_RESTART": "always"}
    return made


def zombies_below(pid: int) -> int:
    """Zombies among the processes of `pid`'s PID namespace, from outside."""
    space = os.readlink(f"/proc/{pid}/ns/pid")
    count = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                os.readlink(path / "ns/pid") == space
                and (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            ):
                count += 1
        except OSError:
            continue
    return count


def test_as_pid_1_it_serves_reloads_and_stops_with_0(pid1: Supervisor) -> None:
    pid1.boot()
    started = pid1.events("supervisor.started")[0]
    assert started["pid"] == 1
    assert started["reaping"] == "pid 1"
    assert request(pid1.port, "/")[0] == 200
    pid1.send(signal.SIGHUP)
    assert pid1.wait_event("reload.finished")["result"] == "ok"
    assert request(pid1.port, "/")[1].startswith("generation 2")
    assert pid1.stop(limit=20) == 0


def test_orphans_are_reaped_and_never_taken_for_the_app(pid1: Supervisor, folder: Path, soak: bool) -> None:
    count = 10_000 if soak else 1000
    (folder / "app" / "app.py").write_text(orphan_maker(count))
    pid1.boot()
    own = pid1.own_pid
    wait_until("no zombie is left", lambda: zombies_below(own) == 0)
    assert pid1.status()["orphans_reaped"] >= count
    assert len(pid1.events("app.generation", state="starting")) == 1
    assert pid1.stop(limit=20) == 0


def test_term_in_the_first_moments_is_not_lost(pid1: Supervisor) -> None:
    """PID 1 has no default actions: what comes before the handlers is dropped, so they must come first of all."""
    lost = 0
    for step in range(6):
        pid1.start()
        own = pid1.own_pid
        wait_until("TERM is handled", partial(handles, own, signal.SIGTERM), limit=10)
        time.sleep(0.03 * step)  # the moment is the input of this test
        lost += pid1.stop(limit=20) != 0
    assert lost == 0


def handles(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & (1 << (number - 1)))


def test_a_deaf_app_is_killed_within_the_10_s_that_docker_gives(pid1: Supervisor, folder: Path) -> None:
    (folder / "app" / "app.py").write_text("import signal\nsignal.signal(15, signal.SIG_IGN)\n" + SERVER)
    pid1.environ |= {"SUPERVISOR_APP_STOP_SECONDS": "60"}
    pid1.boot()
    started = time.monotonic()
    assert pid1.stop(limit=10) == 0
    # The budget of PID 1 was used: it waited for the app, not for ever, and not less than it could.
    assert time.monotonic() - started > 6


def test_the_exit_code_tells_the_truth(pid1: Supervisor, folder: Path) -> None:
    (folder / "app" / "crash").write_text("9")
    pid1.environ |= {"SUPERVISOR_APP_RESTART": "no"}
    pid1.start()
    assert pid1.wait(20) == 10


def test_a_daemonised_grandchild_does_not_outlive_the_stop(pid1: Supervisor, folder: Path) -> None:
    (folder / "app" / "app.py").write_text(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        print('daemon is', os.getpid(), flush=True)\n        time.sleep(600)\n    os._exit(0)\n" + SERVER
    )
    pid1.boot()
    wait_until("the daemon runs", lambda: "daemon is" in pid1.output("app"))
    pid1.send(signal.SIGHUP)
    pid1.wait_event("reload.finished")
    own = pid1.own_pid
    # Those of the first generation must go, those of the second are there: more would be a leak.
    space = os.readlink(f"/proc/{own}/ns/pid")

    def apps() -> list[bytes]:
        members = [p for p in Path("/proc").glob("[0-9]*") if in_space(p, space)]
        lines = [command_line(p) for p in members]
        return [line for line in lines if line.endswith(b"-S\0app.py\0") and b"supervisor" not in line]

    wait_until("the first generation's processes are gone", lambda: len(apps()) == 2)
    assert pid1.stop(limit=20) == 0


def command_line(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


def in_space(path: Path, space: str) -> bool:
    try:
        state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        return os.readlink(path / "ns/pid") == space and state not in "ZX"
    except OSError:
        return False


@pytest.mark.servers
def test_the_whole_stack_comes_up_and_stops_as_pid_1(notes: Supervisor) -> None:
    if os.geteuid() != 0 or not namespaces(ROOT):
        pytest.skip("the whole stack as PID 1 needs real root: one mapped uid cannot run Postgres")
    notes.prefix = ROOT
    notes.boot()
    notes.add_note("from pid 1")
    started = time.monotonic()
    assert notes.stop(limit=10) == 0
    assert time.monotonic() - started < 9.5
    notes.boot()
    assert notes.notes() == ["from pid 1"]
    assert "was shut down at" in notes.output("postgres")
    notes.kill()
    notes.boot()
    assert notes.notes() == ["from pid 1"]
    assert notes.stop(limit=10) == 0
