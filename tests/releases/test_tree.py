"""Walking a tree: what was read is not read again, unless it may have changed."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from supervisor.releases.model import Kind, ReleaseError
from supervisor.releases.tree import Digests, walk_tree

LIMIT_SECONDS = 20.0
HOUR = 3_600_000_000_000


def later() -> int:
    return time.time_ns() + HOUR


def contents(tree: Path, digests: Digests | None = None) -> dict[str, str]:
    return {entry.path: entry.content for entry in walk_tree(tree, digests) if entry.kind is Kind.FILE}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    (place / "a").mkdir(parents=True)
    (place / "a/b").write_bytes(b"hello")
    return place


def test_file_that_was_read_is_not_read_again(tree: Path) -> None:
    digests = Digests(later)
    digests.note((tree / "a/b").stat(), "known")
    assert contents(tree, digests) == {"a/b": "known"}
    os.link(tree / "a/b", tree / "c")
    # A second name sets the change time, so that both are read.
    assert contents(tree, digests) == {"a/b": sha256(b"hello"), "c": sha256(b"hello")}


def test_walk_notes_what_it_reads(tree: Path) -> None:
    digests = Digests(later)
    assert contents(tree, digests) == {"a/b": sha256(b"hello")}
    assert digests.of((tree / "a/b").stat()) == sha256(b"hello")


def test_file_that_was_changed_is_read_though_size_and_time_are_the_same(tree: Path) -> None:
    digests, place = Digests(later), tree / "a/b"
    before = place.stat()
    digests.note(before, "known")
    deadline = time.monotonic() + LIMIT_SECONDS
    while place.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of files has ticks
        assert time.monotonic() < deadline
        place.write_bytes(b"HELLO")
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (place.stat().st_size, place.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert contents(tree, digests) == {"a/b": sha256(b"HELLO")}


def test_file_that_was_just_changed_is_not_known(tree: Path) -> None:
    status = (tree / "a/b").stat()
    digests = Digests(lambda: status.st_ctime_ns + 1_000_000)
    digests.note(status, "known")
    assert digests.of(status) == ""


def test_file_of_more_than_a_block_is_read_whole(tree: Path) -> None:
    data = os.urandom(1024 * 1024 + 5)
    (tree / "a/b").write_bytes(data)
    (tree / "empty").touch()
    assert contents(tree) == {"a/b": sha256(data), "empty": sha256(b"")}


def test_fifo_is_refused_and_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "a/fifo")
    with pytest.raises(ReleaseError, match="cannot take 'a/fifo' into a release: it is no file, folder or link"):
        contents(tree)


def test_error_of_the_system_names_the_whole_path(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(descriptor: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("supervisor.releases.tree.os.read", read)
    with pytest.raises(OSError, match="'a/b'"):
        contents(tree)
