"""The thread that reads ahead: in order, bounded, and gone in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from supervisor.releases.unpack.ahead import read_ahead

LIMIT_SECONDS = 20.0


def threads() -> int:
    return sum(thread.name == "unpack ahead" for thread in threading.enumerate())


def test_pieces_come_in_order_and_the_error_in_its_place() -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"a", b"b", b"c")
        raise ValueError("broken")

    taken: list[bytes] = []
    with pytest.raises(ValueError, match="broken"):
        taken.extend(read_ahead(chunks()))
    assert b"".join(read_ahead(iter([b"a", b"b", b"c"]))) == b"abc"
    assert threads() == 0


def test_thread_is_never_far_ahead() -> None:
    made = taken = farthest = 0
    total = 200

    def chunks() -> Iterator[bytes]:
        nonlocal made, farthest
        for made in range(1, total + 1):
            farthest = max(farthest, made - taken)
            yield b"piece"

    deadline = time.monotonic() + LIMIT_SECONDS
    for _ in read_ahead(chunks()):
        taken += 1
        while made - taken < 8 and made < total:
            assert time.monotonic() < deadline
    assert taken == total
    assert 8 <= farthest <= 10


def test_thread_ends_when_nobody_reads_on() -> None:
    def chunks() -> Iterator[bytes]:
        while True:
            yield b"piece"

    ahead = read_ahead(chunks())
    assert next(ahead) == b"piece"
    assert threads() == 1
    ahead.close()
    assert threads() == 0
