"""What cannot work ends in its own clear error and exit code, within its deadline, and is never called healthy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from supervisor.services.binaries import find_redis, system_places
from tests.e2e.harness import Supervisor, answers, left_behind, wait_until

pytestmark = pytest.mark.servers


def ended(notes: Supervisor, limit: float = 60) -> tuple[int, str]:
    """Start it and wait for its end: (exit code, the error). Nothing may be left, nothing healthy that is not."""
    notes.start()
    code = notes.wait(limit)
    assert left_behind(notes.state) == []
    assert notes.events("supervisor.state", state="running") == []
    return code, notes.events("error")[-1]["msg"]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_crash_looping_postgres_ends_in_69_and_is_never_healthy(notes: Supervisor) -> None:
    notes.boot()
    notes.stop()
    # A setting Postgres refuses at each start: what a bad volume or a bad edit does.
    with (notes.state / "postgres" / "data" / "postgresql.conf").open("a") as file:
        file.write("\nshared_buffers = 'plenty'\n")
    notes.environ |= {"SUPERVISOR_RESTART_BASE_SECONDS": "0.05"}
    code, error = ended(notes)
    assert code == 69
    assert "it ended 6 times" in error
    assert "exited with 1" in error
    assert "shared_buffers" in error  # the last lines of its log
    assert notes.events("service.health", service="postgres", health="healthy") == []


def test_a_wrong_password_ends_in_69_at_once_with_the_way_out(notes: Supervisor) -> None:
    notes.boot()
    notes.stop()
    (notes.state / "secrets" / "postgres-app").write_text("not-the-password-of-this-volume\n")
    code, error = ended(notes)
    assert code == 69
    assert "password" in error
    assert "secrets/postgres-app" in error
    assert "not-the-password" not in notes.log()
    assert notes.events("service.health", service="postgres", health="healthy") == []
    # Fatal at once: neither the deadline of 180 s nor a restart was waited for.
    assert len(notes.events("service.state", service="postgres", state="starting", reason="spawned")) == 1


def test_a_redis_that_stays_loading_ends_in_69_at_its_deadline(notes: Supervisor) -> None:
    notes.boot()
    notes.stop()
    fill_redis(notes)
    real = find_redis(None, places=system_places(os.environ["PATH"]))
    slow = script(
        notes.folder / "bin" / "redis-server",
        f'#!/bin/sh\nexec {real} "$@" --key-load-delay 150\n',
    )
    notes.environ |= {"SUPERVISOR_REDIS_BINARY": str(slow), "SUPERVISOR_REDIS_START_SECONDS": "5"}
    notes.environ |= {"SUPERVISOR_REDIS_RECOVERY_SECONDS": "2"}
    code, error = ended(notes)
    assert code == 69
    assert "loading" in error.lower()
    assert notes.events("service.health", service="redis", health="healthy") == []


def fill_redis(notes: Supervisor) -> None:
    """Give Redis data enough that loading it can be made to take long: it answers after each 1024 keys only."""
    notes.start()
    notes.wait_event("service.state", service="redis", state="running")
    port = json.loads((notes.state / "install.json").read_text())["ports"]["redis"]
    password = (notes.state / "secrets" / "redis").read_text().strip()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        fill = "for i=1,60000 do redis.call('SET', 'k'..i, 'x') end"
        lines = [f"AUTH {password}", f'EVAL "{fill}" 0', "QUIT"]
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        while connection.recv(65536):
            pass
    notes.stop()


@pytest.mark.parametrize("kind", ["sql", "command"])
def test_a_failing_migration_ends_in_12_naming_file_and_line(notes: Supervisor, kind: str) -> None:
    if kind == "sql":
        bad = notes.folder.parent / "notes" / "migrations" / "0099_bad.sql"
        bad.write_text("SELECT 1;\n-- comment\nALTER TABLE nowhere ADD x int;\n")
        words: tuple[str, ...] = ("0099_bad.sql", "line 3", '"nowhere" does not exist', "42P01")
    else:
        notes.environ |= {"MIGRATE_COMMAND": "sh -c 'echo cannot reach schema; exit 3'"}
        words = ("exited with 3", "cannot reach schema")
    code, error = ended(notes)
    assert code == 12
    for word in words:
        assert word in error
    assert answers(notes.port) is None


def test_a_failing_migration_is_held_where_asked_and_a_reload_tries_it_again(notes: Supervisor) -> None:
    bad = notes.folder.parent / "notes" / "migrations" / "0099_bad.sql"
    bad.write_text("ALTER TABLE nowhere ADD x int;\n")
    notes.environ |= {"SUPERVISOR_ON_APP_FAILURE": "hold"}
    notes.start()
    assert "0099_bad.sql" in notes.wait_event("app.held")["reason"]
    wait_until("the reason on the port", lambda: answers(notes.port) == 503)
    assert notes.cli("reload").returncode == 1
    bad.unlink()
    done = notes.cli("reload")
    assert done.returncode == 0, done.stdout + done.stderr
    assert notes.serves()
    assert notes.stop() == 0


def test_migrations_have_a_deadline(notes: Supervisor) -> None:
    (notes.folder.parent / "notes" / "migrations" / "0099_slow.sql").write_text("SELECT pg_sleep(600);\n")
    notes.environ |= {"SUPERVISOR_MIGRATE_SECONDS": "1.5"}
    code, error = ended(notes)
    assert code == 12
    assert "0099_slow.sql" in error
    assert "deadline" in error


@pytest.mark.parametrize("name", ["port", "http_port"])
def test_a_taken_port_ends_in_78_naming_its_holder(notes: Supervisor, name: str) -> None:
    port = notes.port if name == "port" else notes.http_port
    with socket.create_server(("0.0.0.0", port)):
        code, error = ended(notes)
    assert code == 78
    assert re.search(rf"port {port}:? (it )?is taken by pid {os.getpid()}", error)


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("SUPERVISOR_POSTGRES_BIN_DIR", "postgres"),
        ("SUPERVISOR_REDIS_BINARY", "redis"),
        ("SUPERVISOR_TRAEFIK_BINARY", "traefik"),
    ],
)
def test_a_missing_binary_ends_in_78_with_what_to_do(notes: Supervisor, variable: str, name: str) -> None:
    notes.environ |= {variable: "/no/such/place"}
    code, error = ended(notes)
    assert code == 78
    assert "/no/such/place" in error
    assert variable in error
    assert name in error.lower()


def test_a_broken_supervisor_toml_ends_in_78_with_line_and_column(notes: Supervisor) -> None:
    (notes.folder.parent / "notes" / "supervisor.toml").write_text('port = 3000\napp_command = "unclosed\n')
    notes.start()
    assert notes.wait(20) == 78
    assert "supervisor.toml" in notes.log()
    assert "line 2" in notes.log()


def test_every_mistake_in_the_settings_is_in_one_report(notes: Supervisor) -> None:
    toml = notes.folder.parent / "notes" / "supervisor.toml"
    toml.write_text('app_comand = "x"\napp_health = "smtp"\nrestart_limit = -1\n')
    notes.start()
    assert notes.wait(20) == 78
    for words in ("did you mean 'app_command'", "'smtp'", "restart_limit"):
        assert words.lower() in notes.log().lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_a_state_folder_postgres_cannot_enter_ends_in_77_naming_the_folder(notes: Supervisor) -> None:
    closed = notes.folder / "closed"
    closed.mkdir(mode=0o700)
    notes.environ |= {"SUPERVISOR_STATE_DIR": str(closed / "state")}
    notes.start()
    assert notes.wait(30) == 77
    error = notes.events("error")[-1]["msg"]
    assert str(closed) in error
    assert "chmod" in error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_root_that_may_not_become_another_ends_in_77_naming_what_it_lacks(notes: Supervisor) -> None:
    notes.prefix = ["setpriv", "--bounding-set=-setuid,-setgid", "--inh-caps=-all", "--"]
    notes.start()
    assert notes.wait(30) == 77
    error = notes.events("error")[-1]["msg"]
    assert "cannot start Postgres: it does not run as root, and root lacks CAP_SETGID, CAP_SETUID here" in error


def test_a_state_folder_that_cannot_be_made_is_named(notes: Supervisor) -> None:
    (notes.folder / "file").write_text("in the way")
    notes.environ |= {"SUPERVISOR_STATE_DIR": str(notes.folder / "file" / "state")}
    notes.start()
    assert notes.wait(20) in (77, 78)
    assert str(notes.folder / "file") in notes.log()


def test_the_boot_has_a_deadline(notes: Supervisor) -> None:
    notes.environ |= {"SUPERVISOR_BOOT_SECONDS": "0.3"}
    code, error = ended(notes)
    assert code == 75
    assert "0.3 s" in error


def test_an_optional_service_may_be_missing(notes: Supervisor) -> None:
    notes.environ |= {
        "SUPERVISOR_OPTIONAL_SERVICES": "traefik",
        "SUPERVISOR_TRAEFIK_BINARY": str(script(notes.folder / "bin" / "traefik", "#!/bin/sh\nexit 3\n")),
        "SUPERVISOR_RESTART_BASE_SECONDS": "0.02",
    }
    notes.start()
    notes.wait_event("supervisor.state", state="degraded")
    wait_until("the app serves", notes.serves)
    assert "traefik" in notes.status()["reason"]
    assert notes.stop() == 0


def test_a_data_service_that_gives_up_after_the_boot_degrades_and_the_app_serves_on(notes: Supervisor) -> None:
    real = find_redis(None, places=system_places(os.environ["PATH"]))
    flag = notes.folder / "broken"
    fake = script(notes.folder / "bin" / "redis-server", f'#!/bin/sh\n[ -e {flag} ] && exit 1\nexec {real} "$@"\n')
    notes.folder.chmod(0o755)
    notes.environ |= {
        "SUPERVISOR_REDIS_BINARY": str(fake),
        "SUPERVISOR_RESTART_BASE_SECONDS": "0.02",
        "SUPERVISOR_APP_HEALTH_INTERVAL_SECONDS": "0.1",
        "SUPERVISOR_APP_HEALTH_RETRIES": "2",
    }
    notes.boot()
    pid = notes.pid_of("app")
    flag.touch()
    os.kill(notes.pid_of("redis"), 9)
    notes.wait_event("service.failed", service="redis")
    # The app says 503 by now: answered, so not hung, and not restarted while Redis is what is down.
    notes.wait_event("app.health", health="unhealthy")
    assert notes.status()["state"] == "degraded"
    assert notes.pid_of("app") == pid
    flag.unlink()
    assert notes.cli("start", "redis").returncode == 0
    notes.wait_event("app.health", health="healthy", after=1)
    wait_until("it serves", notes.serves)
    assert notes.pid_of("app") == pid
    assert notes.stop() == 0


def test_an_essential_service_that_gives_up_after_the_boot_ends_in_69(notes: Supervisor) -> None:
    real = find_redis(None, places=system_places(os.environ["PATH"]))
    flag = notes.folder / "broken"
    fake = script(notes.folder / "bin" / "redis-server", f'#!/bin/sh\n[ -e {flag} ] && exit 1\nexec {real} "$@"\n')
    notes.environ |= {
        "SUPERVISOR_REDIS_BINARY": str(fake),
        "SUPERVISOR_RESTART_BASE_SECONDS": "0.02",
        "SUPERVISOR_ESSENTIAL_SERVICES": "redis",
    }
    notes.boot()
    flag.touch()
    os.kill(notes.pid_of("redis"), 9)
    assert notes.wait(30) == 69
    assert left_behind(notes.state) == []


def test_external_urls_win_and_nothing_is_started_for_them(notes: Supervisor) -> None:
    notes.environ |= {"REDIS_URL": "redis://127.0.0.1:1/0", "SUPERVISOR_APP_START_SECONDS": "1"}
    notes.environ |= {"SUPERVISOR_APP_RESTART": "no"}
    notes.start()
    assert notes.wait() == 10  # the example needs Redis
    assert notes.events("service.state", service="redis") == []
    assert notes.events("service.state", service="postgres", state="running")


def test_the_users_own_services_start_in_their_order(notes: Supervisor) -> None:
    toml = notes.folder.parent / "notes" / "supervisor.toml"
    waits = f"{sys.executable} -S -c \"import time; print('worker is up', flush=True); time.sleep(600)\""
    port = notes.http_port + 1
    toml.write_text(
        toml.read_text()
        + f"""
