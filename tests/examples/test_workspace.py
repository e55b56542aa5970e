"""Five apps on one Postgres and one Redis: each serves, gets what it declares, and reaches nothing of the others.

What is refused here is refused by the servers themselves, asked with the very URLs that the apps were given.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_library
from redis.exceptions import NoPermissionError

from tests.e2e.harness import left_behind, request
from tests.examples.neighbour import listening, neighbour
from tests.examples.workspace_rig import PORTS, Workspace, command_lines

pytestmark = pytest.mark.servers

DENIED = "42501"
TABLES = {"api": "public.notes", "auth": "auth.sessions", "admin-auth": "admin_auth.logins"}
_ON_TABLES = {
    "read": "SELECT count(*) FROM {table}",
    "insert": "INSERT INTO {table} DEFAULT VALUES",
    "update": "UPDATE {table} SET created_at = now()",
    "delete": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "lock": "SELECT 1 FROM {table} FOR UPDATE",
    "alter": "ALTER TABLE {table} ADD COLUMN more text",
    "drop": "DROP TABLE {table}",
    "take": "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "create beside": "CREATE TABLE {schema}.mine (id int)",
    "drop schema": "DROP SCHEMA {schema} CASCADE",
}
_OF_THE_SERVER = (
    "CREATE ROLE more LOGIN",
    "CREATE DATABASE more",
    "ALTER SYSTEM SET log_statement = 'all'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT rolpassword FROM pg_authid",
    "SET SESSION AUTHORIZATION postgres",
)


@pytest.fixture(scope="module")
def installed() -> Iterator[Workspace]:
    """With its Node packages, not started."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found; apt-get install nodejs npm")
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    try:
        made = Workspace.make(folder)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--omit=dev"]
        done = subprocess.run(command, cwd=made.folder, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def workspace(installed: Workspace) -> Iterator[Workspace]:
    """All five, running."""
    try:
        installed.supervisor.boot()
        yield installed
    finally:
        installed.supervisor.end_everything()


def test_each_serves_and_uses_what_is_its_own(workspace: Workspace) -> None:
    token = workspace.sign_in("Ada")
    assert workspace.ask("auth", "/sessions/me", token=token) == (200, {"name": "Ada"})
    status, note = workspace.ask("api", "/notes", {"body": "straight"}, token)
    assert (status, note["author"]) == (201, "Ada")
    assert workspace.ask("api", "/notes", {"body": "nobody's"})[0] == 401
    notes = len(workspace.ask("api", "/notes")[1]["notes"])
    assert workspace.ask("api", "/notes/count") == (200, {"notes": notes})
    credentials = {"email": workspace.given["ADMIN_EMAIL"], "password": workspace.given["ADMIN_PASSWORD"]}
    assert workspace.ask("admin-auth", "/login", {**credentials, "password": "wrong"})[0] == 401
    status, login = workspace.ask("admin-auth", "/login", credentials)
    assert status == 201
    assert "Ada" in workspace.ask("admin-auth", "/sessions", token=login["token"])[1]["sessions"]
    assert f"{notes} notes are kept here." in request(workspace.ports["web"], "/")[1]
    assert f"{notes} notes, " in request(workspace.ports["admin"], "/")[1]


def test_each_is_reached_through_traefik_by_its_host(workspace: Workspace) -> None:
    for app in PORTS:
        host = {"Host": f"{app}.localhost"}
        assert request(workspace.supervisor.http_port, "/api/health", headers=host)[0] == 200, app
    page = request(workspace.supervisor.http_port, "/", headers={"Host": "admin.localhost"})[1]
    assert f'href="http://admin.localhost:{workspace.supervisor.http_port}"' in page


@pytest.mark.parametrize("owner", TABLES)
@pytest.mark.parametrize("app", TABLES)
def test_postgres_refuses_an_app_what_is_anothers(workspace: Workspace, app: str, owner: str) -> None:
    table = TABLES[owner]
    answers = {
        name: workspace.sql(app, statement.format(table=table, schema=table.split(".")[0]))
        for name, statement in _ON_TABLES.items()
        if app != owner or name == "read"
    }
    if app == owner or (app, owner) == ("admin-auth", "auth"):
        assert answers.pop("read").isdigit()
        assert app != owner or answers == {}
    assert set(answers.values()) <= {DENIED}, answers


@pytest.mark.parametrize("app", TABLES)
def test_postgres_refuses_an_app_what_is_the_servers(workspace: Workspace, app: str) -> None:
    answers = {statement: workspace.sql(app, statement) for statement in _OF_THE_SERVER}
    answers |= {f"enter {name}": workspace.sql(app, "SELECT 1", database=name) for name in ("postgres", "template1")}
    others = [f'SET ROLE "dokploy_{other}"' for other in TABLES if other != app]
    answers |= {statement: workspace.sql(app, statement) for statement in [*others, 'SET ROLE "dokploy"']}
    assert set(answers.values()) == {DENIED}, answers


@pytest.mark.parametrize("app", TABLES)
def test_an_app_makes_and_fills_tables_where_it_is_at_home(workspace: Workspace, app: str) -> None:
    make = "CREATE TABLE made (id int); INSERT INTO made VALUES (7); DROP TABLE made"
    for statement in make.split("; "):
        assert workspace.sql(app, statement) == "None"
    assert workspace.sql(app, "SELECT current_schema()") == TABLES[app].split(".")[0]
    url = workspace.environ(app)["DATABASE_URL"]
    assert all(url != workspace.environ(other)["DATABASE_URL"] for other in TABLES if other != app)


def test_redis_refuses_the_keys_of_others(workspace: Workspace) -> None:
    with redis_library.Redis.from_url(workspace.environ("api")["REDIS_URL"], decode_responses=True) as client:
        client.set("api:test", "mine", ex=60)
        assert client.get("api:test") == "mine"
        for words in (
            ("GET", "auth:session"),
            ("SET", "other", "1"),
            ("DEL", "web:x"),
            ("RENAME", "api:test", "web:test"),
            ("EVAL", "return redis.call('get', KEYS[1])", "1", "auth:session"),
            ("PUBLISH", "auth:news", "x"),
            ("KEYS", "*"),
            ("CONFIG", "GET", "requirepass"),
            ("ACL", "LIST"),
            ("FLUSHALL",),
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*words)


def test_an_app_is_given_what_it_declares_and_nothing_of_the_others(workspace: Workspace) -> None:
    given = {app: workspace.environ(app) for app in PORTS}
    has = {name: {app for app, environ in given.items() if name in environ} for name in (*workspace.given, "REDIS_URL")}
    assert has == {
        "INVITE_CODE": {"auth"},
        "ADMIN_EMAIL": {"admin-auth"},
        "ADMIN_PASSWORD": {"admin-auth"},
        "REDIS_URL": {"api"},
    }
    assert {app for app, environ in given.items() if "DATABASE_URL" in environ} == set(TABLES)
    assert len({environ["BETTER_AUTH_SECRET"] for environ in given.values()}) == len(PORTS)
    port = workspace.supervisor.http_port
    assert given["auth"]["BETTER_AUTH_URL"] == f"http://auth.localhost:{port}"
    origins = set(given["auth"]["BETTER_AUTH_TRUSTED_ORIGINS"].split(","))
    assert origins == {f"http://{app}.localhost:{port}" for app in PORTS}
    assert "SESSION_SECRET" not in given["admin-auth"]
    secret = Path(given["admin-auth"]["SESSION_SECRET_FILE"])
    assert secret.stat().st_mode & 0o777 == 0o400
    assert len(secret.read_text()) >= 32


def test_no_secret_is_in_log_status_or_argv(workspace: Workspace) -> None:
    workspace.sign_in("Grace")
    supervisor, hidden = workspace.supervisor, workspace.secrets()
    assert len(hidden) >= 10, "of Postgres, of Redis, of each app"
    shown = {
        "log": supervisor.log(),
        "status": supervisor.cli("status", "--json").stdout + supervisor.cli("status").stdout,
        "logs": supervisor.cli("logs", "-n", "10000").stdout,
        "events": supervisor.cli("events", "-n", "1000").stdout,
        "settings": supervisor.cli("config", "show", "--origin", *supervisor.arguments).stdout,
        "check": supervisor.cli("env", "check", "--json", *supervisor.arguments).stdout,
        "argv": "\n".join(command_lines()),
    }
    assert all(shown.values())
    assert {place: [secret for secret in hidden if secret in text] for place, text in shown.items()} == {
        place: [] for place in shown
    }


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip")
def test_nothing_is_reached_from_another_network_namespace_but_the_public_ports(workspace: Workspace) -> None:
    supervisor = workspace.supervisor
    ports = listening({*left_behind(supervisor.state), supervisor.own_pid})
    public = {*workspace.ports.values(), supervisor.http_port, supervisor.https_port}
    assert public < ports, "Postgres and Redis and the apps' own ports are there too"
    with neighbour() as outside:
        assert outside.reaches(ports) == public


@pytest.mark.parametrize("app", PORTS)
def test_detection_finds_what_an_app_declares(installed: Workspace, app: str) -> None:
    table: dict[str, Any] = tomllib.loads((installed.folder / "supervisor.toml").read_text())["apps"][app]
    env = table["env"]
    in_files = {name for name, rule in env.get("vars", {}).items() if rule.get("give") == "file"}
    optional = set(env["optional"])
    required = {*env.get("required", ()), *env.get("vars", ())} - optional
    entry = table["command"].split()[1]
    done = installed.supervisor.cli(
        "env", "detect", entry, "--app-dir", str(installed.folder / table["dir"]), "--seconds", "60", "--json"
    )
    found = json.loads(done.stdout)
    assert found["complete"], found["why"]
    assert {one["name"] for one in found["required"]} == {f"{n}_FILE" if n in in_files else n for n in required}
    assert {one["name"] for one in found["optional"]} == optional


def test_missing_variables_of_two_apps_are_told_at_once_before_anything_starts() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    try:
        supervisor = Workspace.make(folder).supervisor
        supervisor.environ = {"ADMIN_EMAIL": "nobody"}
        supervisor.start()
        assert supervisor.wait() == 78
        told = (
            "cannot start the apps: variables that they need are missing or wrong\n"
            "  - app 'auth': INVITE_CODE is missing\n"
            "  - app 'admin-auth': ADMIN_EMAIL is not an e-mail address\n"
            "  set them (each value is asked for), or give them in the container's environment, then start again:\n"
            "    supervisor secrets set auth INVITE_CODE\n"
            "    supervisor secrets set admin-auth ADMIN_EMAIL"
        )
        assert told in supervisor.log() or json.dumps(told)[1:-1] in supervisor.log()
        assert supervisor.events("service.state") == supervisor.events("app.generation") == []
        assert left_behind(supervisor.state) == []
        check = supervisor.cli("env", "check", *supervisor.arguments)
        assert (check.returncode, check.stderr) == (78, f"supervisor: {told}\n")
    finally:
        shutil.rmtree(folder)
