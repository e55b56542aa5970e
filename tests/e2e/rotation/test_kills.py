"""A supervisor that is killed at each step of a rotation: the next start serves, and one of the two is good."""

from __future__ import annotations

import sys

import pytest

from supervisor.services.tenancy.credential import Credential
from supervisor.services.tenancy.rotation import Step
from supervisor.store.app_secrets import AppSecrets
from tests.e2e.rotation.conftest import HERE, Stack, Started
from tests.e2e.rotation.test_rotation import postgres_takes, redis_takes

pytestmark = pytest.mark.servers

NAMES = ("api/database", "api/redis", "api/SESSION_SECRET", "postgres", "postgres-superuser", "redis")
SHORT = (
    ("api/database", Step.RECORDED),
    ("api/database", Step.OPENED),
    ("api/redis", Step.PROMOTED),
    ("api/SESSION_SECRET", Step.RECORDED),
    ("postgres", Step.OPENED),
    ("postgres-superuser", Step.OPENED),
)
"""Those that differ; the rest in the long form."""


def kill_at(made: Stack, name: str, step: Step) -> None:
    """Killed there, and started again as always."""
    supervisor = made.supervisor
    supervisor.prefix = [sys.executable, str(HERE / "kill_at.py"), step.name]
    supervisor.environ["PYTHONPATH"] = ":".join(filter(None, sys.path))
    supervisor.boot()
    before = {each: made.value(each) for each in NAMES}
    environ = made.environ()
    killed = supervisor.cli("secrets", "rotate", name)
    assert killed.returncode != 0
    assert supervisor.wait() < 0
    supervisor.prefix = []
    supervisor.boot()
    assert made.serves()
    assert made.left_pending() == []
    after, now = {each: made.value(each) for each in NAMES}, made.environ()
    assert {each for each in NAMES if before[each] != after[each]} <= {name}
    one_of_two(before[name] != after[name], environ, now)
    assert supervisor.cli("secrets", "rotate", name).returncode == 0
    assert made.serves()
    assert supervisor.stop() == 0


def one_of_two(changed: bool, before: dict[str, str], now: dict[str, str]) -> None:
    """Of two logins that differ the server takes the one that the app has."""
    for variable, takes in (("DATABASE_URL", postgres_takes), ("REDIS_URL", redis_takes)):
        assert takes(now[variable])
        if before[variable] != now[variable]:
            assert changed
            assert not takes(before[variable])


@pytest.mark.parametrize(("name", "step"), SHORT)
def test_kill_9_at_a_step_is_recovered_from(stack: Started, name: str, step: Step) -> None:
    kill_at(stack(), name, step)


def test_kill_9_before_the_one_app_has_its_own_login_is_recovered_from(stack: Started) -> None:
    """What was done by then is the record of the login; nothing of it is in the server yet."""
    made = stack(alone=True)
    record = AppSecrets(made.supervisor.state / "secrets", "app").login("database")
    record.put_current(Credential.make().text())
    made.supervisor.boot()
    assert made.serves()
    assert "//rot_app_a:" in made.environ()["DATABASE_URL"]


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_kill_9_at_each_step_is_recovered_from(stack: Started, name: str) -> None:
    made = stack()
    for step in Step:
        kill_at(made, name, step)
