"""Bytes to lines, the bounded ring, followers, and pipes that are flooded or cut off."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.process.output import MAX_LINE_BYTES, Framer, Line, Pump, Ring


def framed(chunks: Sequence[bytes]) -> list[str]:
    lines: list[str] = []
    framer = Framer(lines.append)
    for chunk in chunks:
        framer.feed(chunk)
    framer.close()
    return lines


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(borders)]


pieces = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r", b"\r\n", b"\xff", "é".encode(), "漢".encode(), "🦊".encode()]),
        st.binary(max_size=20),
        st.integers(MAX_LINE_BYTES - 3, MAX_LINE_BYTES + 3).map(lambda count: b"x" * count),
    ),
    max_size=12,
).map(b"".join)


@given(pieces, st.lists(st.integers(0, 200_000), max_size=8))
@example(b"x" * MAX_LINE_BYTES + b"\r\n", [MAX_LINE_BYTES + 1])
@example(b"x" * 2 * MAX_LINE_BYTES + b"\r\n", [2 * MAX_LINE_BYTES + 1])
@example(b"x" * MAX_LINE_BYTES + b"\r\r\n", [MAX_LINE_BYTES + 1, MAX_LINE_BYTES + 2])
def test_framer_gives_the_same_lines_however_the_stream_is_chunked(data: bytes, places: list[int]) -> None:
    assert framed(cut(data, places)) == framed([data])


@given(pieces)
def test_framer_gives_the_same_lines_byte_by_byte(data: bytes) -> None:
    tail = data[-(MAX_LINE_BYTES + 40) :]
    assert framed([tail[:MAX_LINE_BYTES], *(bytes([byte]) for byte in tail[MAX_LINE_BYTES:])]) == framed([tail])


@given(pieces)
def test_framer_loses_nothing_and_keeps_lines_short(data: bytes) -> None:
    text = data.decode(errors="ignore").replace("\r", "")
    lines = framed([text.encode()])
    assert "".join(lines) == text.replace("\n", "")
    assert all(len(line.encode()) <= MAX_LINE_BYTES for line in lines)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_framer_cuts_at_the_limit_and_not_before(ending: bytes, extra: int) -> None:
    lines = framed([b"x" * (MAX_LINE_BYTES + extra) + ending])
    assert [len(line) for line in lines] == ([MAX_LINE_BYTES, 1] if extra > 0 else [MAX_LINE_BYTES + extra])


def test_framer_spares_a_character_at_the_cut() -> None:
    assert framed([b"x" * (MAX_LINE_BYTES - 1) + "漢字".encode()]) == ["x" * (MAX_LINE_BYTES - 1), "漢字"]


@given(st.lists(st.text(max_size=300), max_size=200), st.integers(300, 20_000))
def test_ring_keeps_the_newest_lines_within_its_size(texts: list[str], max_bytes: int) -> None:
    ring = Ring("source", max_bytes=max_bytes)
    for text in texts:
        ring.add(text)
    kept = ring.tail(len(texts))
    assert [line.text for line in kept] == texts[len(texts) - len(kept) :]
    assert [line.number for line in kept] == list(range(len(texts) - len(kept) + 1, len(texts) + 1))
    assert len(kept) <= 1 or sum(len(line.text.encode()) for line in kept) <= max_bytes
    assert ring.number == len(texts)


def test_ring_counts_wide_characters_by_the_memory_they_take() -> None:
    ring = Ring("source", max_bytes=100_000)
    for _ in range(200):
        ring.add("🦊" * 1000)
    assert sum(len(line.text) * 4 for line in ring.tail(200)) <= 100_000


def test_ring_hands_each_line_on_once() -> None:
    seen: list[Line] = []
    ring = Ring("app", on_line=seen.append, max_bytes=500)
    for number in range(20):
        ring.add(str(number), "stderr")
    assert [(line.text, line.number, line.stream, line.source) for line in seen] == [
        (str(number), number + 1, "stderr", "app") for number in range(20)
    ]
    assert seen[0].as_dict()["n"] == 1


@pytest.mark.anyio
async def test_follower_gets_every_line_as_it_comes() -> None:
    ring = Ring("source")
    got: list[str] = []
    async with anyio.create_task_group() as group:

        async def follow() -> None:
            async for line in ring.follow(0):
                got.append(line.text)
                if line.text == "99":
                    return

        group.start_soon(follow)
        with anyio.fail_after(5):
            for number in range(100):
                ring.add(str(number))
                if number % 7 == 0:
                    await anyio.lowlevel.checkpoint()
    assert got == [str(number) for number in range(100)]


@pytest.mark.anyio
async def test_follower_that_is_too_slow_loses_lines_and_never_holds_the_writer() -> None:
    ring = Ring("source", max_bytes=10 * 250)
    ring.add("first")
    follower = ring.follow(0)
    assert (await anext(follower)).text == "first"
    for number in range(1000):
        ring.add(str(number))
    with anyio.fail_after(5):
        assert int((await anext(follower)).text) >= 985
    await follower.aclose()  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_cancelled_follower_leaves_nothing_behind() -> None:
    ring = Ring("source")
    with anyio.move_on_after(0):
        await ring.wait_newer(0)
    assert not ring._wakers


class Pipe:
    """Both ends of a pipe, the reading one pumped."""

    def __init__(self, ring: Ring) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.pump = Pump(self.reading, ring, "stdout")

    def close(self) -> None:
        os.close(self.writing)


@pytest.mark.anyio
async def test_pump_ends_with_its_pipe_and_closes_it() -> None:
    ring = Ring("source")
    pipe = Pipe(ring)
    os.write(pipe.writing, b"one\ntwo")
    pipe.close()
    with anyio.fail_after(5):
        await pipe.pump.run()
    assert [line.text for line in ring.tail(9)] == ["one", "two"]
    with pytest.raises(OSError):
        os.fstat(pipe.reading)
    pipe.pump.drain()


@pytest.mark.anyio
async def test_cancelled_pump_keeps_the_last_words() -> None:
    ring = Ring("source")
    pipe = Pipe(ring)
    async with anyio.create_task_group() as group:
        group.start_soon(pipe.pump.run)
        await anyio.wait_all_tasks_blocked()
        os.write(pipe.writing, b"last words")
        group.cancel_scope.cancel()
    assert [line.text for line in ring.tail(9)] == ["last words"]
    pipe.close()


@pytest.mark.anyio
async def test_drained_pump_has_the_lines_before_it_runs_again() -> None:
    ring = Ring("source")
    pipe = Pipe(ring)
    async with anyio.create_task_group() as group:
        group.start_soon(pipe.pump.run)
        await anyio.lowlevel.checkpoint()
        os.write(pipe.writing, b"one\n" * 3000)
        pipe.pump.drain()
        assert ring.number == 3000
        pipe.close()
        pipe.pump.drain()


@pytest.mark.anyio
async def test_flooded_pump_lets_the_loop_turn_after_a_bounded_number_of_lines() -> None:
    ring = Ring("source")
    pipe = Pipe(ring)
    os.set_blocking(pipe.writing, False)
    steps: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(pipe.pump.run)
        with anyio.fail_after(20):
            while ring.number < 100_000:
                with contextlib.suppress(BlockingIOError):
                    os.write(pipe.writing, b"y\n" * 32_768)
                before = ring.number
                await anyio.lowlevel.checkpoint()
                steps.append(ring.number - before)
        group.cancel_scope.cancel()
    assert max(steps) <= 4096
    pipe.close()
