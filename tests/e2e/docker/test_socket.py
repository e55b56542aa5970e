"""The documented line with a mounted socket: what it survives, what runs on without it, and who reaches what."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.docker.conftest import Measured
from tests.e2e.docker.documented import Documented, booted, booted_again, standing, survive
from tests.e2e.docker.stack import APP_PORT, DATA_SERVICES, Kind, Stack
from tests.e2e.harness import wait_until

pytestmark = pytest.mark.engine
_INSIDE = {"postgres": 5432, "redis": 6379}


def addresses(stack: Stack, container: str) -> Iterator[str]:
    """Of a task's container on the networks it asked for.

    Not that on the bridge by which Swarm lets it out: keeping bridges apart is the engine's own work, on its host, and
    engines were seen to lose those rules.
    """
    networks = json.loads(stack.docker("inspect", container))[0]["NetworkSettings"]["Networks"]
    yield from (network["IPAddress"] for network in networks.values())


class TestSocket(Documented):
    kind = Kind.SOCKET

    def test_an_unchanged_restart_leaves_all_services_alone(self, stack: Stack, measured: Measured) -> None:
        before, tasks = standing(stack), stack.tasks()
        survive(stack, measured, lambda: stack.share.engine.run("restart", stack.container), booted_again(stack))
        assert stack.tasks() == tasks
        assert standing(stack) == before

    def test_a_changed_setting_is_in_force_when_the_boot_is_through(self, stack: Stack, measured: Measured) -> None:
        before = standing(stack)

        def change() -> None:
            stack.remove()
            stack.environ["SUPERVISOR_REDIS_MEMORY_MIB"] = "256"
            stack.run()

        survive(stack, measured, change, booted(stack))
        after = standing(stack)
        assert {name for name in before if before[name] != after[name]} == {"redis"}
        assert stack.events("supervisor.state", state="degraded") == [], "what was proved was not what is there now"

    def test_a_restart_of_the_engine_is_survived(self, stack: Stack, measured: Measured) -> None:
        if not stack.share.engine.private:
            pytest.skip("the engine is not the tests' own")
        survive(stack, measured, stack.share.engine.restart, booted_again(stack))

    def test_docker_stop_leaves_the_data_services_running(self, stack: Stack, measured: Measured) -> None:
        before = standing(stack)

        def stop_and_start() -> None:
            stack.share.engine.run("stop", stack.container)
            assert stack.state["ExitCode"] == 0, stack.story()
            now = stack.containers()
            assert {name: now[name] for name in DATA_SERVICES} == {name: before[name] for name in DATA_SERVICES}
            stack.share.engine.run("start", stack.container)

        survive(stack, measured, stop_and_start, booted_again(stack))
        assert {name: standing(stack)[name] for name in DATA_SERVICES} == {name: before[name] for name in DATA_SERVICES}

    def test_a_postgres_that_floods_is_cut_counted_and_told_while_status_answers(self, stack: Stack) -> None:
        sql = "do $$ begin for i in 1..60000 loop raise log 'flood %', i; end loop; raise log 'the end'; end $$"
        login = ("-U", stack.name, "-d", stack.name)
        stack.docker("exec", stack.containers()["postgres"], "psql", "-XAtqc", sql, *login)
        assert json.loads(stack.inside("supervisor", "status", "--json"))["state"] == "running"
        told = stack.wait_event("log.dropped", source="postgres", limit=30)
        assert told["count"] > 1000
        assert "postgres printed faster than 10000 lines" in told["msg"]
        wait_until("its last words are there", lambda: "the end" in stack.output("postgres"), limit=30)
        assert stack.output("postgres").count("LOG:  flood") < 50_000

    def test_postgres_and_redis_are_reached_by_nobody_outside(self, stack: Stack) -> None:
        other = stack.share.network("other", "--driver", "overlay", "--attachable")
        containers = stack.containers()
        targets = [
            f"{address}:{port}"
            for service, port in _INSIDE.items()
            for address in addresses(stack, containers[service])
        ]
        for service in _INSIDE:
            published = stack.docker("service", "inspect", "--format", "{{json .Endpoint.Ports}}", stack.thing(service))
            assert published == "null"
        assert len(targets) == 2
        app = f"{stack.networks['bridge']}:{APP_PORT}"
        assert stack.opens(*targets, app) == [False] * 2 + [True], "from a container beside it"
        assert stack.opens(*targets, network=other) == [False] * 2, "from a container on another overlay"
        by_name = [f"{stack.thing(service)}:{port}" for service, port in _INSIDE.items()]
        assert stack.opens(*by_name, network=stack.thing("network")) == [True] * 2, "on its own network"

    def test_a_second_supervisor_of_the_stack_is_refused_and_the_first_goes_on(self, stack: Stack) -> None:
        before = standing(stack)
        second = Stack(stack.share, Kind.SOCKET, word="second")
        second.run()
        try:
            assert second.wait_end() == 78
            error = second.events("error")[-1]["msg"]
            assert "cannot run a second supervisor" in error
            assert stack.container in error
            assert second.events("service.state") == []
        finally:
            second.remove()
        assert stack.is_whole
        assert standing(stack) == before

    def test_another_stack_shares_the_engine(self, stack: Stack) -> None:
        before = standing(stack)
        stack.add_note("of the first")
        other = Stack(stack.share, Kind.SOCKET, word="beside", stack=f"{stack.name}-b")
        try:
            other.boot()
            other.add_note("of the other")
            assert (other.notes(), other.notes(other.traefik_url)) == (["of the other"], ["of the other"])
            assert "of the other" not in stack.notes()
        finally:
            other.end()
        assert stack.is_whole
        assert standing(stack) == before
