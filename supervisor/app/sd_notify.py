"""The words of sd_notify(3): what is known of a generation after each datagram. Pure; the socket is in `notify`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

MAX_DATAGRAM_BYTES = 4096
MAX_EXTENSION_SECONDS = 3600.0
MAX_STATUS_CHARACTERS = 200
_MICRO = 1e-6


@dataclass(frozen=True)
class Said:
    """All that was said, times in monotonic seconds. `reloading_since` is when it says its reload began.

    `main_pid` is recorded and nothing else: we know our child.
    """

    said_ready: bool = False
    stopping: bool = False
    reloading_since: float | None = None
    status: str = ""
    extended_until: float = 0.0
    watchdog_at: float | None = None
    main_pid: int | None = None

    @property
    def ready(self) -> bool:
        """READY=1, and nothing since that takes it back."""
        return self.said_ready and not self.stopping and self.reloading_since is None


def listen_to(said: Said, datagram: bytes, now: float) -> Said:
    """What is known after one datagram. Unknown keys, bad values and overlong ones change nothing; never raises."""
    if len(datagram) > MAX_DATAGRAM_BYTES:
        return said
    told = dict(_assignments(datagram))
    if told.get("READY") == "1":
        said = replace(said, said_ready=True, reloading_since=None)
    if told.get("RELOADING") == "1" and told.get("READY") != "1":
        began = _number(told.get("MONOTONIC_USEC"))
        said = replace(said, reloading_since=now if began is None else min(began * _MICRO, now))
    if told.get("STOPPING") == "1":
        said = replace(said, stopping=True)
    if "STATUS" in told:
        said = replace(said, status=_one_line(told["STATUS"]))
    if told.get("WATCHDOG") == "1":
        said = replace(said, watchdog_at=now)
    return replace(
        said,
        extended_until=max(said.extended_until, _extension(told.get("EXTEND_TIMEOUT_USEC"), now)),
        main_pid=_number(told.get("MAINPID")) or said.main_pid,
    )


def _assignments(datagram: bytes) -> Iterator[tuple[str, str]]:
    for line in datagram.decode(errors="replace").split("\n"):
        name, separator, value = line.partition("=")
        if separator:
            yield name, value


def _number(text: str | None) -> int | None:
    """A whole number of at most 64 bits, as the protocol has them; `int` alone takes `1_0`, signs and other digits."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    return int(text)


def _extension(text: str | None, now: float) -> float:
    """Bounded: an app that asks again and again may have for ever, one that asks once for ever may not."""
    micro = _number(text)
    return 0.0 if not micro else now + min(micro * _MICRO, MAX_EXTENSION_SECONDS)


def _one_line(text: str) -> str:
    """It comes to logs and terminals, so no control characters."""
    return "".join(each if each.isprintable() else " " for each in text[:MAX_STATUS_CHARACTERS]).strip()
