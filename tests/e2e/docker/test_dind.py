"""The documented line with an engine inside: what it survives, how it stops, and who can reach its data services."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.e2e.docker.conftest import Measured
from tests.e2e.docker.documented import Documented, booted, booted_again, survive
from tests.e2e.docker.stack import APP_PORT, Kind, Stack
from tests.e2e.harness import wait_until

pytestmark = pytest.mark.engine
_SWARM_PORT = 2377


def data_ports(stack: Stack) -> list[int]:
    environ = stack.app_environ()
    urls = (urlsplit(environ[name]) for name in ("DATABASE_URL", "REDIS_URL"))
    return [url.port for url in urls if url.hostname == "127.0.0.1" and url.port is not None]


def opens_from_here(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


class TestDind(Documented):
    kind = Kind.DIND

    def test_a_killed_inner_engine_comes_back(self, stack: Stack, measured: Measured) -> None:
        pid, app = stack.dockerd, stack.app
        survive(stack, measured, lambda: stack.kill_9(pid), lambda: stack.dockerd != pid)
        assert stack.app == app, "the app has nothing to do with the engine's end"

    def test_another_address_of_the_container_is_survived(self, stack: Stack, measured: Measured) -> None:
        before = stack.address
        network = stack.share.network("elsewhere")

        def move() -> None:
            stack.remove()
            stack.options = ("--network", network)
            stack.run()

        survive(stack, measured, move, booted(stack))
        assert stack.address != before

    def test_docker_stop_ends_in_order_and_postgres_has_nothing_to_recover(
        self, stack: Stack, measured: Measured
    ) -> None:
        def stop_and_start() -> None:
            stack.share.engine.run("stop", stack.container)
            assert stack.state["ExitCode"] == 0, stack.story()
            stack.share.engine.run("start", stack.container)

        survive(stack, measured, stop_and_start, booted_again(stack))
        began = stack.events("supervisor.started")[-1]["at"]

        def shut_down() -> bool:
            return "database system was shut down at" in stack.output("postgres", after=began)

        # Its output comes by way of the engine, and may come behind its first answers.
        wait_until("Postgres said that it had been shut down", shut_down, limit=10)
        said = stack.output("postgres", after=began)
        assert not re.search("not properly shut down|automatic recovery", said)

    def test_postgres_and_redis_are_reached_by_nobody_outside(self, stack: Stack) -> None:
        ports = [*data_ports(stack), _SWARM_PORT, APP_PORT]
        expected = [False, False, False, True]
        outside = [f"{stack.address}:{port}" for port in ports]
        network = next(iter(stack.networks))
        assert stack.opens(*outside, network=network) == expected, "from a container beside it"
        assert [opens_from_here(stack.address, port) for port in ports] == expected, "from its host"
        gateway = stack.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
        within = [f"{gateway}:{port}" for port in ports]
        assert stack.opens(*within, *outside, inner=True) == expected * 2, "from a container within"
