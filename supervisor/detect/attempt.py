"""One run of the app: started in its jail, its records taken, ended when it is quiet or the time is over."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.detect.model import DetectionError, Ending, Run
from supervisor.detect.records import Records
from supervisor.process import procfs
from supervisor.process.child import Child, Command, explain_spawn_error
from supervisor.process.jail import Jail, jailed, read_contained
from supervisor.process.output import Line, Ring
from supervisor.process.reaper import Reaper

PRELOAD = Path(__file__).parent / "preload"
QUIET_SECONDS = 1.0
_TICK_SECONDS = 0.1
_BUSY_SHARE = 0.2
_RING_BYTES = 16 * 1024
_READ_BYTES = 64 * 1024
_KEPT_LINES = 50
_MIN_MASKED_LENGTH = 4  # shorter ones are parts of ordinary words
_LINE_LENGTH = 500
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")


class Output:
    """The last lines of each stream: an app that floods one must not push its last words out of the other."""

    def __init__(self, masked: Sequence[str] = ()) -> None:
        self._masked = sorted((text for text in masked if len(text) >= _MIN_MASKED_LENGTH), key=len, reverse=True)
        self._kept: dict[str, deque[str]] = {name: deque(maxlen=_KEPT_LINES) for name in ("stdout", "stderr")}

    def add(self, line: Line) -> None:
        """Take a line, without the values that must not be shown."""
        text = line.text
        for value in self._masked:
            text = text.replace(value, "***")
        self._kept[line.stream].append(plain(text))

    @property
    def lines(self) -> tuple[str, ...]:
        """Those of stderr after the others: the order of two pipes is nobody's."""
        return tuple(line for kept in self._kept.values() for line in kept)


@dataclass(frozen=True)
class Launch:
    """How the app is run, the same each time. `environ` is all that it gets beside what is tried; `masked` are values
    that its output is shown without.
    """

    name: str
    argv: tuple[str, ...]
    app_dir: str
    environ: Mapping[str, str]
    keep: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


async def run_once(reaper: Reaper, launch: Launch, given: Mapping[str, str], *, seconds: float) -> Run:
    """Run it for that long at most; all that it started is gone when this returns, also when it is cancelled.

    Raises DetectionError where it cannot be started.
    """
    scratch = tempfile.mkdtemp(prefix="supervisor-detect-")
    try:
        for folder in ("home", "tmp"):
            os.mkdir(os.path.join(scratch, folder))
        return await _run_in(reaper, launch, given, scratch, seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _run_in(reaper: Reaper, launch: Launch, given: Mapping[str, str], scratch: str, seconds: float) -> Run:
    pipe = os.path.join(scratch, "records")
    os.mkfifo(pipe, 0o600)
    records, output = Records(), Output(launch.masked)
    # Held open for writing too: no end of the file when one process of the app has written its last.
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    told, report = os.pipe2(os.O_CLOEXEC)
    try:
        command = _command(launch, given, scratch, pipe)
        jail = Jail(
            scratch=scratch,
            keep=(*launch.keep, launch.app_dir, str(PRELOAD), pipe),
            hidden=launch.hidden,
            cpu_seconds=int(seconds) + 2,
        )
        try:
            child = reaper.spawn(
                jailed(command, jail, report), Ring(launch.name, max_bytes=_RING_BYTES, on_line=output.add)
            )
        except OSError as error:
            raise DetectionError(explain_spawn_error(command, error)) from error
        finally:
            os.close(report)
        async with _reading(descriptor, records):
            ending = await _watch(child, records, seconds)
        _take(descriptor, records)
        contained = read_contained(told)
    finally:
        os.close(descriptor)
        os.close(told)
    status = child.exit.status if child.exit is not None else 0
    return Run(tuple(records.reads), ending, status, output.lines, dict(given), contained)


def _command(launch: Launch, given: Mapping[str, str], scratch: str, pipe: str) -> Command:
    own = {
        "HOME": os.path.join(scratch, "home"),
        "TMPDIR": os.path.join(scratch, "tmp"),
        "SUPERVISOR_DETECT_RECORDS": pipe,
    }
    return Command(launch.name, launch.argv, {**own, **launch.environ, **given}, cwd=launch.app_dir)


async def _watch(child: Child, records: Records, seconds: float) -> Ending:
    """Wait until it ends, is quiet, or the time is over; then it is gone."""
    ending = Ending.BUSY
    try:
        with anyio.move_on_after(seconds):
            ending = await _first(child, records)
    finally:
        with anyio.CancelScope(shield=True):
            await child.kill()
    return ending


async def _first(child: Child, records: Records) -> Ending:
    """What comes first: its end, too many records, or a while without a read in which it did next to nothing.

    A look at a regular interval, as a process that does nothing gives no sign.
    """
    seen: deque[Sample] = deque()
    lines = -1
    while True:
        with anyio.move_on_after(_TICK_SECONDS):
            await child.wait()
            return Ending.EXITED
        if records.full:
            return Ending.FLOODED
        now = anyio.current_time()
        if records.lines != lines:
            lines = records.lines
            seen.clear()
        seen.append(Sample(now, *procfs.session_work(child.pid)))
        if is_quiet(seen):
            return Ending.QUIET
        while seen[-1].at - seen[0].at > QUIET_SECONDS + _TICK_SECONDS:
            seen.popleft()


@dataclass(frozen=True)
class Sample:
    """A look at the app's processes: what they have used of a CPU, and whether one wanted it just then."""

    at: float
    cpu_seconds: float
    wanting: bool


def is_quiet(seen: Sequence[Sample]) -> bool:
    """Whether the looks since the last read span a second of hardly any work, done or waited for."""
    span = seen[-1].at - seen[0].at
    if span < QUIET_SECONDS or 2 * sum(sample.wanting for sample in seen) > len(seen):
        return False
    return seen[-1].cpu_seconds - seen[0].cpu_seconds < _BUSY_SHARE * span


@asynccontextmanager
async def _reading(descriptor: int, records: Records) -> AsyncIterator[None]:
    """Take records as they come, so that the app never waits; beyond the limit too, when they are dropped."""

    async def take() -> None:
        while True:
            await anyio.wait_readable(descriptor)
            _take(descriptor, records, reads=1)

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


def _take(descriptor: int, records: Records, *, reads: int = 16) -> None:
    with contextlib.suppress(BlockingIOError):
        for _ in range(reads):
            records.feed(os.read(descriptor, _READ_BYTES))


def plain(text: str) -> str:
    """A line of the app's output without what moves a terminal; cut where it is long."""
    stripped = _ESCAPES.sub("", text).replace("\t", "    ")
    return "".join(character for character in stripped if character.isprintable())[:_LINE_LENGTH]
