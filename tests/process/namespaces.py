"""Runs programs as PID 1 of a PID namespace of their own; needs no root where user namespaces are allowed."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
INIT = [sys.executable, "-m", "supervisor", "init"]
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]


@functools.cache
def why_unavailable() -> str:
    """Empty where PID namespaces can be made."""
    try:
        made = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, timeout=20)
    except OSError as error:
        return f"unshare: {error.strerror}"
    return "" if made.returncode == 0 else made.stderr.strip() or f"unshare exited with {made.returncode}"


def require_namespaces() -> None:
    """Skip the test, by name of the reason, where PID namespaces cannot be made."""
    if why_unavailable():
        pytest.skip(f"no PID namespaces here: {why_unavailable()}")


def program(name: str, *arguments: object) -> list[str]:
    """The argv of one of the test programs."""
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *(str(argument) for argument in arguments)]


def run_as_pid1(argv: Sequence[str], *, limit_seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end as PID 1; at the limit the whole namespace is killed and TimeoutExpired raised."""
    require_namespaces()
    return subprocess.run([*UNSHARE, *argv], capture_output=True, text=True, timeout=limit_seconds)


class Running:
    """A process under test with its pid as seen from here."""

    def __init__(self, popen: subprocess.Popen[str], pid: int) -> None:
        self.popen = popen
        self.pid = pid

    def line(self) -> str:
        """The next line it wrote; the caller's limit is the one of `started`."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip("\n")

    def wait(self, limit_seconds: float = 20) -> int:
        """Its exit status."""
        return self.popen.wait(limit_seconds)


@contextmanager
def started(argv: Sequence[str], *, pid1: bool, limit_seconds: float = 30) -> Iterator[Running]:
    """Start `argv`, as PID 1 or plainly; ended with all it started. A reader that waits past the limit gets the end."""
    if pid1:
        require_namespaces()
    guarded = ["timeout", "--foreground", "-s", "KILL", str(limit_seconds), *(UNSHARE if pid1 else []), *argv]
    with subprocess.Popen(guarded, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as popen:
        try:
            yield Running(popen, _descend(popen.pid, 2 if pid1 else 1))
        finally:
            kill_tree(popen.pid)


def kill_tree(pid: int) -> None:
    """KILL a process and all below it, from the top so that none is adopted by anybody else before it is seen."""
    below = _below(pid)
    for each in [pid, *below]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [below for child in children for below in (child, *_below(child))]


def _descend(pid: int, levels: int) -> int:
    """Follow only children downwards, waiting for each to be there (`timeout`, then `unshare`, then the program)."""
    for _ in range(levels):
        listing = Path(f"/proc/{pid}/task/{pid}/children")
        while not (children := listing.read_text().split()):
            pass
        pid = int(children[0])
    return pid
