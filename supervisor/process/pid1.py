"""What only the first process of a container must see to: adopting orphans, and knowing whether it does."""

from __future__ import annotations

import ctypes
import os
from enum import StrEnum

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PR_GET_CHILD_SUBREAPER = 37


class Reaping(StrEnum):
    """How orphans reach us, or that they do not."""

    PID1 = "pid 1"
    SUBREAPER = "subreaper"
    NONE = "none"


def adopt_orphans() -> Reaping:
    """Become the reaper of orphans: given as PID 1, asked of the kernel elsewhere. Never raises; says which it is."""
    if os.getpid() == 1:
        return Reaping.PID1
    return Reaping.SUBREAPER if _set_subreaper(True) else Reaping.NONE


def can_adopt_orphans() -> Reaping:
    """What `adopt_orphans` would give; changes nothing."""
    before = is_subreaper()
    found = adopt_orphans()
    if found is Reaping.SUBREAPER and not before:
        _set_subreaper(False)
    return found


def is_subreaper() -> bool:
    """Whether the kernel gives us the orphans below us though we are not PID 1."""
    answer = ctypes.c_int(0)
    return _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer)) and answer.value != 0


def _set_subreaper(wanted: bool) -> bool:
    return _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def _prctl(option: int, argument: object) -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.prctl(option, argument, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
