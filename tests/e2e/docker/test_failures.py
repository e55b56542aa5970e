"""What cannot work ends in its own clear error and exit code, and is never called healthy."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.errors import ExitCode
from tests.e2e.docker.conftest import MakeStack
from tests.e2e.docker.stack import Kind, Stack
from tests.e2e.harness import free_port
from tests.engine_rig.engine import Engine, Share

pytestmark = pytest.mark.engine
_NOBODY = 12345
_QUICK = {"SUPERVISOR_RESTART_BASE_SECONDS": "0.05"}  # as many starts, sooner one after another


def ended(stack: Stack, *, failing: str = "", limit: float = 60) -> tuple[int, str]:
    """Start it and wait for its end: (exit code, the error). Nothing is said to be well that is not."""
    stack.run()
    code = stack.wait_end(limit)
    assert stack.events("supervisor.state", state="running") == []
    assert stack.events("boot.finished") == []
    if failing:
        assert stack.events("service.health", service=failing, health="healthy") == []
        assert stack.events("service.state", service=failing, state="running") == []
    errors = stack.events("error")
    assert errors, stack.story()
    return code, str(errors[-1]["msg"])


def test_a_missing_image_without_a_registry_is_named_with_the_ways_out(make_stack: MakeStack) -> None:
    stack = make_stack(Kind.SOCKET, environ={**_QUICK, "SUPERVISOR_POSTGRES_IMAGE": "127.0.0.1:9/none:1"})
    code, error = ended(stack, failing="postgres")
    assert code == ExitCode.UNREACHABLE
    assert "cannot get image '127.0.0.1:9/none:1'" in error
    assert "docker load" in error
    assert "SUPERVISOR_IMAGES_DIR" in error


@pytest.fixture
def crashing_image(docker: Share, tmp_path: Path) -> Iterator[str]:
    """An image that calls itself Postgres 17, says why, and ends."""
    tag = f"{docker.prefix}/postgres:17"
    (tmp_path / "Dockerfile").write_text(
        f'FROM {docker.engine.image("base")}\nCMD ["sh", "-c", "echo cannot open the data; exit 3"]\n'
    )
    docker.engine.run("build", "--quiet", "--tag", tag, tmp_path)
    yield tag
    docker.remove()
    docker.engine.run("image", "rm", "--force", tag)


def test_a_crash_looping_postgres_ends_it_with_the_last_lines_of_its_log(
    crashing_image: str, make_stack: MakeStack
) -> None:
    stack = make_stack(Kind.SOCKET, environ={**_QUICK, "SUPERVISOR_POSTGRES_IMAGE": crashing_image})
    code, error = ended(stack, failing="postgres", limit=120)
    assert code == ExitCode.UNREACHABLE
    assert "cannot start service 'postgres'" in error
    assert "exited with 3" in error
    assert "cannot open the data" in error


@pytest.fixture(scope="module")
def stopped(engine: Engine) -> Iterator[Stack]:
    """A stack that ran, and was stopped; its volumes are there."""
    share = Share(engine, f"t{uuid.uuid4().hex[:8]}")
    stack = Stack(share, Kind.SOCKET, documented=True)
    try:
        stack.boot()
        engine.run("stop", stack.container)
        yield stack
    finally:
        stack.end()
        share.remove()


@pytest.fixture
def changed(stopped: Stack) -> Iterator[Stack]:
    """The same on a copy of its state, to be changed, with nothing that brings it back."""
    mounts = ("--volume", f"{stopped.thing('supervisor')}:/volume", "--volume", f"{stopped.thing('changed')}:/copy")
    base = stopped.share.engine.image("base")
    stopped.share.engine.run("run", "--rm", *mounts, base, "cp", "-a", "/volume/.", "/copy/")
    stack = replace(
        stopped,
        documented=False,
        word="changed",
        options=("--volume", f"{stopped.thing('changed')}:/var/lib/supervisor"),
    )
    yield stack
    stack.remove()
    stopped.share.engine.run("volume", "rm", stopped.thing("changed"))


def test_a_wrong_password_on_an_old_volume_ends_it_at_once_with_the_way_out(changed: Stack) -> None:
    changed.in_volume(changed.thing("changed"), "echo not-the-password >/volume/secrets/postgres")
    changed.share.engine.run("service", "rm", changed.thing("postgres"))
    code, error = ended(changed, failing="postgres")
    assert code == ExitCode.UNREACHABLE
    assert "password" in error
    assert "secrets/postgres" in error
    assert "SUPERVISOR_ADOPT=1" in error
    assert "not-the-password" not in changed.share.log(changed.container)
    spawned = changed.events("service.state", service="postgres", state="starting", reason="spawned")
    assert len(spawned) == 1, "neither its deadline nor a restart was waited for"


def test_a_volume_of_another_major_ends_it_before_the_data_is_touched(changed: Stack) -> None:
    script = """sed -i 's/"postgres.major": *"17"/"postgres.major": "16"/' /volume/install.json
    grep -c '"postgres.major": "16"' /volume/install.json"""
    assert changed.in_volume(changed.thing("changed"), script) == "1"
    services = changed.docker("service", "ls", "--quiet", "--filter", f"name={changed.thing('postgres')}")
    code, error = ended(changed, failing="postgres")
    assert code == ExitCode.CONFIGURATION
    assert "cannot start Postgres 17 on data of Postgres 16" in error
    assert "SUPERVISOR_POSTGRES_IMAGE" in error
    assert changed.docker("service", "ls", "--quiet", "--filter", f"name={changed.thing('postgres')}") == services


def test_a_port_that_another_process_has_is_named(make_stack: MakeStack) -> None:
    port = free_port()
    with socket.create_server(("0.0.0.0", port)):
        stack = make_stack(Kind.SOCKET, http_port=port)
        code, error = ended(stack, failing="traefik")
    assert code == ExitCode.CONFIGURATION
    assert f"{stack.name}-traefik" in error
    assert str(port) in error
    assert "SUPERVISOR_HTTP_PORT" in error


def test_a_directory_in_the_sockets_place_is_e09(make_stack: MakeStack, docker: Share) -> None:
    # A mount of a path that the host does not have makes one.
    stack = make_stack(Kind.SOCKET, access=("--volume", f"{docker.volume('nothing')}:/var/run/docker.sock"))
    code, error = ended(stack)
    assert (code, error.partition(":")[0]) == (ExitCode.UNREACHABLE, "E09")
    assert "it is a directory" in error


def test_neither_socket_nor_privileges_is_e07(make_stack: MakeStack) -> None:
    code, error = ended(make_stack(Kind.DIND, access=()))
    assert (code, error.partition(":")[0]) == (ExitCode.PRIVILEGE, "E07")
    for way_out in ("docker.sock", "--privileged", "embedded"):
        assert way_out in error


def test_privileges_without_a_dockerd_in_the_image_is_e08(make_stack: MakeStack) -> None:
    code, error = ended(make_stack(Kind.SOCKET, access=("--privileged",)))
    assert (code, error.partition(":")[0]) == (ExitCode.UNREACHABLE, "E08")
    assert "Dockerfile.dind" in error


def test_a_socket_that_is_not_for_us_is_e11_and_never_dind(make_stack: MakeStack, docker: Share) -> None:
    image = docker.engine.image("notes-dind-ready")  # which could start an engine of its own
    # The state of a user without root is kept in its home.
    options = ("--user", f"{_NOBODY}:{_NOBODY}", "--env", "HOME=/tmp", "--privileged")
    stack = make_stack(Kind.SOCKET, image=image, options=options)
    code, error = ended(stack)
    assert (code, error.partition(":")[0]) == (ExitCode.PRIVILEGE, "E11")
    assert "--group-add" in error
    assert stack.events("mode.chosen") == []
