from __future__ import annotations

import errno
import gzip
import os
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from supervisor.observe.logfiles.attic import Attic, compress
from supervisor.observe.logfiles.files import LogFiles
from supervisor.observe.logfiles.live import LiveFile
from supervisor.observe.logfiles.rotation import Keeping, rotated_at, rotated_name

_LIMIT_SECONDS = 10.0
_START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class Kept:
    """Log files of (source, line) pairs, a clock that stands, and what was told."""

    def __init__(self, folder: Path, **keeping: Any) -> None:
        self.folder = folder
        self.now = _START
        self.told: list[str] = []
        self.files: LogFiles[tuple[str, str]] = LogFiles(
            folder,
            source_of=lambda item: item[0],
            render=lambda item: f"{item[1]}\n",
            tell=self.told.append,
            keeping=Keeping(**keeping),
            clock=lambda: self.now,
        )

    def put(self, source: str, text: str) -> None:
        """And wait until it is written."""
        self.files.put((source, text), 100)
        assert self.files.flush(_LIMIT_SECONDS)

    def rotated(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if rotated_at(path.name) is not None)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def make_one(**keeping: Any) -> Kept:
        made.append(Kept(tmp_path / "logs", **keeping))
        return made[-1]

    yield make_one
    for kept in made:
        kept.files.close(_LIMIT_SECONDS)


def wait_until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + _LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.005)


def all_lines(folder: Path) -> list[str]:
    """Of every file, a file and its gzip once."""
    lines: list[str] = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.suffix == ".gz":
            lines += gzip.decompress(path.read_bytes()).decode().splitlines()
        elif not path.with_name(f"{path.name}.gz").exists():
            lines += path.read_text().splitlines()
    return lines


def test_each_source_has_a_file_that_only_its_owner_reads(make: Callable[..., Kept]) -> None:
    kept = make()
    kept.put("app", "one")
    kept.put("postgres", "two")
    kept.put("app", "three")
    assert (kept.folder / "app.log").read_text() == "one\nthree\n"
    assert (kept.folder / "postgres.log").read_text() == "two\n"
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((kept.folder / "app.log").stat().st_mode) == 0o600


def test_file_is_rotated_by_size_and_compressed_and_no_line_is_lost(make: Callable[..., Kept]) -> None:
    kept = make(max_bytes=100, count=1000)
    for number in range(100):
        kept.put("app", f"{number:019}")
    wait_until(lambda: all(path.suffix == ".gz" for path in kept.rotated()))
    assert len(kept.rotated()) == 19
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept.rotated())
    assert sorted(map(int, all_lines(kept.folder))) == list(range(100))
    assert kept.told == []


def test_file_is_rotated_by_age_also_when_it_was_begun_by_an_earlier_process(make: Callable[..., Kept]) -> None:
    folder = make().folder
    folder.mkdir()
    (folder / "app.log").write_text('{"at": "2026-03-03T05:06:06.000Z", "msg": "of yesterday"}\n')
    kept = make()
    kept.put("app", "of today")
    assert (folder / "app.log").read_text() == "of today\n"
    assert len(kept.rotated()) == 1


def test_too_many_and_too_old_files_are_removed(make: Callable[..., Kept]) -> None:
    kept = make(max_bytes=10, count=3, max_days=2)
    for number in range(20):
        kept.put("app", f"{number:09}")
        kept.now += timedelta(seconds=1)
    wait_until(lambda: len(kept.rotated()) == 3 and all(path.suffix == ".gz" for path in kept.rotated()))
    assert [gzip.decompress(path.read_bytes()) for path in kept.rotated()] == [
        b"%09d\n" % number for number in (16, 17, 18)
    ]
    kept.now += timedelta(days=3)
    kept.put("app", "much later")
    wait_until(lambda: len(kept.rotated()) == 1 and kept.rotated()[0].suffix == ".gz")


def test_file_moved_away_by_somebody_else_is_begun_anew(make: Callable[..., Kept]) -> None:
    kept = make()
    kept.put("app", "one")
    (kept.folder / "app.log").rename(kept.folder / "app.log.1")
    kept.put("app", "two")
    assert (kept.folder / "app.log").read_text() == "two\n"


def test_line_torn_by_a_power_cut_does_not_run_into_the_next(make: Callable[..., Kept]) -> None:
    kept = make()
    kept.folder.mkdir()
    (kept.folder / "app.log").write_text("whole\ntor")
    kept.put("app", "next")
    assert (kept.folder / "app.log").read_text() == "whole\ntor\nnext\n"


