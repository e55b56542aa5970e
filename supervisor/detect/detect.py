"""Detection: the app is run, what ended it is set, it is run again, until it goes on or nothing explains its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from supervisor.detect.attempt import Launch, run_once
from supervisor.detect.entry import Entry, Runtime, find_entry
from supervisor.detect.judge import Search, advance, is_needed, settle
from supervisor.detect.launch import Order, installations, make_launch
from supervisor.detect.model import Detected, DetectionError, Ending, Reader, Run
from supervisor.detect.sources import SourceFiles
from supervisor.detect.summary import Finding, summarize, telling, why_incomplete
from supervisor.detect.typescript import Loader, loader_for
from supervisor.process.reaper import Reaper

MAX_RUNS = 60
_LEAST_SECONDS = 0.3
_VERSION_SECONDS = 5.0
_QUOTED_LINES = 12


@dataclass
class _Runs:
    """The runs of one detection, within its deadline and their number."""

    reaper: Reaper
    launch: Launch
    deadline: float
    done: list[Run] = field(default_factory=list)

    @property
    def may_go_on(self) -> bool:
        return len(self.done) < MAX_RUNS and self.deadline - anyio.current_time() > _LEAST_SECONDS

    async def run(self, search: Search) -> Run:
        seconds = max(self.deadline - anyio.current_time(), _LEAST_SECONDS)
        run = await run_once(self.reaper, self.launch, search.given, seconds=seconds)
        self.done.append(run)
        return run


async def detect(order: Order) -> Detected:
    """What the entry reads. Takes `order.seconds` at most, but for a moment to end the last run.

    Raises DetectionError where it cannot be run, or ends before it has read anything. Cancelled, it ends the app.
    """
    begun = anyio.current_time()
    entry = find_entry(order.entry, order.app_dir, order.path)
    async with _reaping() as reaper:
        loader = await _loader(reaper, entry, order) if entry.runtime is Runtime.TYPESCRIPT else None
        launch = make_launch(order, entry, loader)
        runs = _Runs(reaper, launch, begun + order.seconds)
        search, best = await _search(runs, order)
        needed, proved = await _eliminate(runs, search, best)
    finding = Finding(tuple(runs.done), frozenset(needed), best, proved)
    return summarize(
        Detected(
            entry=order.entry,
            runtime=entry.runtime if loader is None else f"{entry.runtime} ({loader.name})",
            app_dir=str(order.app_dir),
            required=(),
            optional=(),
            by_libraries=(),
            contained=best.contained,
            hidden=launch.hidden if best.contained.holds("files") else (),
            runs=len(runs.done),
            seconds=round(anyio.current_time() - begun, 1),
            why=why_incomplete(finding, order.seconds),
        ),
        finding,
        SourceFiles(order.app_dir),
    )


@asynccontextmanager
async def _reaping() -> AsyncIterator[Reaper]:
    """A reaper for the time of the block, whose error comes out as it is, not in a group."""
    failed: DetectionError | None = None
    async with anyio.create_task_group() as group:
        reaper = Reaper()
        await group.start(reaper.run)
        try:
            yield reaper
        except DetectionError as error:
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def _loader(reaper: Reaper, entry: Entry, order: Order) -> Loader:
    keep = installations(entry.program, order.path)
    launch = Launch("node --version", (entry.program, "--version"), str(order.app_dir), {"PATH": order.path}, keep)
    run = await run_once(reaper, launch, {}, seconds=_VERSION_SECONDS)
    return loader_for("\n".join(run.output), order.app_dir)


async def _search(runs: _Runs, order: Order) -> tuple[Search, Run]:
    """Run it with more and more set, until it goes on, or no variable explains its end."""
    search, before = Search(), None
    run = await runs.run(search)
    _check_begun(order, run)
    while runs.may_go_on:
        further = advance(search, before, run, order.given or ())
        if further is None:
            break
        search, before = further, run
        run = await runs.run(search)
    return settle(search, before, run), run


def _check_begun(order: Order, run: Run) -> None:
    if run.failed and all(read.by is Reader.RUNTIME for read in run.reads):
        last = "\n".join(f"  {line}" for line in telling(run)[-_QUOTED_LINES:]) or "  (it wrote nothing)"
        raise DetectionError(
            f"cannot detect what {order.entry!r} reads: it ended with {run.status} before it had read anything; make "
            f"it start, then ask again; its last lines:\n{last}"
        )


async def _eliminate(runs: _Runs, search: Search, best: Run) -> tuple[list[str], bool]:
    """Take each doubtful variable away again, one after the other; gives what is needed, and whether all was tried."""
    if best.ending in (Ending.BUSY, Ending.FLOODED):
        return [*search.proved, *search.doubtful], not search.doubtful
    for name in search.doubtful:
        if not runs.may_go_on:
            return [*search.proved, *search.doubtful], False
        run = await runs.run(search.without(name))
        unknown = run.ending in (Ending.BUSY, Ending.FLOODED)
        search = search.proving(name) if unknown or is_needed(best, run) else search.without(name)
    return list(search.proved), True
