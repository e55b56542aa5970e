"""What one probe found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """`good`: works; `waiting`: not yet, ask again; `fatal`: asking again cannot help."""

    GOOD = "good"
    WAITING = "waiting"
    FATAL = "fatal"


@dataclass(frozen=True)
class Verdict:
    """One probe's answer. `detail` is one line for people, without secrets.

    `recovering` says that the server itself reports progress (Postgres 57P03, Redis LOADING): its deadline is extended,
    as killing a recovery is the one harmful act. `peer_pid` is the pid the server gave as its own, 0 where unknown.
    """

    answer: Answer
    detail: str = ""
    recovering: bool = False
    peer_pid: int = 0

    @property
    def good(self) -> bool:
        """Whether it works."""
        return self.answer is Answer.GOOD


Probe = Callable[[], Awaitable[Verdict]]
"""One attempt. It must not raise for anything the server does, and must end by itself within its own limit."""


def good(detail: str = "", *, peer_pid: int = 0) -> Verdict:
    """It works."""
    return Verdict(Answer.GOOD, detail, peer_pid=peer_pid)


def waiting(detail: str, *, recovering: bool = False) -> Verdict:
    """Not yet."""
    return Verdict(Answer.WAITING, detail, recovering=recovering)


def fatal(detail: str) -> Verdict:
    """It will not work without a change; `detail` names the way out."""
    return Verdict(Answer.FATAL, detail)
