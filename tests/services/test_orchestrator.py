"""The orchestrator on fakes and a jumping clock; tests/e2e has it with real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, RejectedError, SupervisorError, UnreachableError
from supervisor.core.events import (
    Event,
    Health,
    ServiceChanged,
    ServiceGaveUp,
    ServiceHealthChanged,
    ServiceState,
)
from supervisor.probe.verdict import Verdict, fatal, waiting
from supervisor.process.restart import RestartMode, RestartPolicy
from supervisor.services.orchestrator import ServiceOptions, ServiceOrchestrator
from supervisor.services.runner import ServiceRunner
from supervisor.services.spec import ServiceSpec
from tests.services.fakes import FakeBackend, FakeServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Stack:
    """Some fake services and what was published of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.essential_failures: list[SupervisorError] = []
        self.orchestrator = ServiceOrchestrator(self.events.append, on_essential_failure=self.essential_failures.append)
        self.backends: dict[str, FakeBackend] = {}
        self.servers: dict[str, FakeServer] = {}

    def add(self, name: str, **fields: Any) -> FakeBackend:
        self.backends[name], self.servers[name] = FakeBackend(), FakeServer()
        self.backends[name].outlives = bool(fields.get("outlives"))
        self.orchestrator.add(ServiceSpec(name=name, probe=self.servers[name], **fields), self.backends[name])
        return self.backends[name]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            await group.start(self.orchestrator.run)
            self.orchestrator.launch()
            yield
            group.cancel_scope.cancel()

    async def wait_ready(self) -> None:
        await self.orchestrator.wait_ready(self.orchestrator.names)

    def states(self, name: str) -> list[ServiceState]:
        found = [event.state for event in self.events if isinstance(event, ServiceChanged) and event.service == name]
        return [state for index, state in enumerate(found) if index == 0 or state is not found[index - 1]]

    def healths(self, name: str) -> list[Health]:
        return [e.health for e in self.events if isinstance(e, ServiceHealthChanged) and e.service == name]

    def runner(self, name: str) -> ServiceRunner:
        return self.orchestrator.runner(name)


async def test_services_start_in_order_and_independent_ones_at_once() -> None:
    stack = Stack()
    stack.add("postgres")
    stack.add("redis")
    stack.add("worker", requires=("postgres",), wants=("redis",))
    stack.servers["postgres"].down()
    async with stack.running():
        await stack.orchestrator.wait_ready(["redis"])
        assert stack.backends["postgres"].starts == 1
        assert stack.backends["worker"].starts == 0
        assert stack.runner("worker").state is ServiceState.WAITING
        stack.servers["postgres"].up()
        await stack.wait_ready()
    assert stack.states("worker")[:3] == [ServiceState.WAITING, ServiceState.STARTING, ServiceState.RUNNING]


async def test_a_service_goes_on_without_one_that_it_only_wants() -> None:
    stack = Stack()
    stack.add("cache", optional=True, start_seconds=5)
    stack.add("api", wants=("cache",))
    stack.servers["cache"].down("not there")
    async with stack.running():
        results = await stack.orchestrator.wait_ready(["cache", "api"])
    outcome = {result.service: result for result in results}
    assert outcome["api"].success
    assert not outcome["cache"].success
    assert "not there" in outcome["cache"].error


async def test_a_service_fails_with_one_that_it_requires() -> None:
    stack = Stack()
    stack.add("postgres", optional=True, start_seconds=5)
    stack.add("api", requires=("postgres",))
    stack.servers["postgres"].down()
    async with stack.running():
        with pytest.raises(UnreachableError, match="requires 'postgres', which failed"):
            await stack.wait_ready()


async def test_a_failed_service_reports_probe_exit_and_last_lines() -> None:
    stack = Stack()
    backend = stack.add("postgres", restart=RestartPolicy(mode=RestartMode.ALWAYS))
    stack.servers["postgres"].down("connection refused")
    backend.says, backend.ends_with = "FATAL: no space", 1
    async with stack.running():
        with pytest.raises(UnreachableError) as caught:
            await stack.wait_ready()
    text = str(caught.value)
    assert "it ended 6 times" in text
    assert "exited with 1" in text
    assert "FATAL: no space" in text
    assert backend.starts == 6
    assert ServiceState.RUNNING not in stack.states("postgres")
    assert Health.HEALTHY not in stack.healths("postgres")


