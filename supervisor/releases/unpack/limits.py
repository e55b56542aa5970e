"""How much an archive may ask for, and how this process is held to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from dataclasses import dataclass

MAX_ENTRIES = 200_000
MIB = 1024 * 1024
MEMORY_BYTES = 512 * MIB
"""Address space, of which a zstd window may take 128 MiB and the list of 200,000 entries some 100."""
_DESCRIPTORS = 256
_HEADER_BYTES = 8 * 1024  # what an entry may cost in the stream beside its contents, on average
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h


@dataclass(frozen=True)
class Limits:
    """`bytes` of all files together and `entries` of the tree; CPU and address space of the process."""

    bytes: int
    entries: int
    cpu_seconds: int
    memory_bytes: int = MEMORY_BYTES

    @property
    def stream_bytes(self) -> int:
        """How long the unpacked stream may become: the files, and the headers around them."""
        return self.bytes + self.entries * _HEADER_BYTES + MIB


def restrict(limits: Limits) -> None:
    """Hold this process to the limits, for good. A lower limit that is set already stays."""
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, beyond=1)  # at the hard limit it is KILL, which does not tell why
    _lower(resource.RLIMIT_AS, limits.memory_bytes)
    _lower(resource.RLIMIT_FSIZE, limits.bytes)
    _lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, value: int, *, beyond: int = 0) -> None:
    _, set_already = resource.getrlimit(which)
    hard = value + beyond
    if set_already != resource.RLIM_INFINITY:
        hard = min(hard, set_already)
    resource.setrlimit(which, (min(value, hard), hard))


def die_with(parent: int) -> None:
    """End when `parent` does, and gain no privileges. Where a sandbox has no such calls, the CPU limit is what is left.

    Raises SystemExit when it is gone already: the kernel tells nothing of what was before.
    """
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)
