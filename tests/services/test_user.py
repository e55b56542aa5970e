"""Services of the user's own: what their settings become, and one for real."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import UserService
from supervisor.probe.verdict import Answer
from supervisor.process.child import Command
from supervisor.process.restart import RestartMode
from supervisor.services.spec import Prepare, ServiceSpec
from supervisor.services.user import split_address, user_spec
from tests.services.embedded_rig import answered, open_rig

pytestmark = pytest.mark.anyio


async def no_run(command: Command) -> tuple[int, str]:
    raise AssertionError("nothing is to be run")


def made(**values: object) -> tuple[ServiceSpec, Prepare]:
    service = UserService.model_validate({"command": ["worker", "--fast"], **values})
    return user_spec("worker", service, app_dir=Path("/app"), environ={"A": "1", "B": "2"}, run=no_run)


async def test_settings_become_command_and_spec() -> None:
    spec, prepare = made(
        env={"B": "3"}, stop_signal="QUIT", timeout_seconds=5, retries=4, check_interval_seconds=0.5, stop_seconds=3,
        requires="postgres", wants="redis", restart="on-failure", optional=True,
    )  # fmt: skip
    command = await prepare()
    assert (command.argv, command.cwd) == (("worker", "--fast"), "/app")
    assert command.env == {"A": "1", "B": "3"}
    assert command.stop_signal is signal.SIGQUIT
    assert (spec.start_seconds, spec.retries, spec.check_interval_seconds, spec.stop_seconds) == (5, 4, 0.5, 3)
    assert (spec.requires, spec.wants, spec.optional) == (("postgres",), ("redis",), True)
    assert spec.restart.mode is RestartMode.ON_FAILURE


async def test_own_folder_is_used() -> None:
    _, prepare = made(cwd="/srv")
    assert (await prepare()).cwd == "/srv"


async def test_without_a_health_check_running_is_ready() -> None:
    spec, _ = made()
    assert (await spec.probe()).good
    assert spec.port is None


@pytest.mark.parametrize(
    ("check", "port"),
    [
        ({"health_http": "http://127.0.0.1:5000/health"}, 5000),
        ({"health_http": "http://worker.example/health"}, None),
        ({"health_tcp": "localhost:5001"}, 5001),
        ({"health_tcp": "[::1]:5002"}, 5002),
        ({"health_tcp": "10.0.0.1:5003"}, None),
    ],
)
def test_port_is_proved_where_the_check_is_on_this_machine(check: dict[str, str], port: int | None) -> None:
    assert made(**check)[0].port == port


@pytest.mark.parametrize("check", [{"health_http": "ftp://x"}, {"health_tcp": "x"}, {"health_tcp": "x:99999"}])
def test_unusable_check_names_service_and_key(check: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=f"'worker': {next(iter(check))}"):
        made(**check)


def test_address_is_taken_apart() -> None:
    assert split_address("x", "[::1]:80") == ("::1", 80)
    assert split_address("x", "db.example:5432") == ("db.example", 5432)


async def test_health_command_decides_and_runs_as_the_service_does() -> None:
    async with open_rig() as rig:
        flag = rig.state / "flag"
        service = UserService.model_validate(
            {"command": "worker", "cwd": str(rig.state), "health_command": "test -e flag", "env": {"PATH": "/usr/bin"}}
        )
        spec, _ = user_spec("worker", service, app_dir=Path("/app"), environ={}, run=rig.run)
        verdict = await spec.probe()
        assert verdict.answer is Answer.WAITING
        assert "status 1" in verdict.detail
        flag.touch()
        assert (await spec.probe()).good
        assert rig.commands[0].env == {"PATH": "/usr/bin"}


async def test_http_and_tcp_checks_ask_the_real_thing() -> None:
    async with open_rig() as rig:
        port = rig.ports.port("worker", 0)
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        for check in ({"health_http": f"http://127.0.0.1:{port}/"}, {"health_tcp": f"127.0.0.1:{port}"}):
            service = UserService.model_validate({"command": command, **check})
            spec, prepare = user_spec("worker", service, app_dir=rig.state, environ={}, run=rig.run)
            assert (await spec.probe()).answer is Answer.WAITING
            child = rig.spawn(await prepare())
            await answered(spec.probe, Answer.GOOD)
            await child.stop(grace_seconds=5)
