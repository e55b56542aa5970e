"""Several apps in one container, in both modes: each has its own place in the engine's Postgres and Redis."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from tests.e2e.docker.conftest import Keeper
from tests.e2e.docker.several.stack import SeveralStack
from tests.e2e.docker.stack import Kind, fetch
from tests.e2e.harness import wait_until
from tests.engine_rig.places import EngineRigError

pytestmark = pytest.mark.engine


def answers(stack: SeveralStack, words: str) -> bool:
    """Whether the app can use Redis; one that is not there yet answers with an error of the app's."""
    with suppress(EngineRigError):
        return stack.ask("api", "/redis", words) == {"answer": "True"}
    return False


class SeveralApps:
    """Tests over one stack that they share."""

    kind: Kind

    @pytest.fixture
    def stack(self, several_keeper: Keeper[SeveralStack]) -> SeveralStack:
        return several_keeper.whole(self.kind)

    def test_each_has_its_own_tables_and_is_refused_the_others(self, stack: SeveralStack) -> None:
        roles = {app: stack.ask(app, "/sql", "SELECT current_user")["rows"] for app in ("api", "auth")}
        assert roles == {app: [[f"{stack.name}_{app}"]] for app in ("api", "auth")}
        for app, other in (("api", "auth"), ("auth", "api")):
            assert stack.ask(app, "/sql", f"INSERT INTO notes (body) VALUES ('{app}') RETURNING body")["rows"] == [
                [app]
            ]
            for forbidden in (
                f"SELECT * FROM {other}.notes",
                f"DELETE FROM {other}.notes",
                "CREATE TABLE public.mine (id int)",
                f"CREATE TABLE {other}.mine (id int)",
                "SELECT pg_read_file('/etc/passwd')",
            ):
                assert stack.ask(app, "/sql", forbidden) == {"error": "42501"}, forbidden

    def test_each_has_its_own_keys_and_is_refused_the_others(self, stack: SeveralStack) -> None:
        for app, other in (("api", "auth"), ("auth", "api")):
            assert stack.ask(app, "/redis", f"SET {app}:note {app}") == {"answer": "True"}
            assert stack.ask(app, "/redis", f"GET {app}:note") == {"answer": app}
            for forbidden in (f"GET {other}:note", "KEYS *", "FLUSHALL", "CONFIG GET requirepass"):
                assert stack.ask(app, "/redis", forbidden) == {"error": "NoPermissionError"}, forbidden

    def test_users_of_redis_come_back_with_it(self, stack: SeveralStack) -> None:
        stack.docker("kill", stack.containers()["redis"])
        wait_until("the users of Redis are there again", lambda: answers(stack, "SET api:note z"), limit=60)
        wait_until("it says running", lambda: stack.overall == "running", limit=60)

    def test_every_password_is_changed_and_no_service_is_started_anew(self, stack: SeveralStack) -> None:
        tasks, roles = stack.tasks(), stack.ask("api", "/sql", "SELECT session_user")["rows"]
        for name in ("api/database", "api/redis", "postgres", "redis"):
            stack.inside("supervisor", "secrets", "rotate", name)
            assert stack.ask("api", "/redis", "SET api:note x") == {"answer": "True"}, name
        assert stack.ask("api", "/sql", "SELECT session_user")["rows"] != roles, "it has another login"
        assert stack.ask("auth", "/sql", "SELECT 1")["rows"] == [["1"]]
        assert stack.tasks() == tasks
        stack.docker("kill", stack.containers()["redis"])
        wait_until("Redis is told the password in use", lambda: answers(stack, "SET api:note y"), limit=60)
        wait_until("it says running", lambda: stack.overall == "running", limit=60)

    def test_no_password_of_theirs_is_in_log_or_inspection(self, stack: SeveralStack) -> None:
        script = "find /var/lib/supervisor/secrets -type f | while read f; do cat $f; echo; done"
        secrets = [line.partition(":")[2] or line for line in stack.inside("sh", "-c", script).split()]
        assert len(secrets) >= 8
        seen = stack.share.log(stack.container) + stack.inside("supervisor", "status", "--json")
        seen += stack.inside("supervisor", "events", "-n", "1000")
        listed = stack.docker("service", "ls", "--quiet", "--filter", f"name={stack.name}-").split()
        seen += stack.docker("service", "inspect", *listed)
        seen += stack.docker("inspect", *stack.containers().values())
        for secret in secrets:
            assert secret not in seen

    def test_requests_are_routed_by_host(self, stack: SeveralStack) -> None:
        if self.kind is Kind.SOCKET:
            assert fetch(f"{stack.traefik_url}/api/health")[0] == 404
        status = json.loads(stack.inside("supervisor", "status", "--json"))
        assert {row["app"]: bool(row["route"]) for row in status["apps"]} == {"api": True, "auth": False}


class TestSeveralAppsInDind(SeveralApps):
    kind = Kind.DIND


class TestSeveralAppsOverTheSocket(SeveralApps):
    kind = Kind.SOCKET