[services.worker]
command = '''{waits}'''
requires = ["postgres", "files"]

[services.files]
command = ["{sys.executable}", "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
health_http = "http://127.0.0.1:{port}/"
"""
    )
    notes.boot()
    moments = {event["service"]: event["at"] for event in notes.events("service.state", state="running")}
    assert moments["worker"] >= max(moments["postgres"], moments["files"])
    assert "worker is up" in notes.output("worker")
    assert {row["service"] for row in notes.status()["services"]} >= {"worker", "files"}
    assert notes.stop() == 0


def test_stop_works_during_a_hung_call(notes: Supervisor) -> None:
    """Postgres accepts and never answers while it is stopped: the probe hangs, TERM does not wait for it."""
    notes.environ |= {"SUPERVISOR_STOP_SECONDS": "5", "SUPERVISOR_WATCH_INTERVAL_SECONDS": "0.1"}
    notes.boot()
    postgres = notes.pid_of("postgres")
    os.kill(postgres, 19)
    notes.wait_event("service.health", service="postgres", health="unhealthy")
    assert notes.stop(limit=20) == 0
    assert left_behind(notes.state) == []


def test_a_closed_log_reader_does_not_end_it(notes: Supervisor) -> None:
    read, write = os.pipe()
    notes.starts += 1
    notes.process = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "run", *notes.arguments],
        env=notes.env(),
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=write,
        start_new_session=True,
    )
    os.close(write)
    seen = threading.Event()

    def read_a_little() -> None:
        with os.fdopen(read, "rb") as pipe:
            pipe.readline()
            seen.set()

    threading.Thread(target=read_a_little).start()
    assert seen.wait(20)
    with contextlib.suppress(AssertionError):
        wait_until("it serves", notes.serves)
    assert notes.serves()
    assert notes.stop() == 0
