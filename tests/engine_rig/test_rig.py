"""The images of the tests keep the official ones' contracts, and those to ship run, on the real engine."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine_rig.engine import Engine, Share
from tests.engine_rig.private import wait_until

pytestmark = pytest.mark.engine

_QUERY = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", "select current_user, current_database()")
_LISTED = {"container": "Names", "network": "Name", "volume": "Name"}


def says(share: Share, container: str, *words: str) -> Callable[[], bool]:
    """A condition: the command succeeds in the container."""
    return lambda: share.engine.run("exec", container, *words, check=False).returncode == 0


def published(share: Share, container: str, port: int) -> int:
    """The loopback port of a port published with `-p 127.0.0.1::PORT`."""
    return int(share.engine.output("port", container, f"{port}/tcp").rpartition(":")[2])


def redis_says(port: int, command: str, expected: bytes) -> Callable[[], bool]:
    """A condition. Until Redis listens, the engine's proxy takes the connection and resets it."""

    def condition() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(1000).startswith(expected)
        except OSError:
            return False

    return condition


def start_postgres(docker: Share, *options: str) -> str:
    container = docker.start(docker.engine.image("postgres"), word="postgres", options=options)
    wait_until(says(docker, container, "pg_isready", "--host=127.0.0.1"), "ready")
    return container


def query(docker: Share, address: str, password: str, *, database: str = "stack") -> tuple[int, str]:
    """From another container, over TCP."""
    environment = {"PGHOST": address, "PGUSER": "stack", "PGPASSWORD": password, "PGDATABASE": database}
    options = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    done = docker.engine.run("run", "--rm", *options, docker.engine.image("postgres"), *_QUERY, check=False)
    return done.returncode, done.stdout.strip() or done.stderr


