from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.observe.writer import Writer

_LIMIT_SECONDS = 10.0


def _writer(descriptor: int, **options: int) -> Writer[str]:
    return Writer(descriptor, render=lambda item: f"{item}\n", announce=lambda count: f"lost {count}\n", **options)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for descriptor in (read_end, write_end):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _read_until(descriptor: int, wanted: str) -> str:
    text = ""
    until = time.monotonic() + _LIMIT_SECONDS
    while wanted not in text:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"{wanted!r} did not come; got {text[-200:]!r}"
        text += os.read(descriptor, 65536).decode()
    return text


def test_items_are_written_in_order(pipe: tuple[int, int]) -> None:
    writer = _writer(pipe[1])
    for number in range(1000):
        writer.put(f"line {number}", 10)
    assert writer.flush(_LIMIT_SECONDS)
    assert os.read(pipe[0], 65536).decode().splitlines() == [f"line {number}" for number in range(1000)]
    writer.close()


def test_stalled_reader_never_blocks_a_put_and_costs_the_oldest(pipe: tuple[int, int]) -> None:
    writer = _writer(pipe[1], max_bytes=100_000)
    started = time.monotonic()
    for number in range(20_000):  # 2 MB into a pipe of 64 KiB that nobody reads
        writer.put(f"{number:099}", 100)
    assert time.monotonic() - started < _LIMIT_SECONDS / 2
    assert not writer.flush(0.01)
    text = _read_until(pipe[0], f"{19_999:099}")
    lines = text.splitlines()
    lost = [int(line.split()[1]) for line in lines if line.startswith("lost")]
    written = [int(line) for line in lines if not line.startswith("lost")]
    assert written == sorted(written)
    assert sum(lost) + len(written) == 20_000
    assert sum(lost) > 10_000
    writer.close()


def test_closed_pipe_is_survived() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    writer = _writer(write_end)
    writer.put("nobody reads this", 10)
    assert writer.flush(_LIMIT_SECONDS)
    writer.put("nor this", 10)
    assert writer.flush(_LIMIT_SECONDS)
    writer.close()
    os.close(write_end)


def test_lines_lost_to_a_full_disk_are_announced_once_there_is_room(tmp_path: object) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    read_end, write_end = os.pipe()
    try:
        target = os.dup(full)
        writer = _writer(target)
        writer.put("lost one", 10)
        assert writer.flush(_LIMIT_SECONDS)
        os.dup2(write_end, target)
        writer.put("kept", 10)
        assert _read_until(read_end, "kept") == "lost 1\nkept\n"
        writer.close()
        os.close(target)
    finally:
        for descriptor in (full, read_end, write_end):
            os.close(descriptor)


def test_non_blocking_descriptor_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = _writer(pipe[1])
    for number in range(5000):  # 500 kB, more than the pipe holds
        writer.put(f"{number:099}", 100)
    lines = _read_until(pipe[0], f"{4999:099}").splitlines()
    assert [int(line) for line in lines] == list(range(5000))
    writer.close()


def test_item_that_cannot_be_rendered_does_not_end_the_log(pipe: tuple[int, int]) -> None:
    def render(item: int) -> str:
        return f"{1 // item}\n"

    writer: Writer[int] = Writer(pipe[1], render=render, announce=str)
    writer.put(0, 1)
    writer.put(1, 1)
    assert "ZeroDivisionError" in _read_until(pipe[0], "\n1\n")
    writer.close()


def test_close_ends_the_thread_and_later_items_are_ignored(pipe: tuple[int, int]) -> None:
    writer = _writer(pipe[1])
    writer.put("last", 1)
    writer.close()
    writer.put("too late", 1)
    writer._thread.join(_LIMIT_SECONDS)
    assert not writer._thread.is_alive()
    assert os.read(pipe[0], 100) == b"last\n"


def test_close_of_a_stalled_log_keeps_its_deadline(pipe: tuple[int, int]) -> None:
    writer = _writer(pipe[1])
    for _ in range(3):
        writer.put("x" * 100_000, 100_000)
    started = time.monotonic()
    writer.close(0.05)
    assert time.monotonic() - started < _LIMIT_SECONDS / 2
    _read_until(pipe[0], "\n")
    while writer._thread.is_alive():
        if select.select([pipe[0]], [], [], 0.01)[0]:
            os.read(pipe[0], 65536)


def test_put_from_a_signal_handler_that_interrupts_a_put_does_not_hang(pipe: tuple[int, int]) -> None:
    writer = _writer(pipe[1])
    seen = threading.Event()

    def handler(number: int, frame: object) -> None:
        writer.put("from the handler", 1)
        seen.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with writer._changed:  # as `put` holds it
            signal.raise_signal(signal.SIGUSR1)
        assert seen.wait(_LIMIT_SECONDS)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "from the handler" in _read_until(pipe[0], "handler\n")
    writer.close()


def test_line_cut_off_by_a_full_disk_is_ended_before_the_next(tmp_path: Path) -> None:
    """A file that may only be so big is a disk that is full."""
    program = """
import os, resource, signal, sys
from supervisor.observe.writer import Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (25, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
writer = Writer(log, render=lambda item: f"{item}\\n", announce=lambda count: f"lost {count}\\n")
for item in ("whole line", "another one", "cut off here"):
    writer.put(item, 10)
    assert writer.flush(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
writer.put("after it", 10)
assert writer.flush(10)
assert writer.total_lost == 1
"""
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", program, str(log)], check=True, timeout=30)
    assert log.read_text().splitlines() == ["whole line", "another one", "cu", "lost 1", "after it"]
