"""When an ended process is started again: properties of the decision, and the cases people rely on."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from supervisor.process.restart import Again, Done, End, GiveUp, RestartMode, RestartPolicy, decide, forget_old

policies = st.builds(
    RestartPolicy,
    mode=st.sampled_from(RestartMode),
    base_seconds=st.floats(0.01, 10),
    factor=st.floats(1, 10),
    cap_seconds=st.floats(0.01, 300),
    jitter=st.floats(0, 0.5),
    limit=st.integers(0, 20),
    window_seconds=st.floats(1, 3600),
)
ends_now = st.lists(
    st.builds(End, at=st.floats(0, 1000), clean=st.booleans(), was_healthy=st.booleans()), min_size=1
).map(lambda ends: sorted(ends, key=lambda end: end.at))
uniform = st.floats(0, 1).map(lambda share: lambda low, high: low + share * (high - low))


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def crash(at: float, *, was_healthy: bool = False) -> End:
    return End(at=at, clean=False, was_healthy=was_healthy)


@given(policies, ends_now, uniform)
def test_delay_stays_within_its_bounds(policy: RestartPolicy, ends: list[End], draw: object) -> None:
    assert callable(draw)
    step = decide(policy, ends, ends[-1].at, draw)
    if isinstance(step, Again):
        assert 0 <= step.delay_seconds <= policy.cap_seconds
        if ends[-1].was_healthy:
            assert step.delay_seconds == 0


@given(policies, ends_now)
def test_clean_exit_is_never_restarted_under_on_failure(policy: RestartPolicy, ends: list[End]) -> None:
    assume(policy.mode is RestartMode.ON_FAILURE)
    clean = End(at=ends[-1].at, clean=True, was_healthy=True)
    assert decide(policy, [*ends, clean], clean.at) == Done()


@given(policies, ends_now)
def test_nothing_is_restarted_under_no(policy: RestartPolicy, ends: list[End]) -> None:
    assume(policy.mode is RestartMode.NO)
    assert not isinstance(decide(policy, ends, ends[-1].at), Again)


@given(policies, uniform)
def test_crash_loop_is_given_up_within_the_limit_where_the_policy_says_it_can_be(
    policy: RestartPolicy, draw: object
) -> None:
    assert callable(draw)
    assume(policy.limit and policy.mode is not RestartMode.NO and policy.unreachable_limit() is None)
    now, ends = 0.0, [crash(0.0)]
    for _ in range(policy.limit):
        step = decide(policy, ends, now, draw)
        assert isinstance(step, Again), "given up before the limit"
        now += step.delay_seconds
        ends = forget_old(policy, [*ends, crash(now)], now)
    assert isinstance(decide(policy, ends, now, draw), GiveUp)


@given(policies, st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=400))
def test_list_of_ends_stays_bounded_and_forgetting_changes_no_decision(
    policy: RestartPolicy, runs: list[tuple[float, bool]]
) -> None:
    now = 0.0
    kept: list[End] = []
    everything: list[End] = []
    for lasted, healthy in [(0.0, False), *runs]:
        now += lasted
        everything.append(crash(now, was_healthy=healthy))
        kept = forget_old(policy, [*kept, everything[-1]], now)
        assert len(kept) <= max(policy.limit, 64) + 1
        full, short = decide(policy, everything, now, middle), decide(policy, kept, now, middle)
        if isinstance(full, Again) and len(kept) <= 64:
            assert full == short
        else:
            assert type(full) is type(short)


def test_delays_double_up_to_the_cap() -> None:
    policy = RestartPolicy(limit=0)
    ends = [crash(0.0, was_healthy=True)]
    delays = []
    for number in range(9):
        step = decide(policy, ends, 0.0, middle)
        assert isinstance(step, Again)
        delays.append(step.delay_seconds)
        ends.append(crash(float(number)))
    assert delays == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_backoff_stays_at_the_cap_for_days_when_nothing_is_ever_given_up() -> None:
    policy = RestartPolicy(limit=0)
    now, ends, delays = 0.0, [crash(0.0)], []
    for _ in range(500):
        step = decide(policy, ends, now, middle)
        assert isinstance(step, Again)
        delays.append(step.delay_seconds)
        now += step.delay_seconds
        ends = forget_old(policy, [*ends, crash(now)], now)
    assert set(delays[10:]) == {30.0}


def test_thousand_quick_ends_leave_a_short_list() -> None:
    ends: list[End] = []
    for _ in range(1000):
        ends = forget_old(RestartPolicy(limit=0), [*ends, crash(0.0)], 0.0)
    assert len(ends) == 65


def test_default_limit_can_be_reached() -> None:
    assert RestartPolicy().unreachable_limit() is None


@pytest.mark.parametrize(
    "policy", [RestartPolicy(limit=20, window_seconds=120), RestartPolicy(limit=5, window_seconds=16)]
)
def test_limit_that_backoff_outruns_is_reported_with_the_mend(policy: RestartPolicy) -> None:
    assert "raise the window above" in (policy.unreachable_limit() or "")


def test_ends_outside_the_window_do_not_count() -> None:
    policy = RestartPolicy(limit=2, window_seconds=10)
    assert isinstance(decide(policy, [crash(0), crash(1), crash(2)], 2), GiveUp)
    assert isinstance(decide(policy, [crash(0), crash(1), crash(12)], 12), Again)