async def test_a_crash_loop_is_never_called_healthy_even_where_another_answers() -> None:
    stack = Stack()
    backend = stack.add("redis")
    backend.ends_with = 1
    async with stack.running():
        with pytest.raises(UnreachableError):
            await stack.wait_ready()
    assert Health.HEALTHY not in stack.healths("redis")


async def test_a_fatal_answer_ends_the_start_at_once_and_stops_the_service() -> None:
    stack = Stack()
    backend = stack.add("postgres", start_seconds=180)
    stack.servers["postgres"].verdict = fatal("wrong password; restore the secret")
    start = anyio.current_time()
    async with stack.running():
        with pytest.raises(UnreachableError, match="restore the secret"):
            await stack.wait_ready()
    assert anyio.current_time() - start < 1
    assert len(backend.stops) == 1


async def test_a_configuration_error_is_not_tried_again() -> None:
    stack = Stack()
    backend = stack.add("traefik")
    backend.start_error = ConfigurationError("port 80 is taken by pid 7")
    async with stack.running():
        with pytest.raises(ConfigurationError, match="pid 7"):
            await stack.wait_ready()
    assert backend.starts == 1


async def test_a_service_that_dies_is_started_again_at_once_and_then_with_backoff() -> None:
    stack = Stack()
    backend = stack.add("redis")
    async with stack.running():
        await stack.wait_ready()
        died = anyio.current_time()
        backend.die(signal=9)
        await anyio.sleep(0.1)
        assert backend.starts == 2
        assert stack.runner("redis").is_ready
        assert anyio.current_time() - died < 0.2
        backend.die(signal=9)
        await anyio.sleep(0.3)
        assert stack.runner("redis").state is ServiceState.BACKOFF
        await anyio.sleep(0.5)
        assert stack.runner("redis").is_ready
    crash = next(e for e in stack.events if isinstance(e, ServiceChanged) and e.state is ServiceState.BACKOFF)
    assert crash.signal == "SIGKILL"


async def test_a_given_up_service_is_tried_again_every_30_s_for_ever() -> None:
    stack = Stack()
    backend = stack.add("redis")
    async with stack.running():
        await stack.wait_ready()
        backend.ends_with = 1
        backend.die(code=1)
        await anyio.sleep(25)
        assert stack.runner("redis").state is ServiceState.FAILED
        starts = backend.starts
        await anyio.sleep(65)
        assert backend.starts - starts in (2, 3)
        backend.ends_with = None
        await anyio.sleep(31)
        assert stack.runner("redis").is_ready
    assert sum(isinstance(event, ServiceGaveUp) for event in stack.events) >= 2


async def test_an_essential_service_that_gives_up_after_the_boot_ends_everything_once() -> None:
    stack = Stack()
    backend = stack.add("postgres", essential=True)
    async with stack.running():
        await stack.wait_ready()
        backend.ends_with = 1
        backend.die(code=1)
        await anyio.sleep(100)
    assert len(stack.essential_failures) == 1


async def test_the_watch_publishes_unhealthy_and_healthy_again_without_a_restart() -> None:
    stack = Stack()
    backend = stack.add("postgres")
    async with stack.running():
        await stack.wait_ready()
        stack.servers["postgres"].down("too many connections")
        await anyio.sleep(31)
        assert stack.healths("postgres")[-1] is Health.UNHEALTHY
        stack.servers["postgres"].up()
        await anyio.sleep(11)
        assert stack.healths("postgres")[-1] is Health.HEALTHY
    assert backend.starts == 1


async def test_a_manual_stop_sticks_until_a_start() -> None:
    stack = Stack()
    backend = stack.add("redis")
    async with stack.running():
        await stack.wait_ready()
        await stack.runner("redis").stop()
        assert stack.runner("redis").state is ServiceState.STOPPED
        await anyio.sleep(3600)
        assert backend.starts == 1
        stack.runner("redis").start()
        await anyio.sleep(1)
        assert stack.runner("redis").is_ready
        assert backend.starts == 2


async def test_a_stop_during_the_start_during_the_backoff_and_after_giving_up_works() -> None:
    stack = Stack()
    backend = stack.add("redis")
    stack.servers["redis"].down()
    runner = stack.runner("redis")
    seen: list[ServiceState] = []
    async with stack.running():
        for seconds, ends_with in ((1, None), (0.2, 1), (60, 1)):
            backend.ends_with = ends_with
            runner.start()
            await anyio.sleep(seconds)
            seen.append(runner.state)
            await runner.stop()
            seen.append(runner.state)
    stopped = ServiceState.STOPPED
    assert seen == [ServiceState.STARTING, stopped, ServiceState.BACKOFF, stopped, ServiceState.FAILED, stopped]


