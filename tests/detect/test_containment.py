"""What an app may not do while it is listened to; and that it could, were it not held apart."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.detect import attempt
from supervisor.process.child import Command
from supervisor.process.jail import PARTS, Jail, jailed
from tests.detect.conftest import App, found

pytestmark = pytest.mark.anyio

# Tries all of it, and tells what went through by the names that it reads.
HARMFUL = """
import os, pathlib, socket, sys
def tell(what, done):
    try: done()
    except OSError: return
    os.getenv("DID_" + what)
def connect(): socket.create_connection(("127.0.0.1", {port}), timeout=2).close()
def unix():
    with socket.socket(socket.AF_UNIX) as end: end.connect({unix!r})
tell("CONNECT", connect)
tell("UNIX", unix)
tell("WRITE_APP", lambda: pathlib.Path("written").touch())
tell("WRITE_OUTSIDE", lambda: pathlib.Path({outside!r}).touch())
tell("WRITE_TMP", lambda: pathlib.Path("/tmp/detect-hostile-{port}").touch())
tell("SIGNAL", lambda: os.kill({pid}, 0))
tell("HOME", lambda: pathlib.Path.home().joinpath("x").touch())
tell("TMPDIR", lambda: pathlib.Path(os.environ["TMPDIR"], "x").touch())
"""


@pytest.fixture
def neighbour() -> Iterator[tuple[int, str, int]]:
    """A listener on a port, one on a Unix socket, and a process: all of the machine, none of the app."""
    with (
        tempfile.TemporaryDirectory(prefix="near-", dir="/tmp") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(f"{folder}/socket")
        unix.listen()
        process = subprocess.Popen(["sleep", "300"])
        try:
            yield listener.getsockname()[1], f"{folder}/socket", process.pid
        finally:
            process.kill()
            process.wait()


def hostile(app: App, neighbour: tuple[int, str, int], outside: Path) -> Path:
    port, unix, pid = neighbour
    app.write("main.py", HARMFUL.format(port=port, unix=unix, pid=pid, outside=str(outside)))
    return Path(f"/tmp/detect-hostile-{port}")


def test_namespaces_are_to_be_had_here() -> None:
    done = subprocess.run(["unshare", "-Urmnpif", "true"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "the tests of containment need user namespaces or root"


async def test_a_contained_app_reaches_nobody_and_changes_nothing(app: App, neighbour: tuple[int, str, int]) -> None:
    with tempfile.TemporaryDirectory(prefix="outside-", dir=Path(__file__).parent) as folder:
        trace = hostile(app, neighbour, Path(folder) / "x")
        detected = await app.detect("main.py")
        assert os.listdir(folder) == []
    assert found(detected)[1] == {"DID_WRITE_TMP", "DID_HOME", "DID_TMPDIR"}  # its own, gone with it
    assert not trace.exists()
    assert sorted(os.listdir(app.folder)) == ["main.py"]
    assert (detected.contained.why, all(map(detected.contained.holds, PARTS))) == ({}, True)


async def test_the_same_app_not_contained_does_it_all(
    app: App, neighbour: tuple[int, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_jailed(command: Command, jail: Jail, report: int) -> Command:
        return command

    monkeypatch.setattr(attempt, "jailed", not_jailed)
    with tempfile.TemporaryDirectory(prefix="outside-", dir="/tmp") as folder:
        trace = hostile(app, neighbour, Path(folder) / "x")
        detected = await app.detect("main.py")
        assert os.listdir(folder) == ["x"]
    trace.unlink()
    whats = ("CONNECT", "UNIX", "WRITE_APP", "WRITE_OUTSIDE", "WRITE_TMP", "SIGNAL", "HOME", "TMPDIR")
    assert found(detected)[1] == {f"DID_{what}" for what in whats}


async def test_what_the_system_refuses_is_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a seccomp filter of containers, which refuses `unshare`: the same program, with the call failing."""
    program = app.write(
        "refusing.py",
        "import sys\nsys.path.insert(0, sys.argv[1])\nimport jail_program\n"
        "def refuse(name, *arguments):\n    raise PermissionError(1, f'{name}: Operation not permitted')\n"
        "jail_program._call = refuse\nsys.exit(jail_program.main(sys.argv[2:]))\n",
    )
    genuine = jailed

    def refused(command: Command, jail: Jail, report: int) -> Command:
        made = genuine(command, jail, report)
        folder = str(Path(made.argv[3]).parent)
        return Command(
            made.name,
            (*made.argv[:3], str(program), folder, *made.argv[4:]),
            made.env,
            made.cwd,
            pass_fds=made.pass_fds,
        )

    monkeypatch.setattr(attempt, "jailed", refused)
    app.write("main.py", "import os\nos.environ['A']\n")
    app.write(".env", "X=1\n")
    detected = await app.detect("main.py")
    assert found(detected) == ({"A"}, set())
    assert set(detected.contained.why) == set(PARTS)
    assert detected.contained.why["network"] == "unshare: Operation not permitted"
    assert detected.hidden == ()


