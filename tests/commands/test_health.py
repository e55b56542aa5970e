from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from supervisor.commands import health
from tests.triggers.control_rig import LIMIT_SECONDS, Rig, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "control.sock")


async def run(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    command = [sys.executable, "-m", "supervisor", "health", *argv]
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ)
    )


@pytest.mark.parametrize(("state", "code"), [("running", 0), ("degraded", 0), ("starting", 1), ("failed", 1)])
async def test_health_is_one_line_and_an_exit_code_docker_knows(rig: Rig, state: str, code: int) -> None:
    rig.status |= {"state": state, "reason": "because"}
    async with serving(rig):
        done = await run(SUPERVISOR_SOCKET=str(rig.path))
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == f'{{"state":"{state}","reason":"because"}}\n'


async def test_health_takes_the_socket_as_an_argument(rig: Rig) -> None:
    async with serving(rig):
        done = [await run("--socket", str(rig.path)), await run(f"--socket={rig.path}")]
    assert [one.returncode for one in done] == [0, 0]


async def test_health_without_a_supervisor_says_where_it_looked() -> None:
    done = await run(XDG_RUNTIME_DIR="/nowhere")
    assert done.returncode == 1
    assert "looked for its socket at /run/supervisor/control.sock, /nowhere/supervisor/control.sock" in done.stdout


async def test_health_of_a_named_socket_nobody_answers_on_names_it(rig: Rig) -> None:
    done = await run(SUPERVISOR_SOCKET=str(rig.path))
    assert done.returncode == 1
    assert done.stdout == f"cannot ask the supervisor on {str(rig.path)!r}: No such file or directory\n"


@pytest.mark.parametrize("argv", [["--bogus"], ["--socket"], ["now"]])
async def test_health_usage_error_exits_with_64(argv: list[str]) -> None:
    done = await run(*argv)
    assert (done.returncode, done.stdout) == (64, "")
    assert "usage: supervisor health" in done.stderr


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[Path]:
    """A socket that accepts and never answers."""
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def test_supervisor_that_does_not_answer_in_time_is_not_healthy(
    mute: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "LIMIT_SECONDS", 0.05)
    started = time.monotonic()
    assert health.main(["--socket", str(mute)]) == 1
    assert time.monotonic() - started < LIMIT_SECONDS
    assert capsys.readouterr().out == f"cannot ask the supervisor on {str(mute)!r}: timed out\n"


def test_health_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import supervisor.commands.health\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r})\n{code}"],
                         capture_output=True, text=True, check=True)  # fmt: skip
    heavy = {"asyncio", "anyio", "pydantic", "typer", "rich", "json", "http", "logging", "urllib", "typing"}
    assert heavy & set(run.stdout.split()) == set()


_ROOT = Path(__file__).parents[2]
