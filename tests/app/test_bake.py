"""Whether a new generation answers worse: found within two readings, and hardly ever by chance."""

from __future__ import annotations

import math
import random
import socket
from collections.abc import Iterator

import pytest

from supervisor.app import bake
from supervisor.app.bake import Bake, is_worse
from supervisor.app.front.model import Place, Traffic
from supervisor.app.verdict import why_worse

READ_SECONDS = 0.05
BAKE_SECONDS = 5.0
CLEAN = Traffic(answered=60_000)


def readings(rate: float, until: float, bad_from: float) -> Iterator[tuple[float, Traffic]]:
    """What is read every 50 ms of a generation that answers nothing but 500 from `bad_from` on."""
    for step in range(1, round(until / READ_SECONDS) + 1):
        now = step * READ_SECONDS
        yield now, Traffic(answered=int(rate * now), failed=int(rate * max(0.0, now - bad_from)))


def first_alarm(judge: Bake, seen: Iterator[tuple[float, Traffic]]) -> tuple[float, str]:
    for now, traffic in seen:
        if why := judge.judge(now, traffic):
            return now, why
    return math.inf, ""


@pytest.mark.parametrize("rate", [100, 1500])
@pytest.mark.parametrize("baseline", [CLEAN, Traffic(answered=60_000, failed=60)])
def test_a_generation_that_turns_bad_after_three_seconds_is_seen_within_two_readings(
    rate: float, baseline: Traffic
) -> None:
    at, _ = first_alarm(Bake(baseline), readings(rate, 5.0, bad_from=3.0))
    assert at - 3.0 <= 2 * READ_SECONDS + 1e-9


def test_a_generation_that_turns_bad_is_seen_in_a_quarter_of_a_second_beside_one_in_a_hundred() -> None:
    at, _ = first_alarm(Bake(Traffic(answered=6_000, failed=60)), readings(100, 5.0, bad_from=3.0))
    assert at - 3.0 <= 0.25


def test_a_bad_generation_with_little_traffic_is_seen_at_its_third_answer() -> None:
    at, why = first_alarm(Bake(Traffic(answered=50)), readings(5, 5.0, bad_from=0.0))
    assert at == pytest.approx(0.6)
    assert why.startswith("3 of 3 requests failed (100 %: 3 answers 5xx) in the last second; ")


def test_a_bad_generation_after_one_that_answered_nothing_is_seen_at_its_fourth_answer() -> None:
    at, why = first_alarm(Bake(Traffic()), readings(5, 5.0, bad_from=0.0))
    assert at == pytest.approx(0.8)
    assert why.endswith("; the generation before had answered none")


