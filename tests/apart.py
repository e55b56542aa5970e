"""Servers that serve a whole session of tests, apart from the process tree under it.

Tests of the reaper end and reap every child of their process; a server that outlives them must be nobody's child.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Leaves the server to whoever adopts orphans here.
_LEAVE = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'


@dataclass
class Apart:
    """A running process by its pidfd; `end` is safe to call more than once."""

    pid: int
    _descriptor: int

    @property
    def running(self) -> bool:
        return not self._ended(0)

    def end(self, number: signal.Signals, *, limit_seconds: float = 15) -> None:
        """Send the signal and wait for the end; killed past the limit."""
        if self._descriptor < 0:
            return
        for each, limit in ((number, limit_seconds), (signal.SIGKILL, 5.0)):
            if not self._ended(0):
                signal.pidfd_send_signal(self._descriptor, each)
            if self._ended(limit):
                break
        os.close(self._descriptor)
        self._descriptor = -1

    def _ended(self, limit_seconds: float) -> bool:
        return self._descriptor < 0 or bool(select.select([self._descriptor], [], [], limit_seconds)[0])


def start_apart(argv: Sequence[str | Path], *, log: Path, user: int | str | None = None) -> Apart:
    """Start a process whose output goes to the end of `log`, which `user` must be able to write."""
    words = ["/bin/sh", "-c", _LEAVE, "sh", str(log), *(str(word) for word in argv)]
    environ = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    left = subprocess.run(
        words,
        user=user,
        group=user if isinstance(user, int) else None,
        extra_groups=None if user is None else [],
        cwd=log.parent,
        env=environ,
        stdout=subprocess.PIPE,
        check=True,
        timeout=15,
    )
    pid = int(left.stdout)
    return Apart(pid, os.pidfd_open(pid))
