"""How far the unpacking is."""

from __future__ import annotations

import pytest

from supervisor.rollout.unpacking import rest_seconds


@pytest.mark.parametrize(
    ("elapsed", "done", "total", "rest"), [(2, 25, 100, 6.0), (2, 100, 100, 0.0), (2, 120, 100, 0.0), (1, 0, 100, None)]
)
def test_the_rest_takes_as_long_as_at_the_speed_of_until_now(
    elapsed: float, done: int, total: int, rest: float | None
) -> None:
    assert rest_seconds(elapsed, done, total) == rest
