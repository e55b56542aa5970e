"""The programs of the contract tests, whatever runs them."""

from __future__ import annotations

from enum import Enum


class Play(Enum):
    """What the program does."""

    SPEAKS = "prints `up` and stays"
    ENDS = "ends with status 3"
    STUBBORN = "prints `up` and ignores TERM"
