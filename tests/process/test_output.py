"""Bytes to lines, the bounded ring, followers, and pipes that are flooded or cut off."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.process.framer import MAX_LINE_BYTES, Framer
from supervisor.process.meter import Meter, Rate
from supervisor.process.output import GAP, Dropped, Line, Ring
from supervisor.process.pump import Pump


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


class Flood:
    """A ring with a limit, a pipe into it, and a clock that stands until it is moved."""

    def __init__(self, rate: Rate, **options: Any) -> None:
        self.now = 100.0
        self.told: list[Dropped] = []
        self.ring = Ring("app", rate=rate, on_dropped=self.told.append, max_bytes=1 << 30, **options)
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)
        self.ring.meter("stdout")._filled = self.now
        self.ring.meter("stdout").opens_at = self.now
        self.pump = Pump(self.reading, self.ring, "stdout", clock=lambda: self.now)

    def write(self, data: bytes) -> None:
        while data:
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self.writing, data) :]
            while select.select([self.reading], [], [], 0)[0]:
                self.pump._turn()

    def end(self) -> list[str]:
        os.close(self.writing)
        while not self.pump._ended:
            self.pump._turn()
        os.close(self.reading)
        return self.texts()

    def texts(self) -> list[str]:
        return [line.text for line in self.ring.tail(10_000_000) if line.stream != GAP]


def test_flood_is_dropped_counted_and_said_and_its_last_words_are_kept() -> None:
    flood = Flood(Rate(lines=1000, bytes=0))
    flood.write(b"".join(b"%09d\n" % number for number in range(200_000)))
    texts = flood.end()
    assert texts[:1000] == [f"{number:09}" for number in range(1000)]
    assert texts[-1000:] == [f"{number:09}" for number in range(199_000, 200_000)]
    assert len(texts) + flood.ring.lines_dropped == 200_000
    assert 10 * len(texts) + flood.ring.bytes_dropped == 2_000_000
    assert [(one.lines, one.stream) for one in flood.told] == [(flood.ring.lines_dropped, "stdout")]
    (gap,) = [line.text for line in flood.ring.tail(10_000) if line.stream == GAP]
    assert gap == (
        f"log lines dropped: app printed faster than 1000 lines a second, count={flood.told[0].lines}, "
        f"bytes={flood.told[0].bytes}"
    )


def test_flood_shows_something_each_second_and_says_once_a_second_what_it_lost() -> None:
    flood = Flood(Rate(lines=100, bytes=0))
    for _ in range(5):
        flood.write(b"".join(b"%099d\n" % number for number in range(5000)))
        flood.now += 1.0
    texts = flood.end()
    assert len(texts) == 5 * 100 + 5 * 655
    assert len(flood.told) == 5
    assert len(texts) + flood.ring.lines_dropped == 25_000


def test_endless_line_is_dropped_by_its_bytes() -> None:
    flood = Flood(Rate(lines=0, bytes=100_000))
    flood.write(b"x" * 5_000_000)
    texts = flood.end()
    assert sum(map(len, texts)) + flood.ring.bytes_dropped == 5_000_000
    assert flood.ring.lines_dropped == 0
    assert sum(map(len, texts)) < 100_000 + 2 * 64 * 1024


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([b"\n", b"line\n", "漢字\n".encode(), b"x" * 3000 + b"\n", b"z" * 9000]), max_size=300),
    st.integers(1, 2000),
)
def test_no_line_is_lost_uncounted(pieces: list[bytes], lines: int) -> None:
    data = b"".join(pieces)
    flood = Flood(Rate(lines=lines, bytes=50_000))
    for start in range(0, len(data), 10_000):
        flood.write(data[start : start + 10_000])
        flood.now += 0.1
    texts = flood.end()
    shown = sum(len(text.encode()) for text in texts)
    assert "\ufffd" not in "".join(texts)
    assert shown <= len(data) - flood.ring.bytes_dropped <= shown + len(texts)


def test_one_stream_is_not_silenced_by_the_other_ones_flood() -> None:
    ring = Ring("app", rate=Rate(lines=10, bytes=0))
    ring.meter("stdout").charge(1000, 0, 0.0)
    assert not ring.meter("stdout").is_open(0.5)
    assert ring.meter("stderr").is_open(1e9)
    assert ring.meter("stdout") is ring.meter("stdout")


def test_source_without_a_limit_is_never_cut() -> None:
    flood = Flood(Rate(0, 0))
    flood.write(b"y\n" * 500_000)
    assert len(flood.end()) == 500_000


def test_meter_opens_again_after_a_second_and_gives_no_more_than_its_rate() -> None:
    meter = Meter(Rate(lines=100, bytes=1000, burst_seconds=2), 0.0)
    assert meter.is_open(0.0)
    meter.charge(250, 10, 0.0)
    assert not meter.is_open(0.9)
    assert meter.is_open(1.0)
    meter.charge(1, 5000, 1.0)
    assert not meter.is_open(2.5)
    assert meter.is_open(10.0)
    assert meter.lines_left == 200
    meter.charge(199, 0, 10.0)
    assert meter.is_open(10.0)
    meter.charge(1, 0, 10.0)
    assert not meter.is_open(10.5)


def test_framer_cuts_no_line_within_what_must_stay_whole() -> None:
    secret = b"S3cret-of-some-length"

    def keep_whole(line: bytes, cut: int) -> int:
        at = line.find(secret, cut - 100)
        return at if 0 <= at < cut < at + len(secret) else cut

    for before in range(MAX_LINE_BYTES - 30, MAX_LINE_BYTES + 5):
        line = b"x" * before + secret + b"y" * 9000
        for chunks in ([line + b"\n"], cut(line + b"\n", [before + 5, MAX_LINE_BYTES + 1])):
            lines: list[str] = []
            framer = Framer(lines.append, keep_whole)
            for chunk in chunks:
                framer.feed(chunk)
            assert "".join(lines).encode() == line
            assert sum(secret.decode() in text for text in lines) == 1, before
            assert all(len(text) <= MAX_LINE_BYTES for text in lines)


@pytest.mark.anyio
async def test_what_is_held_back_is_shown_as_soon_as_the_rate_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.process.meter.PAUSE_SECONDS", 0.05)
    ring = Ring("app", rate=Rate(lines=100, bytes=0))
    pipe = Pipe(ring)
    async with anyio.create_task_group() as group:
        group.start_soon(pipe.pump.run)
        os.write(pipe.writing, b"line\n" * 10_000 + b"the last one\n")
        with anyio.fail_after(5):
            while not any(line.text == "the last one" for line in ring.tail(1)):
                await ring.wait_newer(ring.number)
        group.cancel_scope.cancel()
    pipe.close()
    assert ring.lines_dropped > 8000


def test_trickle_between_two_reads_does_not_open_the_meter_again() -> None:
    flood = Flood(Rate(lines=1000, bytes=0))
    for _ in range(200):
        flood.write(b"y\n" * 4096)
        flood.now += 0.01
    flood.end()
    assert 2 <= len(flood.told) <= 3
