"""Lines that are never changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.releases.history import History, Line
from supervisor.releases.model import ReleaseError


def line(number: int, **values: Any) -> Line:
    head: dict[str, Any] = {
        "at": "2026-11-21T12:00:00Z",
        "actor": "api uid 0",
        "action": "apply",
        "before": "baked",
        "outcome": "ok",
    }
    return Line(**{**head, "release": f"{number}.0-aaaaaaaaaaaa", "transaction": f"t{number}", **values})


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "history.jsonl")
    for number in range(3):
        made.append(line(number))
    return made


def test_lines_come_back_in_order_and_follow_each_other(history: History) -> None:
    assert history.read() == [line(0), line(1), line(2)]
    assert history.verify() == 3
    assert history.has("t1")
    assert not history.has("t9")


def test_no_history_is_an_empty_one(tmp_path: Path) -> None:
    history = History(tmp_path / "none.jsonl")
    assert (history.read(), history.verify(), history.repair()) == ([], 0, "")


@pytest.mark.parametrize("change", ["edited", "removed", "swapped", "first removed"])
def test_a_change_is_found(history: History, tmp_path: Path, change: str) -> None:
    path = tmp_path / "history.jsonl"
    lines = path.read_text().splitlines()
    if change == "edited":
        lines[1] = lines[1].replace("api uid 0", "api uid 7")
    elif change == "removed":
        del lines[1]
    elif change == "swapped":
        lines[0], lines[1] = lines[1], lines[0]
    else:
        del lines[0]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ReleaseError, match="does not follow the one before it"):
        history.verify()


@pytest.mark.parametrize("torn", [b"{", b'{"at": "2026', b"\x00\x00", b'{"at": "2026-11-21T12:00:00Z"}'])
def test_a_torn_last_line_is_cut_off_and_the_next_one_follows(history: History, tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "history.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert history.repair() == torn.decode()
    assert path.read_bytes() == whole
    history.append(line(3))
    assert history.verify() == 4


def test_a_whole_history_needs_no_repair(history: History, tmp_path: Path) -> None:
    whole = (tmp_path / "history.jsonl").read_bytes()
    assert history.repair() == ""
    assert (tmp_path / "history.jsonl").read_bytes() == whole


def test_a_reason_has_a_bound(history: History, tmp_path: Path) -> None:
    history.append(line(3, reason="x" * 100_000))
    assert len(history.read()[-1].reason) == 4000
    assert history.verify() == 4


def test_a_line_of_a_newer_version_is_read_and_a_foreign_one_left_out(history: History, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**record, "mood": "good"}) + '\n{"no": "line"}\nnot json\n[]\n')
    assert history.read() == [line(0)]


def test_it_is_for_its_owner_alone(history: History, tmp_path: Path) -> None:
    assert (tmp_path / "history.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_line_that_a_full_disk_takes_in_part_leaves_nothing_and_the_next_one_follows(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        write = os.write
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            history.append(line(3))
    history.append(line(4))
    assert history.verify() == 4
    assert history.read() == [line(0), line(1), line(2), line(4)]
