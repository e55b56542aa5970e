"""The start order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.errors import ConfigurationError
from supervisor.probe.verdict import Verdict, good
from supervisor.services.plan import app_share, find_cycle, levels, share_budget
from supervisor.services.spec import ServiceSpec


async def always_good() -> Verdict:
    return good()


def spec(name: str, requires: tuple[str, ...] = (), wants: tuple[str, ...] = ()) -> ServiceSpec:
    return ServiceSpec(name=name, probe=always_good, requires=requires, wants=wants)


def test_independent_services_share_the_first_level() -> None:
    assert levels([spec("redis"), spec("postgres"), spec("traefik")]) == [["postgres", "redis", "traefik"]]


def test_a_service_comes_after_all_it_waits_for() -> None:
    order = levels([spec("api", ("postgres",), ("cache",)), spec("postgres"), spec("cache", wants=("postgres",))])
    assert order == [["postgres"], ["cache"], ["api"]]


def test_a_cycle_is_named_with_its_path() -> None:
    with pytest.raises(ConfigurationError, match=r"a -> b -> c -> a"):
        levels([spec("a", ("b",)), spec("b", wants=("c",)), spec("c", ("a",)), spec("free")])


def test_a_cycle_behind_an_innocent_service_is_found() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]


def test_an_edge_to_a_missing_service_is_an_error_naming_both() -> None:
    with pytest.raises(ConfigurationError, match="'api' waits for 'mongo', which is not started"):
        levels([spec("api", ("mongo",))])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_every_plan_is_a_topological_order_or_a_cycle_error(edges: list[tuple[int, int]]) -> None:
    specs = [spec(str(n), tuple(str(b) for a, b in edges if a == n)) for n in range(10)]
    try:
        order = levels(specs)
    except ConfigurationError:
        assert any(True for _ in edges)
        return
    place = {name: index for index, level in enumerate(order) for name in level}
    assert len(place) == 10
    assert all(place[str(b)] < place[str(a)] for a, b in edges)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=6), st.floats(0.5, 100))
def test_shares_of_a_budget_never_exceed_it_nor_what_was_wanted(wanted: list[float], total: float) -> None:
    shares = share_budget(wanted, total)
    assert sum(shares) <= max(total, sum(wanted)) + 1e-6
    assert all(share <= want + 1e-9 for share, want in zip(shares, wanted, strict=True))
    if sum(wanted) > total:
        assert sum(shares) == pytest.approx(total)


@given(st.floats(1, 100), st.floats(0.1, 100), st.floats(0, 200))
def test_the_app_gets_what_it_wants_or_at_least_three_fifths(total: float, wanted: float, services: float) -> None:
    share = app_share(total, wanted, services)
    assert share == pytest.approx(min(wanted, max(total - services, 0.6 * total)))
    assert 0 < share <= total


def test_as_pid_1_the_app_has_5_seconds_beside_a_whole_stack() -> None:
    assert app_share(8.5, 10, 60) == pytest.approx(5.1)