async def test_no_variable_of_the_caller_is_handed_on(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-caller")
    app.write("main.js", "console.log(JSON.stringify(process.env)); process.env.A; process.exit(process.env.B ? 0 : 3)")
    detected = await app.detect("main.js", B="given")
    assert found(detected) == (set(), {"A", "B"})
    app.write("main.js", "for (const name in process.env) if (name.startsWith('AWS')) throw new Error(name)")
    assert (await app.detect("main.js")).complete


async def test_an_app_may_not_gain_the_rights_back(app: App) -> None:
    app.write(
        "main.py",
        "import os\ntext = open('/proc/self/status').read()\n"
        "for line in text.splitlines():\n"
        "    if line.startswith('Cap') and int(line.split()[1], 16): os.getenv('HAS_' + line[:6])\n"
        "try: open('/proc/sys/kernel/core_pattern', 'a')\nexcept OSError: pass\nelse: os.getenv('PROC_SYS')\n"
        "if os.system('unshare -Urm mount -o remount,rw / 2>/dev/null') == 0: os.getenv('REMOUNTED')\n"
        "if 'NoNewPrivs:\\t1' not in text: os.getenv('NEW_PRIVILEGES')\n",
    )
    assert found(await app.detect("main.py")) == (set(), set())


async def test_all_that_an_app_started_is_gone_with_it(app: App) -> None:
    mark = f"300.{os.getpid()}"
    app.write(
        "main.sh", f"#!/bin/sh\nsetsid sleep {mark} &\nexec python3 -c 'import os; os.getenv(\"A\")'\n", mode=0o755
    )
    assert found(await app.detect("main.sh"))[1] == {"A"}
    running = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, timeout=20, check=True)
    assert f"sleep {mark}" not in running.stdout.splitlines()


def test_the_program_needs_nothing_of_ours(tmp_path: Path) -> None:
    """It is run with no module path of the caller's."""
    source = Path(attempt.__file__).parents[1] / "process/jail_program.py"
    copy = tmp_path / "jail.py"
    copy.write_bytes(source.read_bytes())
    read, write = os.pipe()
    spec = {"scratch": str(tmp_path), "keep": [], "hidden": [], "masked": [], "report": write, "cwd": "/"}
    limits = {"cpu_seconds": 5, "memory_bytes": 2**32, "file_bytes": 2**20, "descriptors": 64, "processes": 64}
    argv = [sys.executable, "-I", "-S", str(copy), json.dumps({**spec, **limits}), "sh", "-c", "exit 3"]
    done = subprocess.run(argv, pass_fds=(write,), timeout=20, check=False)
    os.close(write)
    with os.fdopen(read) as told:
        assert (done.returncode, set(json.load(told))) == (3, set(PARTS))
