"""Signals to the supervisor: what each means, and the loop that hands them on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from enum import StrEnum

import anyio
from anyio.abc import TaskStatus


class Meaning(StrEnum):
    """What a signal asks for."""

    RELOAD = "reload"
    STOP = "stop"
    DUMP = "dump"
    FORWARD = "forward"


# Never ours to handle: synchronous faults, what cannot be caught, job control, and the reaper's own.
_NOT_HANDLED = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGCHLD,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGABRT,
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGPROF,
        signal.SIGVTALRM,
    }
)
_STOP = frozenset({int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGRTMIN) + 3})


def handled() -> list[int]:
    """Every signal the daemon handles, by number."""
    return sorted(int(number) for number in signal.valid_signals() if number not in _NOT_HANDLED)


def meaning(number: int) -> Meaning:
    """What a handled signal asks for; RTMIN+3 is systemd's word for an orderly halt of a container."""
    if number in _STOP:
        return Meaning.STOP
    if number == signal.SIGHUP:
        return Meaning.RELOAD
    if number == signal.SIGQUIT:
        return Meaning.DUMP
    return Meaning.FORWARD


def name_of(number: int) -> str:
    """`TERM`, `RTMIN+3`."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - int(signal.SIGRTMIN)}"


class SignalLoop:
    """Hands each signal to `on_signal`; those latched before the loop was up come first."""

    def __init__(self, latched: Iterable[int], on_signal: Callable[[int], None]) -> None:
        self._latched = latched
        self._on_signal = on_signal

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; ready once the handlers are in place and what was latched is replayed."""
        with anyio.open_signal_receiver(*map(_as_signal, handled())) as received:
            for number in list(self._latched):
                self._on_signal(number)
            task_status.started()
            async for number in received:
                self._on_signal(number)


def _as_signal(number: int) -> signal.Signals:
    # Real-time signals between RTMIN and RTMAX have no member in the enum, but the loop takes plain numbers too.
    return number  # type: ignore[return-value]