async def test_a_restart_gives_the_error_of_a_start_that_failed() -> None:
    stack = Stack()
    backend = stack.add("redis", start_seconds=5)
    async with stack.running():
        await stack.wait_ready()
        await stack.runner("redis").restart()
        assert backend.starts == 2
        stack.servers["redis"].down("LOADING")
        with pytest.raises(UnreachableError, match="LOADING"):
            await stack.runner("redis").restart()


async def test_a_start_by_hand_of_a_failed_one_does_not_wait_for_the_next_try() -> None:
    stack = Stack()
    backend = stack.add("redis", optional=True)
    backend.ends_with = 1
    async with stack.running():
        await stack.wait_ready()
        assert stack.runner("redis").state is ServiceState.FAILED
        backend.ends_with = None
        stack.runner("redis").start()
        await anyio.sleep(0.2)
        assert stack.runner("redis").is_ready


async def test_stopping_goes_backwards_through_the_order_within_the_budget() -> None:
    stack = Stack()
    stack.add("postgres", stop_seconds=60)
    stack.add("api", requires=("postgres",), stop_seconds=10)
    order: list[str] = []
    for name, backend in stack.backends.items():
        backend.ignores_stop = True
        real = backend.stop

        async def noted(grace: float, name: str = name, real: Any = real) -> None:
            order.append(name)
            await real(grace)

        setattr(backend, "stop", noted)  # noqa: B010
    async with stack.running():
        await stack.wait_ready()
        start = anyio.current_time()
        await stack.orchestrator.stop_all(7)
        assert anyio.current_time() - start == pytest.approx(7, abs=0.1)
    assert order == ["api", "postgres"]
    assert stack.backends["api"].stops == [pytest.approx(1)]


async def test_a_stop_of_all_during_the_boot_starts_nothing_more() -> None:
    stack = Stack()
    stack.add("postgres")
    stack.add("api", requires=("postgres",))
    stack.servers["postgres"].down()
    async with stack.running():
        await anyio.sleep(1)
        await stack.orchestrator.stop_all(5)
        await anyio.sleep(60)
    assert stack.backends["api"].starts == 0
    assert stack.backends["postgres"].starts == 1


async def test_a_cycle_is_an_error_before_anything_starts() -> None:
    stack = Stack()
    stack.add("a", requires=("b",))
    stack.add("b", requires=("a",))
    async with anyio.create_task_group() as group:
        await group.start(stack.orchestrator.run)
        with pytest.raises(ConfigurationError, match="a -> b -> a"):
            stack.orchestrator.launch()
        group.cancel_scope.cancel()
    assert stack.backends["a"].starts == 0


async def test_an_unknown_name_is_rejected_with_the_known_ones() -> None:
    stack = Stack()
    stack.add("redis")
    with pytest.raises(RejectedError, match=r"no service 'reddis'; there are redis"):
        stack.orchestrator.runner("reddis")


def test_a_restart_limit_that_can_never_be_reached_is_refused() -> None:
    stack = Stack()
    with pytest.raises(ConfigurationError, match="could never be reached"):
        stack.add("redis", restart=RestartPolicy(limit=50, window_seconds=60))


async def test_wait_for_healthy_takes_a_users_own_coroutine() -> None:
    orchestrator = ServiceOrchestrator(lambda event: None)
    calls = 0

    async def check() -> bool:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError("refused")
        return True

    result = await orchestrator.wait_for_healthy(ServiceOptions(name="mine", health_check=check, timeout_seconds=5))
    assert result.success
    assert result.service == "mine"
    assert result.attempts == 4
    assert result.error == ""


async def test_wait_for_healthy_reports_the_last_error_at_its_timeout() -> None:
    orchestrator = ServiceOrchestrator(lambda event: None)

    async def check() -> Verdict:
        return waiting("the queue is not there")

    options = ServiceOptions(name="mine", health_check=check, timeout_seconds=3, check_interval_seconds=1)
    result = await orchestrator.wait_for_healthy(options)
    assert not result.success
    assert result.error == "the queue is not there"
    assert result.attempts == 4
    assert 3 <= result.elapsed_seconds < 3.1