def test_full_disk_is_said_once_and_costs_whole_lines_only(
    make: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make()
    kept.put("app", "before")
    write, full = os.write, threading.Event()
    own = os.stat(kept.folder / "app.log").st_ino

    def fill(descriptor: int, data: bytes) -> int:
        if full.is_set() and os.fstat(descriptor).st_ino == own:
            if len(data) > 3:
                return write(descriptor, data[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr("supervisor.observe.logfiles.live.os.write", fill)
    monkeypatch.setattr("supervisor.observe.logfiles.files._QUIET_SECONDS", 0.0)
    full.set()
    kept.put("app", "lost one")
    kept.put("app", "lost two")
    assert len(kept.told) == 1
    assert kept.told[0].startswith(f"cannot keep the log of 'app' in '{kept.folder}': No space left on device; ")
    full.clear()
    kept.put("app", "after")
    assert (kept.folder / "app.log").read_text() == "before\nafter\n"
    assert kept.told[1] == f"the log of 'app' is kept again in '{kept.folder}'; 2 lines are missing there"
    assert kept.files.total_lost == 2


def test_folder_that_cannot_be_made_stops_nothing(make: Callable[..., Kept]) -> None:
    kept = make()
    kept.folder.write_text("a file")
    kept.put("app", "lost")
    assert len(kept.told) == 1
    assert "choose another SUPERVISOR_LOG_DIR" in kept.told[0]


def test_link_in_the_place_of_a_log_is_not_followed(make: Callable[..., Kept], tmp_path: Path) -> None:
    kept = make()
    kept.folder.mkdir()
    (kept.folder / "app.log").symlink_to(tmp_path / "elsewhere")
    kept.put("app", "lost")
    assert not (tmp_path / "elsewhere").exists()
    assert len(kept.told) == 1


@pytest.mark.parametrize("had", [[], ["gz"], ["tmp"], ["gz", "tmp"]])
def test_compressing_goes_on_where_a_kill_left_it(tmp_path: Path, had: list[str]) -> None:
    name = rotated_name("app", _START)
    (tmp_path / name).write_text("lines\n")
    (tmp_path / "app.log").write_text("live\n")
    if "gz" in had:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"lines\n"))
    if "tmp" in had:
        (tmp_path / f".{name}.gz.tmp").write_bytes(b"half of it")
    told: list[str] = []
    Attic(tmp_path, Keeping(), told.append).take_up()
    wait_until(lambda: not (tmp_path / name).exists())
    assert sorted(os.listdir(tmp_path)) == [f"{name}.gz", "app.log"]
    assert gzip.decompress((tmp_path / f"{name}.gz").read_bytes()) == b"lines\n"
    assert told == []


def test_compressing_without_room_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / rotated_name("app", _START)
    path.write_text("lines\n")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("supervisor.observe.logfiles.attic.os.fsync", refuse)
    with pytest.raises(OSError, match="no room"):
        compress(path)
    assert os.listdir(tmp_path) == [path.name]


def test_kill_between_rename_and_open_leaves_one_live_file_and_every_line(tmp_path: Path) -> None:
    first = LiveFile(tmp_path, "app", Keeping(max_bytes=10))
    first.append(b"line one\n", _START)
    first._rotate(_START)
    assert not (tmp_path / "app.log").exists()
    second = LiveFile(tmp_path, "app", Keeping(max_bytes=10))
    second.append(b"line two\n", _START)
    second.close()
    assert all_lines(tmp_path) == ["line one", "line two"]
    assert len(list(tmp_path.glob("app.log"))) == 1


def test_kill_at_any_moment_loses_no_line_that_was_kept(tmp_path: Path, soak: bool) -> None:
    program = Path(__file__).with_name("writes.py")
    number = 0
    for _ in range(100 if soak else 5):
        child = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(300 + secrets.randbelow(300)):
            number = int(child.stdout.readline()) + 1
        child.send_signal(signal.SIGKILL)
        number += len(child.stdout.read().split()) + 1  # the next one may have been written and not said
        child.wait(_LIMIT_SECONDS)
        child.stdout.close()
    found = [int(line) for line in all_lines(tmp_path)]
    missing = set(range(number)) - set(found)
    assert len(found) == len(set(found))
    assert len(missing) <= (100 if soak else 5)  # those that were not said
    assert len(list(tmp_path.glob("app.log"))) <= 1
