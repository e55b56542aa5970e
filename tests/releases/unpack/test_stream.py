"""A stream that comes in pieces of any size is read as one that comes whole."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.releases.unpack.stream import Stream
from supervisor.releases.unpack.tar import TarReader
from tests.releases.unpack.archives import file, folder, gnu_long, pax_file, tar

NOISE = os.urandom(3000)
STREAM = tar(
    folder("app"), file("app/a", NOISE), file("app/empty", b""), pax_file("app/b"), gnu_long(b"L", "app/c"), file("x")
)


def read(size: int, *, ask_whole: bool) -> dict[str, bytes]:
    reader = TarReader(Stream(iter(STREAM[at : at + size] for at in range(0, len(STREAM), size))))
    return {member.name: b"".join(pieces(reader, ask_whole=ask_whole)) for member in reader.members()}


def pieces(reader: TarReader, *, ask_whole: bool) -> Iterator[bytes]:
    whole = reader.whole() if ask_whole else None
    yield from (bytes(piece) for piece in (reader.content() if whole is None else (whole,)))


@pytest.mark.parametrize("ask_whole", [False, True])
@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 4096, len(STREAM)])
def test_members_are_the_same_in_pieces_of_any_size(size: int, ask_whole: bool) -> None:
    found = read(size, ask_whole=ask_whole)
    assert found == {
        "app/": b"",
        "app/a": NOISE,
        "app/empty": b"",
        "app/b": b"content\n",
        "app/c": b"content\n",
    }


def test_contents_that_nobody_asks_for_are_passed_over() -> None:
    reader = TarReader(Stream(iter([STREAM[:2000], STREAM[2000:]])))
    assert [member.name for member in reader.members()] == ["app/", "app/a", "app/empty", "app/b", "app/c"]


def test_whole_takes_nothing_where_not_all_is_at_hand() -> None:
    stream = Stream(iter([b"abc", b"def"]))
    assert stream.take(1, "a test") == b"a"
    assert stream.whole(3) is None
    assert (bytes(stream.whole(2) or b""), stream.offset) == (b"bc", 3)
    assert stream.take(3, "a test") == b"def"
