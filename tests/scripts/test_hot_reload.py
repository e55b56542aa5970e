"""`scripts/hot-reload`: each of its ways into a real container, and what it says where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine_rig.engine import Share

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 60
_OURS = ("SUPERVISOR_SOCKET", "SUPERVISOR_RUNTIME_DIR", "SUPERVISOR_STATE_DIR")
# What a filter in front of an engine does to the calls that match.
_FILTER = """#!/bin/sh
case "$*" in
  {refused}) echo "Error response from daemon: forbidden" >&2; exit 1 ;;
esac
exec {docker} "$@"
"""


def hot_reload(environ: dict[str, str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in environ.items() if name not in _OURS} | variables
    return subprocess.run(
        [REPOSITORY / "scripts" / "hot-reload", *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < until, f"not within {LIMIT_SECONDS} s: {what}"
        time.sleep(0.1)


@pytest.fixture(params=["json", "text"])
def log_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def supervised(docker: Share) -> Callable[..., str]:
    """To start a container whose migrations fail while /tmp/bad is there; it gives the name once the app serves."""

    def start(log_format: str = "json") -> str:
        name = docker.start(
            docker.engine.image("supervisor"),
            *("--no-services", "--", "sleep", "3600"),
            options=(
                *("--env", "SUPERVISOR_APP_HEALTH=none", "--env", f"SUPERVISOR_LOG_FORMAT={log_format}"),
                *("--env", "MIGRATE_COMMAND=/usr/bin/test ! -e /tmp/bad", "--env", "SUPERVISOR_BAKE_SECONDS=0.1"),
            ),
        )
        wait_until(lambda: "boot finished" in docker.log(name), "the boot is finished")
        return name

    return start


def without_program(docker: Share, container: str) -> None:
    """As in an image that has it elsewhere."""
    docker.engine.run("exec", container, "rm", "/usr/local/bin/supervisor", "/opt/supervisor/bin/supervisor")


def refusing(docker: Share, folder: Path, *patterns: str) -> dict[str, str]:
    """The engine's environment with a `docker` in front that refuses the calls that match."""
    real = shutil.which("docker", path=docker.engine.environ["PATH"])
    wrapper = folder / "docker"
    wrapper.write_text(
        _FILTER.format(refused="|".join(pattern.replace(" ", r"\ ") for pattern in patterns), docker=real)
    )
    wrapper.chmod(0o755)
    return {**docker.engine.environ, "PATH": f"{folder}:{docker.engine.environ['PATH']}"}


# The ways.


@pytest.mark.engine
def test_a_container_is_asked_by_the_program_in_it(docker: Share, supervised: Callable[..., str]) -> None:
    name = supervised()
    done = hot_reload(docker.engine.environ, name)
    assert done.returncode == 0, done.stderr
    assert "reload: ok" in done.stdout
    assert f"asked '{name}' by `supervisor reload`, which ended with exit code 0" in done.stderr
    docker.engine.run("exec", name, "touch", "/tmp/bad")
    done = hot_reload(docker.engine.environ, name)
    assert done.returncode == 1
    assert "which ended with exit code 1" in done.stderr


@pytest.mark.engine
def test_where_the_program_is_missing_the_signal_is_sent_and_its_outcome_told(
    docker: Share, supervised: Callable[..., str], log_format: str
) -> None:
    name = supervised(log_format)
    without_program(docker, name)
    done = hot_reload(docker.engine.environ, name)
    assert done.returncode == 0, done.stderr
    assert re.search("`supervisor reload` cannot be run in it: .*(not found|no such)", done.stderr)
    assert f"asked '{name}' by the signal HUP: ok in 0." in done.stderr
    docker.engine.run("exec", name, "touch", "/tmp/bad")
    done = hot_reload(docker.engine.environ, name)
    assert done.returncode == 1
    assert f"asked '{name}' by the signal HUP: rejected in 0." in done.stderr
    assert "migration" in done.stderr  # the reason


@pytest.mark.engine
@pytest.mark.parametrize("touch_works", [True, False])
def test_where_neither_can_be_done_the_trigger_file_is_touched(
    docker: Share, supervised: Callable[..., str], tmp_path: Path, touch_works: bool
) -> None:
    name = supervised()
    environ = refusing(docker, tmp_path, "kill *", "exec * supervisor *" if touch_works else "exec *")
    done = hot_reload(environ, name)
    assert done.returncode == 0, done.stderr
    assert "the signal HUP cannot be sent: Error response from daemon: forbidden" in done.stderr
    assert f"asked '{name}' by its trigger file: ok in 0." in done.stderr


# What cannot be done.


@pytest.mark.engine
def test_a_container_without_a_supervisor_is_told_after_all_ways(docker: Share) -> None:
    name = docker.start(docker.engine.image("base"), "sh", "-c", "trap '' HUP; mkdir /app; sleep 3600")
    done = hot_reload(docker.engine.environ, name, HOT_RELOAD_NOTICE_SECONDS="1")
    assert done.returncode == 69
    for text in ("`supervisor reload` cannot be run", "notice of the signal HUP", "does it run a supervisor?"):
        assert text in done.stderr


@pytest.mark.engine
def test_a_container_that_does_not_run_is_named_with_its_state(docker: Share) -> None:
    name = docker.start(docker.engine.image("base"), "true")
    docker.engine.run("wait", name)
    done = hot_reload(docker.engine.environ, name)
    assert done.returncode == 69
    assert f"cannot reload the app in container '{name}': it is exited; start it first" in done.stderr


@pytest.mark.engine
def test_a_container_that_is_not_there_is_named(docker: Share) -> None:
    done = hot_reload(docker.engine.environ, docker.name("nobody"))
    assert done.returncode == 69
    assert f"container '{docker.name('nobody')}': there is none of that name" in done.stderr


@pytest.mark.engine
def test_an_engine_that_does_not_answer_is_told(docker: Share, tmp_path: Path) -> None:
    done = hot_reload(docker.engine.environ, "some", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 69
    assert "the engine cannot be asked (" in done.stderr
    assert "check DOCKER_HOST" in done.stderr


def test_no_docker_command_is_told(tmp_path: Path) -> None:
    for name in ("bash", "env", "mktemp", "rm"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    done = hot_reload({"PATH": str(tmp_path)}, "some")
    assert done.returncode == 69
    assert "there is no command 'docker' here" in done.stderr


@pytest.mark.parametrize("arguments", [("--bogus",), ("one", "two")])
def test_hot_reload_refuses_what_it_does_not_know(arguments: tuple[str, ...]) -> None:
    done = hot_reload(dict(os.environ), *arguments)
    assert (done.returncode, done.stdout) == (64, "")
    assert "usage: scripts/hot-reload" in done.stderr


def test_hot_reload_help_names_the_default_container() -> None:
    done = hot_reload(dict(os.environ), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "by default dokploy-app" in done.stdout


# The pure parts, with a `docker` that only writes down what it is asked.


def test_without_a_name_the_default_container_is_asked(tmp_path: Path) -> None:
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n[ "$1" != container ] || echo running\n')
    fake.chmod(0o755)
    done = hot_reload({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0].endswith(" dokploy-app")
    assert asked[-1] == "exec dokploy-app supervisor reload"
