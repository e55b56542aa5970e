"""`supervisor init` on a terminal: who is in its foreground, whom ^C reaches, and that reading works."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.process.namespaces import INIT, UNSHARE, kill_tree, require_namespaces

both = pytest.mark.parametrize(
    "pid1", [pytest.param(True, marks=pytest.mark.namespaces), False], ids=["pid 1", "plain"]
)

COMMAND = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print("foreground", os.tcgetpgrp(0) == os.getpgrp(), "own group", os.getpgrp() == os.getpid(), flush=True)
for line in sys.stdin:
    print("read", line, end="", flush=True)
"""


class Terminal:
    """The master side of a terminal whose other side is the controlling terminal of a process."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def foreground(self) -> int:
        return os.tcgetpgrp(self._master)

    def expect(self, words: bytes, limit_seconds: float = 15) -> bytes:
        """Wait for `words`; gives what came up to them."""
        end = time.monotonic() + limit_seconds
        while words not in self._seen:
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {words!r} within {limit_seconds} s, but {self._seen!r}"
            self._seen += os.read(self._master, 4096)
        before, _, self._seen = self._seen.partition(words)
        return before


@contextmanager
def on_terminal(argv: list[str], *, pid1: bool) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    if pid1:
        require_namespaces()
    master, slave = os.openpty()
    # setsid --ctty makes it session leader with the terminal, as container runtimes do.
    guarded = [*(UNSHARE if pid1 else []), "setsid", "--ctty", *argv]
    try:
        with subprocess.Popen(guarded, stdin=slave, stdout=slave, stderr=slave) as popen:
            try:
                yield Terminal(master), popen
            finally:
                kill_tree(popen.pid)
    finally:
        os.close(slave)
        os.close(master)


@both
def test_init_puts_the_command_into_the_foreground(pid1: bool) -> None:
    with on_terminal([*INIT, "--", sys.executable, "-c", COMMAND], pid1=pid1) as (terminal, popen):
        terminal.expect(b"foreground True own group True")
        terminal.type(b"hello\n")
        terminal.expect(b"read hello")
        terminal.type(b"\x04")
        assert popen.wait(15) == 0


@both
def test_interrupt_key_reaches_the_command_once(pid1: bool) -> None:
    with on_terminal([*INIT, "--", sys.executable, "-c", COMMAND], pid1=pid1) as (terminal, _):
        terminal.expect(b"foreground True")
        terminal.type(b"\x03")
        terminal.expect(b"interrupted")
        terminal.type(b"after\n")
        assert b"interrupted" not in terminal.expect(b"read after")


@both
def test_interrupt_key_reaches_a_command_in_our_group_once(pid1: bool) -> None:
    with on_terminal([*INIT, "-c", "--", sys.executable, "-c", COMMAND], pid1=pid1) as (terminal, _):
        terminal.expect(b"foreground True own group False")
        terminal.type(b"\x03")
        terminal.expect(b"interrupted")
        terminal.type(b"after\n")
        assert b"interrupted" not in terminal.expect(b"read after")


@both
def test_interrupt_key_ends_the_command_with_its_status(pid1: bool) -> None:
    with on_terminal([*INIT, "--", "/bin/sh", "-c", "echo up; exec cat"], pid1=pid1) as (terminal, popen):
        terminal.expect(b"up")
        terminal.type(b"\x03")
        assert popen.wait(15) == 130


def test_init_gives_the_terminal_back() -> None:
    script = f"{' '.join(INIT)} -- true; echo back; read answer; echo got $answer"
    with on_terminal(["/bin/sh", "-c", script], pid1=False) as (terminal, popen):
        terminal.expect(b"back")
        terminal.type(b"fine\n")
        terminal.expect(b"got fine")
        assert popen.wait(15) == 0


def test_init_in_the_background_leaves_the_terminal_alone() -> None:
    # Job control (-m) gives a background command a process group of its own.
    script = (
        f"set -m; {' '.join(INIT)} -- /bin/sh -c 'echo up; sleep 600' </dev/tty & read key; kill $!; wait $!; echo end"
    )
    with on_terminal(["/bin/bash", "--norc", "-c", script], pid1=False) as (terminal, popen):
        terminal.expect(b"up")
        assert terminal.foreground() == popen.pid
        terminal.type(b"\n")
        terminal.expect(b"end")
