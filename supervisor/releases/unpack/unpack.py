"""Unpacking as the supervisor sees it: a child that is told what to do, watched, and checked."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio

import supervisor
from supervisor.process.child import Child, Command, Exit, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.releases.manifest import Manifest, Tree
from supervisor.releases.model import Compression, ReleaseError
from supervisor.releases.unpack.job import Job
from supervisor.releases.unpack.limits import MAX_ENTRIES, Limits
from supervisor.releases.unpack.refusal import BUILD_AGAIN, SEND_AGAIN, refusal
from supervisor.releases.unpack.report import Made, Progress, Report

_RING_BYTES = 256 * 1024
_SPARE_LINES = 300  # beside its progress, which it tells four times a second
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class UnpackJob:
    """What to unpack, and where.

    `archive` is our private copy; `size` and `sha256` (hex) are what it was verified to have. `destination` must not be
    there yet, its parent must. `max_bytes` and `max_entries` bound the tree; `expected` is what it must be, None where
    there is no manifest. With `case_insensitive` names that differ by case or composition only are refused. `mtime` is
    that of `Job`.
    """

    archive: Path
    size: int
    sha256: str
    compression: Compression
    destination: Path
    max_bytes: int
    max_entries: int = MAX_ENTRIES
    expected: Tree | None = None
    case_insensitive: bool = False
    mtime: int | None = None

    @classmethod
    def of(cls, manifest: Manifest, archive: Path, destination: Path, *, case_insensitive: bool = False) -> Self:
        """The job that a manifest asks for."""
        return cls(
            archive=archive,
            size=manifest.archive.size,
            sha256=manifest.archive.sha256,
            compression=manifest.archive.compression,
            destination=destination,
            max_bytes=manifest.tree.bytes,
            max_entries=min(MAX_ENTRIES, manifest.tree.entries),
            expected=manifest.tree,
            case_insensitive=case_insensitive,
            # Archives have one fixed time: a web server that tells files apart by size and time would not see a change.
            mtime=int(manifest.created.timestamp()),
        )


@dataclass(frozen=True)
class Unpacked:
    """The tree at `destination`, not synced to the disk. `info` is what lay beside it as `deployment-info.json`."""

    entries: int
    bytes: int
    digest: str
    info: dict[str, object] | None
    elapsed_seconds: float


class Unpacker:
    """A child that has started and waits for its job, of which it takes one. Made by `ready`."""

    def __init__(self, child: Child, ring: Ring, jobs: int) -> None:
        self._child = child
        self._ring = ring
        self._jobs = jobs

    async def unpack(self, job: UnpackJob, *, on_progress: OnProgress, limit_seconds: float) -> Unpacked:
        """See `unpack`."""
        started = time.monotonic()
        report = Report(max_lines=_SPARE_LINES + 5 * math.ceil(limit_seconds))
        ended: Exit | None = None
        try:
            self._give(_job(job, limit_seconds))
            with anyio.move_on_after(limit_seconds):
                ended = await _watch(self._child, self._ring, report, on_progress)
        finally:
            await self.end()
        if ended is None:
            raise refusal(
                f"it was not done within {limit_seconds:g} s", "look how busy the disk is, or allow more time"
            )
        made = _result(report, ended)
        _compare(job, made)
        return Unpacked(made.entries, made.bytes, made.digest, _info(report), time.monotonic() - started)

    def _give(self, job: Job) -> None:
        data = job.as_json()
        # One that is gone already cannot take it; how it ended says more than that.
        with contextlib.suppress(BrokenPipeError):
            if _put(self._jobs, data) < len(data):
                raise refusal("the program that unpacks it does not take its job", "try again")
        self._close()

    def _close(self) -> None:
        if self._jobs >= 0:
            os.close(self._jobs)
            self._jobs = -1

    async def end(self) -> None:
        """Nothing of it is left then; 2 s at most, and not to be cancelled."""
        self._close()
        with anyio.CancelScope(shield=True):
            await self._child.kill()


@contextlib.asynccontextmanager
async def ready(reaper: Reaper) -> AsyncIterator[Unpacker]:
    """A child that is ready when its job comes, as its start takes a tenth of a second. It ends with the block.

    Raises ReleaseError where it cannot be started.
    """
    ring = Ring("unpack", max_bytes=_RING_BYTES)
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    try:
        unpacker = Unpacker(_spawn(reaper, ring, theirs), ring, ours)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        yield unpacker
    finally:
        await unpacker.end()


async def unpack(reaper: Reaper, job: UnpackJob, *, on_progress: OnProgress, limit_seconds: float) -> Unpacked:
    """Unpack an archive in a child process; `on_progress` is called up to four times a second and must not raise.

    Raises ReleaseError, saying what is wrong with the archive and what to do. After that, and after a cancellation
    (which kills the child, 2 s at most), what was made until then lies at `destination`: the caller deletes it. The
    child's word is taken for the digest only as far as it is the expected one; whoever must know what really lies
    there walks the tree.
    """
    async with ready(reaper) as unpacker:
        return await unpacker.unpack(job, on_progress=on_progress, limit_seconds=limit_seconds)


def _spawn(reaper: Reaper, ring: Ring, stdin: int) -> Child:
    # No more of our environment than it needs; the folder of this very package, so that the child is of our version.
    package = Path(supervisor.__file__).parent.parent
    environment = {"PATH": os.defpath, "PYTHONPATH": str(package), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = (sys.executable, "-P", "-m", "supervisor.releases.unpack.child")
    command = Command(name="unpack", argv=argv, env=environment, cwd="/", stdin=stdin, umask=0o022)
    try:
        return reaper.spawn(command, ring)
    except OSError as error:
        raise ReleaseError(explain_spawn_error(command, error)) from error


def _job(job: UnpackJob, limit_seconds: float) -> Job:
    return Job(
        archive=str(job.archive.absolute()),
        size=job.size,
        sha256=job.sha256,
        compression=job.compression,
        destination=str(job.destination.absolute()),
        limits=Limits(job.max_bytes, min(job.max_entries, MAX_ENTRIES), cpu_seconds=math.ceil(limit_seconds) + 1),
        parent=os.getpid(),
        case_insensitive=job.case_insensitive,
        mtime=job.mtime,
    )


def _put(pipe: int, data: bytes) -> int:
    """How much of it the pipe took; it has room for more than a job, unless the system is out of memory for pipes."""
    try:
        return os.write(pipe, data)
    except BlockingIOError:
        return 0


async def _watch(child: Child, ring: Ring, report: Report, on_progress: OnProgress) -> Exit:
    heard = 0

    async def listen() -> None:
        nonlocal heard
        async for line in ring.follow(0):
            heard = line.number
            before = report.progress
            report.hear(line.stream, line.text)
            if report.broken:
                child.signal_group(signal.SIGKILL)
                return
            if report.progress != before:
                on_progress(report.progress)

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        ended = await child.wait()
        group.cancel_scope.cancel()
    for line in ring.since(heard):
        report.hear(line.stream, line.text)
    return ended


def _result(report: Report, ended: Exit) -> Made:
    if report.broken:
        raise refusal(f"the program that unpacks it is not itself any more ({report.broken})", BUILD_AGAIN)
    if report.reason:
        raise ReleaseError(report.reason)
    if report.made is None or not ended.clean:
        raise _explain(report, ended)
    return report.made


def _explain(report: Report, ended: Exit) -> ReleaseError:
    if ended.signal == signal.SIGXCPU:
        return refusal("it took more processor time than it may", "make the release smaller, or allow more time")
    if ended.signal is not None:
        return refusal(
            f"the program that unpacks it was {ended}", "look whether the container is out of memory, then try again"
        )
    words = report.last_words or "it said nothing"
    return refusal(f"the program that unpacks it {ended} ({words})", "try again")


def _compare(job: UnpackJob, made: Made) -> None:
    if made.sha256 != job.sha256:
        raise refusal(f"the file has the SHA-256 {made.sha256}, not {job.sha256} as announced", SEND_AGAIN)
    if (tree := job.expected) is None:
        return
    if (made.entries, made.bytes) != (tree.entries, tree.bytes):
        raise refusal(
            f"it holds {made.entries} entries and {made.bytes} bytes, its manifest says {tree.entries} and {tree.bytes}"
        )
    if made.digest != tree.digest:
        raise refusal(f"the tree in it has the digest {made.digest}, its manifest says {tree.digest}")


def _info(report: Report) -> dict[str, object] | None:
    try:
        return report.info()
    except (ValueError, RecursionError):
        raise refusal("the program that unpacks it is not itself any more (its record is none)", BUILD_AGAIN) from None
