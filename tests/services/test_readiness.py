"""Proving readiness, on a clock that jumps: an hour's wait takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from supervisor.probe.verdict import Probe, Verdict, fatal, good, waiting
from supervisor.services.readiness import Limits, ProbeWait, prove

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Thing:
    """A subject whose incarnation the test sets."""

    def __init__(self) -> None:
        self.incarnation: str | None = "1"
        self.stranger = ""
        self.sign = anyio.Event()

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        return self.stranger

    def sign_mark(self) -> int:
        return 0

    async def wait_sign(self, mark: int) -> None:
        await self.sign.wait()


def answers(*verdicts: Verdict, then: Verdict | None = None) -> tuple[Probe, list[float]]:
    """A probe that gives these in turn, and the times it was asked at."""
    times: list[float] = []
    left = list(verdicts)

    async def probe() -> Verdict:
        times.append(anyio.current_time())
        return left.pop(0) if left else (then or verdicts[-1])

    return probe, times


def becomes_good_at(seconds: float) -> tuple[Probe, Callable[[], float]]:
    start = anyio.current_time()

    async def probe() -> Verdict:
        return good() if anyio.current_time() - start >= seconds else waiting("booting")

    return probe, lambda: anyio.current_time() - start


async def test_two_good_answers_in_a_row_prove_it_20_ms_apart() -> None:
    probe, times = answers(waiting("no"), good())
    proof = await prove(probe, Limits(timeout_seconds=5))
    assert proof.proved
    assert proof.attempts == 3
    assert times[2] - times[1] == pytest.approx(0.02)


async def test_a_single_good_answer_proves_nothing() -> None:
    probe, _ = answers(good(), waiting("gone again"), good(), waiting("gone again"), then=waiting("dead"))
    proof = await prove(probe, Limits(timeout_seconds=1))
    assert not proof.proved
    assert proof.verdict.detail == "dead"


async def test_a_restart_between_two_good_answers_proves_nothing() -> None:
    thing = Thing()
    count = 0

    async def probe() -> Verdict:
        nonlocal count
        count += 1
        thing.incarnation = str(count)
        return good()

    proof = await prove(probe, Limits(timeout_seconds=3), subject=thing)
    assert not proof.proved
    assert "restarted" in proof.verdict.detail


async def test_a_thing_that_restarts_after_each_good_answer_is_not_probed_for_ever() -> None:
    thing = Thing()
    count = 0

    async def probe() -> Verdict:
        return good()

    def next_incarnation(verdict: Verdict) -> None:
        nonlocal count
        count += 1
        thing.incarnation = f"again {count}"

    with anyio.fail_after(60):
        proof = await prove(probe, Limits(timeout_seconds=3), subject=thing, on_verdict=next_incarnation)
    assert not proof.proved


async def test_an_answer_of_a_stranger_proves_nothing() -> None:
    thing = Thing()
    thing.stranger = "port 5432 belongs to pid 7"
    probe, _ = answers(good())
    proof = await prove(probe, Limits(timeout_seconds=1), subject=thing)
    assert not proof.proved
    assert proof.verdict.detail == "port 5432 belongs to pid 7"


async def test_a_fatal_answer_ends_at_once() -> None:
    probe, times = answers(waiting("no"), fatal("wrong password"), good())
    proof = await prove(probe, Limits(timeout_seconds=60))
    assert not proof.proved
    assert proof.verdict.detail == "wrong password"
    assert len(times) == 2


async def test_the_deadline_counts_and_moves_while_it_recovers() -> None:
    start = anyio.current_time()

    async def recovering() -> Verdict:
        elapsed = anyio.current_time() - start
        return good() if elapsed > 40 else waiting("starting up", recovering=True)

    proof = await prove(recovering, Limits(timeout_seconds=10, recovery_seconds=100))
    assert proof.proved
    assert 40 < proof.elapsed_seconds < 41
    proof = await prove(answers(waiting("dead"))[0], Limits(timeout_seconds=10, recovery_seconds=100))
    assert not proof.proved
    assert 10 <= proof.elapsed_seconds < 10.2


async def test_a_probe_that_hangs_is_cut_off_at_the_deadline() -> None:
    async def hangs() -> Verdict:
        await anyio.sleep_forever()
        return good()

    with anyio.fail_after(20):
        proof = await prove(hangs, Limits(timeout_seconds=2))
    assert not proof.proved


async def test_retries_bound_the_probes() -> None:
    probe, times = answers(waiting("no"))
    proof = await prove(probe, Limits(timeout_seconds=60, retries=4))
    assert not proof.proved
    assert len(times) == 4


async def test_a_sign_of_the_subject_brings_the_next_probe_forward() -> None:
    thing = Thing()
    start = anyio.current_time()

    async def probe() -> Verdict:
        return good() if thing.sign.is_set() else waiting("no")

    async def give_sign() -> None:
        await anyio.sleep(3000)
        thing.sign.set()

    async with anyio.create_task_group() as group:
        group.start_soon(give_sign)
        proof = await prove(probe, Limits(timeout_seconds=9000), subject=thing)
    assert proof.proved
    assert anyio.current_time() - start == pytest.approx(3000.02, abs=0.03)


async def test_a_chatty_subject_makes_no_busy_loop() -> None:
    thing = Thing()
    thing.sign.set()
    probe, times = answers(waiting("no"))
    await prove(probe, Limits(timeout_seconds=1), subject=thing)
    assert len(times) <= 101


@pytest.mark.parametrize("truth", [0.01, 0.4, 1.9, 5.0, 59.0])
async def test_ready_is_said_at_most_100_ms_after_the_truth(truth: float) -> None:
    probe, elapsed = becomes_good_at(truth)
    proof = await prove(probe, Limits(timeout_seconds=100))
    assert proof.proved
    assert elapsed() - truth <= 0.1


async def test_the_schedule_is_25_ms_then_75_ms_then_exponential_to_2_s() -> None:
    wait = ProbeWait()
    assert wait.next(0) == 0.025
    assert wait.next(1.99) == 0.025
    assert wait.next(2.0) == 0.075
    assert wait.next(59.9) == 0.075
    tail = [wait.next(60.0 + n) for n in range(12)]
    assert tail[0] < 0.3
    assert all(0 < pause <= 2.0 for pause in tail)
    assert tail[-1] >= 1.9