async def test_wait_for_multiple_is_parallel_and_sequential_ends_at_the_first_failure() -> None:
    orchestrator = ServiceOrchestrator(lambda event: None)

    async def never() -> bool:
        return False

    async def always() -> bool:
        return True

    bad = ServiceOptions(name="bad", health_check=never, timeout_seconds=10)
    fine = ServiceOptions(name="fine", health_check=always)
    start = anyio.current_time()
    results = await orchestrator.wait_for_multiple([bad, bad, fine])
    assert anyio.current_time() - start < 11
    assert [result.success for result in results] == [False, False, True]
    results = await orchestrator.wait_for_sequential([fine, bad, fine])
    assert [result.service for result in results] == ["fine", "bad"]


@pytest.mark.parametrize("checks", [{}, {"tcp": "127.0.0.1:1", "http": "http://127.0.0.1"}])
async def test_options_want_exactly_one_check(checks: dict[str, str]) -> None:
    orchestrator = ServiceOrchestrator(lambda event: None)
    with pytest.raises(ConfigurationError, match="exactly one"):
        await orchestrator.wait_for_healthy(ServiceOptions(name="mine", **checks))  # type: ignore[arg-type]


async def test_what_hangs_for_long_enough_is_stopped_and_started_again_where_that_is_ours_to_do() -> None:
    stack = Stack()
    engine = stack.add("engine", hung_after=6)
    other = stack.add("other")
    async with stack.running():
        await stack.wait_ready()
        for name in ("engine", "other"):
            stack.servers[name].down("accepts connections but does not answer")
        await anyio.sleep(55)
        assert (engine.starts, engine.stops) == (1, [])
        await anyio.sleep(10)
        assert engine.stops == [10.0]
        stack.servers["engine"].up()
        await anyio.sleep(5)
        assert (engine.starts, other.starts) == (2, 1)
        assert stack.runner("engine").is_ready
    reasons = [
        event.reason for event in stack.events if isinstance(event, ServiceChanged) and event.service == "engine"
    ]
    assert "it hangs: accepts connections but does not answer" in reasons


async def test_what_ended_by_itself_is_not_stopped_as_the_engine_may_have_replaced_it() -> None:
    stack = Stack()
    backend = stack.add("postgres")
    async with stack.running():
        await stack.wait_ready()
        backend.die(code=1)
        backend.replaced = True
        await anyio.sleep(5)
        assert backend.starts == 2
        assert backend.stops == []


async def test_a_stop_by_hand_between_two_runs_reaches_what_the_engine_started_meanwhile() -> None:
    stack = Stack()
    backend = stack.add("postgres")
    async with stack.running():
        await stack.wait_ready()
        backend.start_error = UnreachableError("cannot get the image")
        for _ in range(2):
            backend.die(code=1)
            await anyio.sleep(0.1)
        backend.replaced = True
        assert stack.runner("postgres").state is ServiceState.BACKOFF
        await stack.runner("postgres").stop()
        assert backend.stops == [10.0]
        assert stack.states("postgres")[-2:] == [ServiceState.STOPPING, ServiceState.STOPPED]


async def test_a_stop_by_hand_after_giving_up_reaches_what_still_runs() -> None:
    stack = Stack()
    backend = stack.add("postgres")
    backend.start_error = ConfigurationError("cannot start Postgres 18 on data of Postgres 17")
    async with stack.running():
        with pytest.raises(ConfigurationError):
            await stack.wait_ready()
        await anyio.sleep(1)
        backend.replaced = True
        await stack.runner("postgres").stop()
        assert backend.stops == [10.0]


async def test_our_end_waits_for_no_stop_of_what_outlives_us() -> None:
    stack = Stack()
    slow = stack.add("postgres", outlives=True, stop_seconds=60)
    slow.ignores_stop = True
    async with stack.running():
        await stack.wait_ready()
        async with anyio.create_task_group() as group:
            group.start_soon(stack.runner("postgres").stop)
            await anyio.sleep(1)
            began = anyio.current_time()
            await stack.orchestrator.stop_all(8.5)
            assert anyio.current_time() - began < 1
            group.cancel_scope.cancel()


async def test_what_outlives_us_is_let_go_and_takes_nothing_of_the_budget() -> None:
    stack = Stack()
    kept = stack.add("postgres", outlives=True, requires=("engine",), stop_seconds=60)
    engine = stack.add("engine", stop_seconds=60)
    async with stack.running():
        await stack.wait_ready()
        await stack.orchestrator.stop_all(8.5)
    assert (kept.stops, kept.retired) == ([], [0.0])
    assert engine.stops == [8.5]
