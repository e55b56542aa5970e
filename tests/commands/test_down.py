"""`supervisor down` as a program: what it refuses, lists, removes and says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from supervisor.commands import down
from supervisor.core.errors import RejectedError
from supervisor.core.mode import Mode, Owner
from supervisor.engine.decision import Decision
from supervisor.engine.facts import EngineAddress, Scheme
from supervisor.state import Paths
from tests.engine_rig.engine import Share
from tests.services.ownership.removal_rig import holder, leased, made_stack

LIMIT_SECONDS = 90
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="down-", dir="/tmp") as name:
        yield Path(name)


def run(folder: Path, *argv: str, **variables: str) -> Done:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SUPERVISOR_STATE_DIR": f"{folder}/state",
        "SUPERVISOR_RUNTIME_DIR": f"{folder}/run",
        **variables,
    }
    command = [sys.executable, "-m", "supervisor", "down", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ)


def on_engine(docker: Share, folder: Path, *argv: str) -> Done:
    return run(folder, *argv, DOCKER_HOST=docker.engine.host, SUPERVISOR_STACK=docker.prefix)


def paths(folder: Path) -> Paths:
    return Paths(folder / "state", folder / "run", folder / "control.sock")


@pytest.mark.parametrize("argv", [["--confirm"], ["everything"], ["--volumes", "--volumes"], ["--volumes", "--yes"]])
def test_a_usage_error_exits_with_64(folder: Path, argv: list[str]) -> None:
    done = run(folder, *argv)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("usage: supervisor down [--volumes --confirm]")


def test_help_is_no_error(folder: Path) -> None:
    done = run(folder, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_an_engine_the_place_of_the_data_is_told(folder: Path) -> None:
    done = run(folder, SUPERVISOR_MODE="embedded")
    assert done.returncode == 1
    assert done.stderr.startswith("supervisor: cannot remove the stack from an engine: mode embedded uses none")
    assert f"their data is in '{folder}/state'" in done.stderr


def test_an_engine_that_does_not_answer_ends_with_its_code_at_once(folder: Path) -> None:
    done = run(folder, DOCKER_HOST=f"unix://{folder}/none.sock")
    assert done.returncode == 69
    assert done.stderr.startswith("supervisor: E03: cannot ")


def test_in_dind_the_volume_of_the_container_is_told(folder: Path) -> None:
    address = EngineAddress(Scheme.UNIX, path="/var/run/docker.sock")
    decision = Decision(mode=Mode.DIND, row=12, reason="r", owner=Owner.OWN, endpoint=address, start_engine=True)
    with pytest.raises(RejectedError, match="volumes that were mounted at /var/lib/docker"):
        down.usable(decision, paths(folder))
    serving = Decision(mode=Mode.SOCKET, row=6, reason="r", endpoint=address)
    assert down.usable(serving, paths(folder)) is serving


def test_beside_a_supervisor_that_answers_nothing_is_removed(folder: Path) -> None:
    where = paths(folder)
    down.refuse_beside_a_supervisor(where)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where.socket))
        down.refuse_beside_a_supervisor(where)  # a dead one's socket stands in nobody's way
        listener.listen()
        with pytest.raises(RejectedError, match=r"its supervisor runs and answers on .*; stop it first"):
            down.refuse_beside_a_supervisor(where)


@pytest.mark.engine
@pytest.mark.anyio
async def test_beside_a_live_lease_nothing_is_removed(docker: Share, folder: Path) -> None:
    box = docker.start(docker.engine.image("base"), "sleep", "600", word="app")
    volume = docker.volume()
    async with leased(docker, holder(docker.engine.output("inspect", "--format", "{{.Id}}", box))):
        done = await anyio.to_thread.run_sync(on_engine, docker, folder)
    assert done.returncode == 1
    assert f"cannot remove stack '{docker.prefix}': container '{box}'" in done.stderr
    assert volume in docker.engine.output("volume", "ls")


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_stack_is_listed_left_and_removed_as_asked(docker: Share, folder: Path) -> None:
    async with made_stack(docker):
        await anyio.to_thread.run_sync(play, docker, folder)


def play(docker: Share, folder: Path) -> None:
    stack = docker.prefix
    service, volume = f"service {stack}-postgres", f"volume {stack}-postgres"

    listed = on_engine(docker, folder, "--volumes")
    assert listed.returncode == 64, listed.stderr
    assert f"would remove {service}\n" in listed.stdout
    assert f"would remove {volume}\n" in listed.stdout
    assert "give --confirm too" in listed.stderr

    other = folder / "other"
    (other / "state").mkdir(parents=True)
    (other / "state/install.json").write_text(json.dumps({"uuid": "them"}))
    left = on_engine(docker, other)
    assert left.returncode == 0, left.stderr
    assert f"left {service}: it belongs to install us\n" in left.stdout
    assert left.stdout.startswith("there is nothing left to remove\n")
    assert "removed " not in left.stdout

    back = folder / "back"
    (back / "state").mkdir(parents=True)
    (back / "state/install.json").write_text(json.dumps({"uuid": "new", "facts": {"owner": "us"}}))
    assert f"would remove {service}\n" in on_engine(docker, back, "--volumes").stdout, "it was taken back"

    gone = in_container(docker)
    assert gone.returncode == 0, gone.stderr
    introduction, *removed = gone.stdout.splitlines()
    assert f"going by the label of stack '{stack}' alone, made by install us" in introduction
    assert removed[0] == f"removed {service}"
    assert removed[-1] == f"kept {volume}: --volumes --confirm removes it with its data"
    assert len(removed) == 6

    again = on_engine(docker, folder)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[0] == "there is nothing left to remove"
    assert f"{stack}-postgres" in docker.engine.output("volume", "ls")

    last = on_engine(docker, folder, "--volumes", "--confirm")
    assert (last.returncode, last.stdout.splitlines()[-1]) == (0, f"removed {volume}")
    assert on_engine(docker, folder, "--volumes").stdout == "there is nothing left to remove\n"


def in_container(docker: Share) -> Done:
    """The documented line."""
    socket_path = docker.engine.host.removeprefix("unix://")
    return docker.engine.run(
        *("run", "--rm", "--name", docker.name("down"), "--label", docker.label),
        *("--volume", f"{socket_path}:/var/run/docker.sock", "--env", f"SUPERVISOR_STACK={docker.prefix}"),
        *(docker.engine.image("supervisor"), "supervisor", "down"),
        check=False,
        limit_seconds=LIMIT_SECONDS,
    )