def test_slow_failures_are_seen_since_the_switch() -> None:
    """One of four fails, at one request a second: never three in one second."""
    seen = ((float(now), Traffic(answered=now, failed=now // 4)) for now in range(1, 61))
    at, why = first_alarm(Bake(CLEAN), seen)
    assert at <= 20
    assert " since the switch; " in why


def test_lost_connections_count_as_failures_and_are_told_apart() -> None:
    why = Bake(Traffic(answered=990, failed=8, unreached=10)).judge(0.05, Traffic(answered=90, failed=30, unreached=10))
    assert why == (
        "40 of 100 requests failed (40 %: 30 answers 5xx, 10 without an answer) in the last second; "
        "of the generation before 18 of 1000 (1.8 %)"
    )


@pytest.mark.parametrize("errors", [1, 3, 20])
def test_fewer_bad_answers_than_asked_for_are_no_reason(errors: int) -> None:
    assert not is_worse(Traffic(answered=errors - 1, failed=errors - 1), CLEAN, errors=errors)
    assert is_worse(Traffic(answered=max(errors, 3), failed=max(errors, 3)), CLEAN, errors=errors)


def test_twice_the_old_share_and_one_in_a_hundred_are_allowed() -> None:
    old = Traffic(answered=100_000, failed=5_000)
    assert not is_worse(Traffic(answered=100_000, failed=11_000), old)
    assert is_worse(Traffic(answered=100_000, failed=11_100), old)


def test_after_a_generation_that_only_fails_nothing_is_worse() -> None:
    assert not is_worse(Traffic(answered=1000, failed=1000), Traffic(answered=1000, failed=1000))


def test_a_failure_long_ago_is_not_in_the_last_second() -> None:
    judge = Bake(CLEAN, errors=5)
    for step in range(1, 400):
        now = step * READ_SECONDS
        failed = 4 + (step > 390)  # four at the start, one later
        assert judge.judge(now, Traffic(answered=step * 75, failed=failed)) == ""


@pytest.mark.parametrize("step_seconds", [0.001, 0.05])
def test_what_is_remembered_is_bounded(step_seconds: float) -> None:
    judge = Bake(CLEAN)
    for step in range(20_000):
        judge.judge(step * step_seconds, Traffic(answered=step))
    assert len(judge._readings) <= 52


def test_counts_that_start_again_are_a_new_beginning() -> None:
    judge = Bake(CLEAN)
    for at, answered in ((0.0, 0), (0.5, 1000), (1.5, 2000)):
        assert judge.judge(at, Traffic(answered=answered)) == ""
    assert judge.judge(1.55, Traffic(answered=3, failed=2)) == ""
    why = judge.judge(1.60, Traffic(answered=6, failed=5))
    assert why.startswith("5 of 6 requests failed (83.3 %: 5 answers 5xx) in the last second; ")


def test_a_canary_is_compared_with_what_serves_beside_it_at_the_same_time() -> None:
    """The database is away: the old one, with a clean past, fails as often, so nothing is held against the new one."""
    beside = [Traffic(answered=100_000 + n * 95, failed=n * 45) for n in range(100)]
    canary = [Traffic(answered=n * 5, failed=n * 2) for n in range(100)]
    judge, blind = Bake(CLEAN), Bake(CLEAN)
    said = [judge.judge(n * READ_SECONDS, canary[n], beside[n]) for n in range(100)]
    assert not any(said)
    assert any(blind.judge(n * READ_SECONDS, canary[n]) for n in range(100))


def test_a_bad_canary_is_seen_by_its_share_of_the_traffic() -> None:
    judge = Bake(Traffic())
    for n in range(100):
        beside = Traffic(answered=100_000 + n * 95)
        if why := judge.judge(n * READ_SECONDS, Traffic(answered=n * 5, failed=n * 5), beside):
            assert n <= 2
            assert f"of the generation before 0 of {n * 95} (0 %)" in why
            return
    raise AssertionError("a canary that only fails was not seen")


def bad_ones(rng: random.Random, count: int, bad_share: float) -> list[int]:
    """Which of `count` requests fail, when each does with `bad_share`; by the gaps, so in the time of the bad ones."""
    found: list[int] = []
    at = -1
    while bad_share > 0:
        at += 1 + int(math.log(1 - rng.random()) / math.log(1 - bad_share))
        if at >= count:
            break
        found.append(at)
    return found


def is_false_alarm(rng: random.Random, rate: float, bad_share: float) -> bool:
    """One bake of a generation that fails as often as the one before, of which the last 10 s are known."""
    known = round(rate * 10)
    judge = Bake(Traffic(answered=known, failed=len(bad_ones(rng, known, bad_share))))
    failing = bad_ones(rng, round(rate * BAKE_SECONDS), bad_share)
    failed = 0
    for step in range(1, round(BAKE_SECONDS / READ_SECONDS) + 1):
        answered = int(rate * step * READ_SECONDS)
        while failed < len(failing) and failing[failed] < answered:
            failed += 1
        if judge.judge(step * READ_SECONDS, Traffic(answered=answered, failed=failed)):
            return True
    return False


def false_alarms(rate: float, bad_share: float, bakes: int) -> int:
    rng = random.Random(f"{rate}/{bad_share}")
    return sum(is_false_alarm(rng, rate, bad_share) for _ in range(bakes))


@pytest.mark.parametrize("rate", [5, 100, 1500])
@pytest.mark.parametrize("bad_share", [0.0, 0.001, 0.01, 0.05])
def test_equal_shares_are_hardly_ever_called_worse(rate: float, bad_share: float) -> None:
    """The short form; the bound of one in a thousand is shown by the long one."""
    assert false_alarms(rate, bad_share, 200) == 0


@pytest.mark.soak
@pytest.mark.parametrize("rate", [5, 100, 1500])
@pytest.mark.parametrize("bad_share", [0.001, 0.01, 0.05])
def test_equal_shares_are_called_worse_less_than_once_in_a_thousand_bakes(rate: float, bad_share: float) -> None:
    assert false_alarms(rate, bad_share, 5_000) < 5


def test_shares_alone_would_give_false_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the evidence is for, and that the simulation can see a false alarm."""
    monkeypatch.setattr(bake, "_EVIDENCE", 0.0)
    assert false_alarms(100, 0.01, 200) > 40


def test_what_is_forgiven_does_not_count_and_what_comes_after_does() -> None:
    judge = Bake(CLEAN)
    assert judge.judge(0.05, Traffic(answered=1, unreached=9)).startswith("9 of 10 requests failed")
    judge.forgive(9)
    assert judge.judge(0.05, Traffic(answered=1, unreached=9)) == ""
    assert judge.judge(0.10, Traffic(answered=50, unreached=10)) == "", "one more is not yet enough"
    assert judge.judge(0.15, Traffic(answered=50, unreached=19)).startswith("10 of 60 requests failed")


def test_lost_answers_are_not_forgiven_with_tries_that_made_no_connection() -> None:
    judge = Bake(CLEAN)
    assert judge.judge(0.05, Traffic(answered=1, unreached=12, lost=6))
    judge.forgive(6)
    assert judge.judge(0.05, Traffic(answered=1, unreached=12, lost=6)).startswith("6 of 7 requests failed")


def _listening(takes: bool) -> tuple[socket.socket, Place]:
    held = socket.create_server(("127.0.0.1", 0)) if takes else socket.socket()
    if not takes:
        held.bind(("127.0.0.1", 0))
    return held, Place("line", "127.0.0.1", held.getsockname()[1])


@pytest.mark.anyio
@pytest.mark.parametrize(("takes", "why"), [(True, ""), (False, "9 of 10 requests failed")])
async def test_a_generation_is_asked_itself_whether_it_refuses_connections(takes: bool, why: str) -> None:
    held, place = _listening(takes)
    with held:
        assert (await why_worse(Bake(CLEAN), place, Traffic(answered=1, unreached=9))).startswith(why)
        assert bool(await why_worse(Bake(CLEAN), place, Traffic(answered=1, unreached=9))) is not takes
        assert await why_worse(Bake(CLEAN), place, Traffic(answered=10, failed=9)), "5xx needs no other word"
