"""`supervisor env detect` as a program: its text, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.fake_engine import answering

LIMIT_SECONDS = 30


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="env-", dir="/tmp") as name:
        yield Path(name)


def run(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SUPERVISOR_STATE_DIR": f"{folder}/state",
        "SUPERVISOR_RUNTIME_DIR": f"{folder}/run",
        **variables,
    }
    command = [sys.executable, "-m", "supervisor", "env", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ)


def test_env_detect_prints_mode_reason_and_evidence(folder: Path) -> None:
    with answering(f"{folder}/e.sock"):
        done = run(folder, "detect", DOCKER_HOST=f"unix://{folder}/e.sock")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "mode      remote"
    assert lines[1].startswith("reason    ")
    assert f"engine    unix://{folder}/e.sock" in lines
    assert any(line.startswith("evidence  ping: ok") for line in lines)


def test_env_detect_as_json_has_the_decision_its_traits_and_the_facts(folder: Path) -> None:
    with answering(f"{folder}/e.sock"):
        done = run(folder, "detect", "--json", DOCKER_HOST=f"unix://{folder}/e.sock")
    found = json.loads(done.stdout)
    assert (found["mode"], found["row"]) == ("remote", 31)
    assert found["traits"]["ports"] == "there"
    assert found["facts"]["engine"]["version"] == "20.10.24"


def test_env_detect_changes_nothing(folder: Path) -> None:
    done = run(folder, "detect", SUPERVISOR_MODE="embedded")
    assert done.stdout.splitlines()[0] == "mode      embedded"
    assert os.listdir(folder) == []


def test_env_detect_knows_the_install_by_its_uuid(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state/install.json").write_text('{"uuid": "u-1"}')
    done = run(folder, "detect", "--json", SUPERVISOR_MODE="none")
    assert json.loads(done.stdout)["facts"]["us"]["instance"] == "u-1"


@pytest.mark.parametrize(
    ("host", "code", "exit_code"), [("npipe:////./pipe/x", "E02", 78), ("unix:///nonexistent/docker.sock", "E03", 69)]
)
def test_env_detect_ends_with_the_code_of_the_error(folder: Path, host: str, code: str, exit_code: int) -> None:
    plain = run(folder, "detect", DOCKER_HOST=host)
    assert plain.returncode == exit_code
    assert plain.stderr.startswith(f"supervisor: {code}: cannot ")
    assert ("A run waits up to 60 s" in plain.stderr) is (code == "E03")
    found = json.loads(run(folder, "detect", "--json", DOCKER_HOST=host).stdout)
    assert (found["error"]["code"], found["error"]["exit_code"]) == (code, exit_code)


def test_env_detect_with_bad_settings_says_so(folder: Path) -> None:
    done = run(folder, "detect", SUPERVISOR_MODE="swarm")
    assert done.returncode == 78
    assert "SUPERVISOR_MODE" in done.stderr


@pytest.mark.parametrize("argv", [[], ["detect", "--more"], ["find"]])
def test_env_with_a_usage_error_exits_with_64(folder: Path, argv: list[str]) -> None:
    done = run(folder, *argv)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("usage: supervisor env detect")


def test_env_help_is_no_error(folder: Path) -> None:
    done = run(folder, "detect", "--help")
    assert (done.returncode, done.stderr) == (0, "")
