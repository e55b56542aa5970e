"""Every secret changed under load: no request fails, the old one is refused, none is ever printed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from supervisor.core.secret import Secret
from supervisor.services.tenancy import redis, session
from tests.e2e.harness import request, wait_until
from tests.e2e.rotation.conftest import Stack, Started
from tests.load.plan import Plan
from tests.load.process import Load

pytestmark = pytest.mark.servers


def postgres_takes(url: str) -> bool:
    return anyio.run(lambda: session.can_log_in(Secret(url)))


def redis_takes(url: str) -> bool:
    return anyio.run(lambda: redis.can_log_in(Secret(url)))


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def rotated(stack: Stack, *names: str) -> list[str]:
    """Each is changed; gives what was the secret before, and is now."""
    values = []
    for name in names:
        values.append(stack.value(name))
        done = stack.supervisor.cli("secrets", "rotate", name, "--json")
        assert done.returncode == 0, done.stdout + done.stderr + stack.supervisor.log()[-3000:]
        phases = json.loads(done.stdout)["phases"]
        assert list(phases)[-3:] == ["promoted", "adopted by the app", "closed"]
        values.append(stack.value(name))
        assert values[-1] != values[-2]
    assert stack.left_pending() == []
    return values


def nowhere(stack: Stack, values: list[str]) -> None:
    """In no log, status, event or command line is any of them."""
    supervisor = stack.supervisor
    texts = {
        "log": supervisor.log(),
        "status": supervisor.cli("status", "--json").stdout,
        "events": supervisor.cli("events", "-n", "1000", "--json").stdout,
        "logs": supervisor.cli("logs", "-n", "1000").stdout,
        "list": supervisor.cli("secrets", "list").stdout,
        "command lines": "\n".join(command_lines()),
    }
    found = [(where, text) for where, text in texts.items() if any(value in text for value in values)]
    assert [where for where, _ in found] == []
    assert "***" in texts["log"], "the app printed none: the test proves nothing"


def under_load(stack: Stack, *names: str, soak: bool) -> list[str]:
    plan = Plan(url=stack.url, rate=200, connections=16, quiet_seconds=0.3)
    values: list[str] = []
    with Load(plan) as load:
        load.wait_quiet()
        for _ in range(8 if soak else 1):
            values += rotated(stack, *names)
        report = load.stop()
    assert report.after.sent > 100
    assert (report.after.failed, report.after.failures) == (0, {}), stack.supervisor.output(stack.name)[-2000:]
    return values


def test_each_login_and_made_value_is_changed_without_a_failed_request(stack: Started, soak: bool) -> None:
    made = stack()
    (made.app_dir / "leak").touch()
    made.supervisor.boot()
    before = made.environ()
    values = under_load(made, "api/database", "api/redis", "api/SESSION_SECRET", soak=soak)
    after = made.environ()
    assert {"DATABASE_URL", "REDIS_URL", "SESSION_SECRET"} <= {key for key in before if before[key] != after.get(key)}
    assert (postgres_takes(before["DATABASE_URL"]), postgres_takes(after["DATABASE_URL"])) == (False, True)
    assert (redis_takes(before["REDIS_URL"]), redis_takes(after["REDIS_URL"])) == (False, True)
    nowhere(made, values)


def test_the_install_s_passwords_are_changed_and_nobody_notices(stack: Started, soak: bool) -> None:
    made = stack()
    (made.app_dir / "leak").touch()
    made.supervisor.boot()
    values = under_load(made, "postgres", "postgres-superuser", "redis", soak=soak)
    made.supervisor.wait_event("secret.rotated", secret="redis", result="ok")
    # What we do with them still works: another login is changed by them, and a start finds them good.
    values += rotated(made, "api/database", "api/redis")
    nowhere(made, values)
    assert made.supervisor.stop() == 0
    made.supervisor.boot()
    assert made.serves()


def test_one_app_alone_gets_a_login_of_its_own_before_the_role_s_password_is_changed(
    stack: Started, soak: bool
) -> None:
    made = stack(alone=True)
    (made.app_dir / "leak").touch()
    made.supervisor.boot()
    before = made.environ()
    values = under_load(made, "postgres", "redis", soak=soak)
    after = made.environ()
    assert (postgres_takes(before["DATABASE_URL"]), postgres_takes(after["DATABASE_URL"])) == (False, True)
    assert (redis_takes(before["REDIS_URL"]), redis_takes(after["REDIS_URL"])) == (False, True)
    assert re.search("//rot_app_[ab]:", after["DATABASE_URL"]), "it has no login of its own"
    values += rotated(made, "app/database", "postgres")
    nowhere(made, values)
    made.supervisor.stop()
    made.supervisor.boot()
    assert made.serves()


def test_app_that_is_stopped_by_hand_stays_so_and_gets_the_new_one_later(stack: Started) -> None:
    made = stack()
    made.supervisor.boot()
    before = made.environ()["DATABASE_URL"]
    assert made.supervisor.cli("stop", "api").returncode == 0
    rotated(made, "api/database")
    assert {row["app"]: row["state"] for row in made.supervisor.status()["apps"]}["api"] == "stopped"
    assert made.supervisor.cli("start", "api").returncode == 0
    assert made.serves()
    assert (made.environ()["DATABASE_URL"] != before, postgres_takes(before)) == (True, False)


def test_request_that_was_there_before_may_still_open_connections(stack: Started) -> None:
    made = stack()
    made.supervisor.boot()
    late: list[int] = []
    asking = threading.Thread(target=lambda: late.append(request(made.port, "/late", limit=60)[0]), daemon=True)
    asking.start()
    wait_until("the app has the request", (made.app_dir / "late").exists)
    with subprocess.Popen(
        [sys.executable, "-m", "supervisor", "secrets", "rotate", "api/database"],
        env=made.supervisor.env(),
        stdout=subprocess.DEVNULL,
    ) as rotation:
        made.supervisor.wait_event("app.generation", app="api", generation=1, state="draining")
        # Nothing tells that the old login would be closed now, if it were too early: that is given time.
        with pytest.raises(subprocess.TimeoutExpired):
            rotation.wait(0.5)
        (made.app_dir / "go").touch()
        assert rotation.wait(30) == 0
    asking.join(10)
    assert late == [200]


def test_stop_in_the_middle_keeps_what_the_app_runs_with(stack: Started) -> None:
    made = stack()
    supervisor = made.supervisor.boot()
    with socket.create_connection(("127.0.0.1", made.port), 10) as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")  # keeps the old generation from being drained
        wait_until("the app has the request", (made.app_dir / "slow").exists)
        with subprocess.Popen(
            [sys.executable, "-m", "supervisor", "secrets", "rotate", "api/database"],
            env=supervisor.env(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as rotation:
            supervisor.wait_event("app.generation", app="api", generation=1, state="draining")
            new = made.environ()["DATABASE_URL"]
            assert made.serves()
            assert supervisor.stop() == 0
            rotation.wait(30)
    assert made.left_pending() == []
    supervisor.boot()
    assert made.serves()
    assert made.environ()["DATABASE_URL"] == new


def test_app_that_does_not_start_with_the_new_one_keeps_the_old_one(stack: Started) -> None:
    made = stack()
    made.supervisor.boot()
    names = ("api/database", "api/redis", "api/SESSION_SECRET")
    before, environ = [made.value(name) for name in names], made.environ()
    (made.app_dir / "crash").touch()
    for name in names:
        refused = made.supervisor.cli("secrets", "rotate", name)
        assert refused.returncode == 1
        assert "was refused" in refused.stderr
    assert [made.value(name) for name in names] == before
    assert made.left_pending() == []
    assert made.serves()
    (made.app_dir / "crash").unlink()
    rotated(made, *names)
    assert not postgres_takes(environ["DATABASE_URL"])


def test_app_that_is_stopped_first_is_started_with_the_old_one_again(stack: Started) -> None:
    made = stack(overlap=False)
    made.supervisor.boot()
    before = made.environ()["DATABASE_URL"]
    (made.app_dir / "only").write_text(before)
    failed = made.supervisor.cli("secrets", "rotate", "api/database")
    assert (failed.returncode, "rolled_back" in failed.stderr) == (1, True), failed.stderr
    assert made.serves()
    assert made.environ()["DATABASE_URL"] == before


def test_what_cannot_be_rotated_is_told_why(stack: Started) -> None:
    made = stack()
    made.supervisor.boot()
    texts = {
        "api/KEYS": "only what is generated can be rotated",
        "api/NONE": "the app has no such variable",
        "apj/database": "no such app; did you mean 'api'?",
        "postgre": "did you mean 'postgres'?",
    }
    for name, text in texts.items():
        refused = made.supervisor.cli("secrets", "rotate", name)
        assert (refused.returncode, text in refused.stderr) == (1, True), refused.stderr


def test_tenancy_is_planned_applied_and_verified_through_the_supervisor(stack: Started) -> None:
    made = stack()
    supervisor = made.supervisor.boot()
    assert supervisor.cli("tenancy", "plan").stdout == "all is as declared\n"
    superuser = re.sub(r"//[^@]*@", f"//postgres:{made.value('postgres-superuser')}@", made.environ()["DATABASE_URL"])
    anyio.run(_give_away, superuser.partition("?")[0])
    wrong = supervisor.cli("tenancy", "verify")
    assert wrong.returncode == 1
    assert "which is not declared" in wrong.stderr
    assert "REVOKE" in supervisor.cli("tenancy", "plan").stdout
    assert "BEGIN;" in supervisor.cli("tenancy", "plan", "--sql").stdout
    applied: subprocess.CompletedProcess[str] = supervisor.cli("tenancy", "apply")
    assert (applied.returncode, "REVOKE" in applied.stdout) == (0, True), applied.stderr
    assert "app 'api' may do what is declared" in supervisor.cli("tenancy", "verify").stdout
    assert request(made.port, "/")[0] == 200


async def _give_away(superuser: str) -> None:
    async with session.open_session(Secret(superuser), doing="give a right away", limit_seconds=10) as opened:
        await opened.execute("GRANT USAGE ON SCHEMA api TO rot_other; GRANT SELECT ON api.seen TO rot_other")