def test_postgres_takes_its_password_from_a_file_and_refuses_another_over_tcp(docker: Share, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("right\n")
    environment = {"POSTGRES_USER": "stack", "POSTGRES_DB": "notes", "POSTGRES_PASSWORD_FILE": "/run/password"}
    options = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    container = start_postgres(docker, *options, "--volume", f"{secret}:/run/password:ro")
    address = docker.address(container)
    assert query(docker, address, "right", database="notes") == (0, "stack|notes")
    code, error = query(docker, address, "wrong", database="notes")
    assert code != 0
    assert "password authentication failed" in error


def test_postgres_keeps_its_data_and_password_over_another_container(docker: Share) -> None:
    mount = ("--volume", f"{docker.volume()}:/var/lib/postgresql/data")
    first = start_postgres(docker, "--env", "POSTGRES_USER=stack", "--env", "POSTGRES_PASSWORD=first", *mount)
    docker.engine.run("stop", first)
    assert docker.engine.output("inspect", "--format", "{{.State.ExitCode}}", first) == "0"
    assert "database system is shut down" in docker.log(first)
    docker.engine.run("rm", first)
    second = start_postgres(docker, "--env", "POSTGRES_PASSWORD=second", *mount)
    assert query(docker, docker.address(second), "first") == (0, "stack|stack")
    assert query(docker, docker.address(second), "second")[0] != 0


def test_postgres_without_a_password_ends_with_an_error(docker: Share) -> None:
    done = docker.engine.run("run", "--rm", docker.engine.image("postgres"), check=False)
    assert done.returncode == 1
    assert "superuser password is not specified" in done.stderr


def test_redis_answers_and_asks_for_the_password_it_was_given(docker: Share) -> None:
    publish = ("--publish", "127.0.0.1::6379")
    image = docker.engine.image("redis")
    locked = published(docker, docker.start(image, "--requirepass", "key", word="locked", options=publish), 6379)
    unlocked = published(docker, docker.start(image, word="open", options=publish), 6379)
    wait_until(redis_says(unlocked, "PING", b"+PONG\r\n"), "ready")
    wait_until(redis_says(locked, "PING", b"-NOAUTH"), "ready")
    assert redis_says(locked, "AUTH key", b"+OK")()
    assert not redis_says(locked, "AUTH other", b"+OK")()
    assert docker.engine.output("exec", docker.name("open"), "stat", "--format=%U", "/proc/1") == "redis"


def test_traefik_answers_its_ping(docker: Share) -> None:
    flags = ("--ping=true", "--ping.entrypoint=web", "--entrypoints.web.address=:80")
    container = docker.start(docker.engine.image("traefik"), *flags, options=("--publish", "127.0.0.1::80"))
    port = published(docker, container, 80)

    def pings() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False

    wait_until(pings, "ready")


def test_a_privileged_container_may_mount_and_another_may_not(docker: Share) -> None:
    mount = (docker.engine.image("base"), "mount", "-t", "tmpfs", "none", "/mnt")
    assert docker.engine.run("run", "--rm", "--privileged", *mount).returncode == 0
    refused = docker.engine.run("run", "--rm", *mount, check=False)
    assert refused.returncode != 0
    assert "permission denied" in refused.stderr


def test_a_command_in_a_privileged_container_is_privileged_too(docker: Share) -> None:
    container = docker.start(docker.engine.image("base"), "sleep", "1000", options=("--privileged",))
    assert docker.engine.run("exec", "--privileged", container, "mount", "-t", "tmpfs", "none", "/mnt").returncode == 0


def test_a_dockerd_inside_the_dind_image_runs_containers_on_overlay2(docker: Share) -> None:
    engine = docker.engine
    options = ("--privileged", "--entrypoint", "dockerd", "--volume", f"{docker.volume()}:/var/lib/docker")
    container = docker.start(engine.image("dind"), options=options)
    wait_until(says(docker, container, "docker", "info"), "ready")
    inside = ("exec", container, "docker")
    assert engine.output(*inside, "info", "--format", "{{.Driver}}") == "overlay2"
    pipe = f"docker save {engine.image('redis')} | docker exec --interactive {container} docker load"
    run_shell(engine, pipe)
    engine.run(*inside, "run", "--detach", "--name", "redis", "--publish", "6379:6379", engine.image("redis"))
    wait_until(says(docker, container, "docker", "exec", "redis", "redis-cli", "ping"), "ready")
    knock = "exec 3<>/dev/tcp/127.0.0.1/6379 && printf 'PING\\r\\n' >&3 && head --lines=1 <&3"
    assert engine.output("exec", container, "bash", "-c", knock).strip() == "+PONG"
    assert engine.run("stop", container).returncode == 0


def run_shell(engine: Engine, line: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-c", line], env=engine.environ, check=True, timeout=120)


@pytest.mark.parametrize("name", ["supervisor", "dind"])
def test_an_image_to_ship_runs_other_commands_and_says_how_it_is(docker: Share, name: str) -> None:
    engine, image = docker.engine, docker.engine.image(name)
    assert engine.output("run", "--rm", image, "supervisor", "--version").startswith("supervisor ")
    unhealthy = engine.run("run", "--rm", image, "supervisor", "health", check=False)
    assert (unhealthy.returncode, unhealthy.stdout[:21]) == (1, "no supervisor answers")
    found = json.loads(engine.output("image", "inspect", image))[0]["Config"]
    assert found["Healthcheck"]["Test"] == ["CMD", "supervisor", "health"]
    assert found["StopSignal"] == "SIGTERM"
    assert set(found["Volumes"]) == {"/var/lib/supervisor"} | ({"/var/lib/docker"} if name == "dind" else set())
    assert found["Labels"]["org.opencontainers.image.version"]


def test_the_supervisor_is_pid_1_of_its_image_gets_healthy_and_stops_cleanly(docker: Share) -> None:
    engine = docker.engine
    command = "exec python -m http.server $PORT"
    options = ("--env", f"SUPERVISOR_APP_COMMAND={command}", "--health-interval=1s")
    container = docker.start(engine.image("supervisor"), "--no-services", options=options)
    health = ("inspect", "--format", "{{.State.Health.Status}}", container)
    wait_until(lambda: engine.output(*health) == "healthy", "healthy")
    assert "supervisor\0run" in engine.output("exec", container, "cat", "/proc/1/cmdline")
    engine.run("stop", container)
    assert engine.output("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def test_extra_certificates_are_trusted_one_by_one(docker: Share) -> None:
    """What the build option --ca-certificates does, in the image that has the script."""
    make = "openssl req -x509 -newkey ed25519 -nodes -days 1 -subj /CN=$1 -keyout /dev/null 2>/dev/null"
    program = f"""
        set -eu; make() {{ {make}; }}
        EXTRA_CA_CERTIFICATES="$(make one; make two)"; export EXTRA_CA_CERTIFICATES
        sh /usr/local/lib/supervisor/add-certificates.sh >/dev/null
        for name in one two; do
          openssl crl2pkcs7 -nocrl -certfile /etc/ssl/certs/ca-certificates.crt | openssl pkcs7 -print_certs -noout |
            grep -c "^subject=CN *= *$name$"
        done"""
    assert docker.engine.output("run", "--rm", docker.engine.image("supervisor"), "bash", "-c", program) == "1\n1"


def test_a_test_removes_its_own_things_and_no_others(engine: Engine) -> None:
    one, other = Share(engine, "tone0000"), Share(engine, "tother00")
    try:
        for share in (one, other):
            options = ("--network", share.network(), "--volume", f"{share.volume()}:/data")
            share.start(engine.image("base"), "sleep", "1000", options=options)
        one.remove()
        left = [engine.output(kind, "ls", "--format", f"{{{{.{name}}}}}") for kind, name in _LISTED.items()]
        assert all("tone0000" not in names and "tother00" in names for names in left)
    finally:
        one.remove()
        other.remove()
