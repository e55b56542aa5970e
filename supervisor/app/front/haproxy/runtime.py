"""HAProxy's runtime API: commands over its unix socket, and its statistics as typed values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import anyio

from supervisor.app.front.haproxy.lines import LOOPBACK, NOBODY, Lines
from supervisor.app.front.model import FrontError

BACKEND = "BACKEND"
_REPLY_BYTES = 4 * 1024 * 1024
_MAINTENANCE = "MAINT"
_ANSWERS = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")
# `wretr` and `wredis` count tries that were refused and then made again, `econ` those that were the last.
_REFUSED = ("econ", "wretr", "wredis")


@dataclass(frozen=True)
class Counts:
    """Counters of a server line, since HAProxy was started; `sessions` counts tries, too.

    `answered` counts all answers, `interim` those with 1xx among them, `refused` tries that made no connection,
    `broken` what HAProxy calls response errors, `cut` answers that ended too soon.
    """

    sessions: int = 0
    answered: int = 0
    failed: int = 0
    interim: int = 0
    refused: int = 0
    broken: int = 0
    cut: int = 0

    def lost(self, busy: int) -> int:
        """How many were sent and got no whole answer; `busy` are those in flight.

        HAProxy (2.6 and 3.0) counts one that the app reset as broken twice, and one that its client reset, too: no more
        are lost without an answer than have none.
        """
        unanswered = self.sessions - self.refused - (self.answered - self.interim) - busy
        return self.cut + max(0, min(self.broken - self.cut, unanswered))

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Stat:
    """One row of `show stat`: a server line, or (`server` is BACKEND) its whole backend. `busy` is what goes on."""

    proxy: str
    server: str
    ready: bool
    address: str
    weight: int
    busy: int
    counts: Counts


class Statistics:
    """The rows of one moment, by backend and server."""

    def __init__(self, rows: Iterable[Stat]) -> None:
        self._rows = {(row.proxy, row.server): row for row in rows}

    def of(self, backend: str, server: str) -> Stat:
        """Raises FrontError for one that HAProxy does not have."""
        try:
            return self._rows[backend, server]
        except KeyError:
            raise FrontError(
                f"cannot read the statistics of {backend}/{server}: HAProxy does not list it; "
                f"its configuration is not ours, or the answer was cut"
            ) from None


class Runtime:
    """The API at a unix socket; a connection an `ask`, so any number may ask at once.

    While HAProxy is being started again the connection waits, within the same limit.
    """

    def __init__(self, path: Path, *, limit_seconds: float = 5.0) -> None:
        self._path = path
        self._limit_seconds = limit_seconds

    async def ask(self, *commands: str) -> str:
        """Run `commands` in order, all in one line; gives what they print. Raises FrontError.

        HAProxy goes on after one that it refuses, and says so only in words: read back what matters.
        """
        try:
            with anyio.fail_after(self._limit_seconds):
                return await self._ask(";".join(commands) + "\n")
        except TimeoutError:
            raise FrontError(
                f"cannot command HAProxy: no answer within {self._limit_seconds:g} s; is its process stopped, or the "
                f"machine overloaded?"
            ) from None
        except (OSError, anyio.BrokenResourceError) as error:
            raise FrontError(
                f"cannot command HAProxy: {error or 'it closed the connection'}; if it just ended it is started again"
            ) from error

    async def _ask(self, line: str) -> str:
        reply = bytearray()
        async with await anyio.connect_unix(self._path) as stream:
            await stream.send(line.encode())
            try:
                while len(reply) <= _REPLY_BYTES:
                    reply += await stream.receive()
            except anyio.EndOfStream:
                if reply:
                    return reply.decode(errors="replace")
                raise FrontError("cannot command HAProxy: it ended within the command; it is started again") from None
        raise FrontError(
            f"cannot command HAProxy: its answer is longer than {_REPLY_BYTES} bytes; ask for less at once"
        )

    async def statistics(self, names: Sequence[str]) -> Statistics:
        """The rows of these backends, and of their servers."""
        return Statistics(parse(await self.ask(*(f"show stat {name} -1 -1" for name in names))))


def parse(text: str) -> Iterable[Stat]:
    """The rows of one or more `show stat` answers; columns by their names, as versions add some and leave some out."""
    header: list[str] = []
    for row in csv.reader(text.splitlines()):
        if row and row[0].startswith("# "):
            header = [row[0][2:], *row[1:]]
        elif len(row) > 1 and header:
            yield _stat(dict(zip(header, row, strict=False)))


def _stat(row: Mapping[str, str]) -> Stat:
    return Stat(
        proxy=row.get("pxname", ""),
        server=row.get("svname", ""),
        ready=not row.get("status", _MAINTENANCE).startswith(_MAINTENANCE),
        address=row.get("addr", ""),
        weight=_number(row, "weight"),
        busy=_number(row, "scur"),
        counts=Counts(
            sessions=_number(row, "stot"),
            answered=sum(_number(row, name) for name in _ANSWERS),
            failed=_number(row, "hrsp_5xx"),
            interim=_number(row, "hrsp_1xx"),
            refused=sum(_number(row, name) for name in _REFUSED),
            broken=_number(row, "eresp"),
            cut=_number(row, "srv_abrt"),
        ),
    )


def _number(row: Mapping[str, str], name: str) -> int:
    """A column that is empty or missing (HTTP's, for plain TCP) counts nothing."""
    text = row.get(name, "")
    return int(text) if text.isdecimal() else 0


def difference(names: Sequence[str], lines: Lines, found: Statistics) -> str:
    """The first line that is not as it should be in one of the backends, in words; "" where all are."""
    for backend in names:
        nobody = found.of(backend, NOBODY)
        if nobody.ready != lines.waiting:
            return f"{backend}/{NOBODY} is {_rotation(nobody.ready)}"
        for line in lines.servers:
            row = found.of(backend, line.name)
            weight = line.weight if line.ready else row.weight  # out of rotation it means nothing, and is not kept up
            if (row.ready, row.address, row.weight) != (line.ready, f"{LOOPBACK}:{line.port}", weight):
                return f"{backend}/{line.name} is {_rotation(row.ready)} at {row.address} with weight {row.weight}"
    return ""


def _rotation(ready: bool) -> str:
    return "in rotation" if ready else "out of rotation"
