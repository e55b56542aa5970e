from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.observe.logfiles.rotation import Keeping, live_name, rotated_at, rotated_name

_NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


def test_file_is_due_when_it_would_be_too_big_or_is_a_day_old() -> None:
    keeping = Keeping(max_bytes=100)
    assert not keeping.is_due(90, 10, _NOW, _NOW)
    assert keeping.is_due(90, 11, _NOW, _NOW)
    assert keeping.is_due(1, 1, _NOW - timedelta(hours=24), _NOW)
    assert not keeping.is_due(0, 1000, _NOW - timedelta(days=9), _NOW)


def test_rotated_files_beyond_their_number_or_age_expire_and_no_others() -> None:
    keeping = Keeping(max_days=3, count=2)
    ours = [rotated_name("app", _NOW - timedelta(days=days)) for days in range(5)]
    others = ["app.log", "app-2.log", rotated_name("app-b", _NOW - timedelta(days=99)), "notes.txt"]
    assert sorted(keeping.expired([*ours, *others], "app", _NOW)) == sorted(ours[2:])
    assert keeping.expired([ours[4]], "app", _NOW) == [ours[4]]


def test_file_and_its_gzip_count_as_one() -> None:
    names = [rotated_name("app", _NOW - timedelta(hours=hours)) for hours in range(3)]
    assert Keeping(count=2).expired([*names, f"{names[0]}.gz"], "app", _NOW) == [names[2]]


@pytest.mark.parametrize("source", ["../../etc/passwd", ".hidden", "a/b", "-rf", "app\n"])
def test_name_of_a_source_is_never_a_path(source: str) -> None:
    for name in (live_name(source), rotated_name(source, _NOW)):
        assert "/" not in name
        assert name[0] not in ".-"
        assert name.isprintable()


@given(st.text(min_size=1, max_size=30), st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_rotated_name_tells_source_and_time(source: str, at: datetime) -> None:
    name = rotated_name(source, at.replace(tzinfo=UTC))
    assert rotated_at(name, source) == rotated_at(f"{name}.gz") == at.replace(tzinfo=UTC)
    assert rotated_at(live_name(source)) is None
