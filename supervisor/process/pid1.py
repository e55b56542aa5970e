"""What only the first process of a container must see to: adopting orphans, and knowing whether it does."""

from __future__ import annotations

import ctypes
import os
from enum import StrEnum

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Reaping(StrEnum):
    """How orphans reach us, or that they do not."""

    PID1 = "pid 1"
    SUBREAPER = "subreaper"
    NONE = "none"


def adopt_orphans() -> Reaping:
    """Become the reaper of orphans: given as PID 1, asked of the kernel elsewhere. Never raises; says which it is."""
    if os.getpid() == 1:
        return Reaping.PID1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
            return Reaping.SUBREAPER
    except (OSError, AttributeError):
        pass
    return Reaping.NONE
