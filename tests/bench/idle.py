"""Memory, threads, descriptors and wake-ups of a supervisor that has nothing to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import procfs
from tests.bench.figures import Row, Section
from tests.bench.others import s6_argv, supervisord_argv
from tests.bench.rig import (
    PROGRAMS,
    PYTHON,
    Plan,
    Ports,
    Started,
    Supervisor,
    alone,
    folder,
    free_port,
    missing,
    notes_stack,
    wait_until,
)

MEMORY_MIB, WAKEUPS = 60.0, 2.0
SETTLE_SECONDS = 3.0
OURS = ("embedded", "no-services")
WHY = (
    "0.4 a second compares the trigger file, 0.1 is the reaper's tick, 0.5 starts the probes of services, app and "
    "route every 10 s, the rest waits for their answers, six times for a login to Postgres"
)
THREAD_RATE = 10.0
METHOD = (
    "The whole embedded stack with examples/notes, then `--no-services` with one small app, left alone; "
    "supervisord and s6 over four programs that sleep. Memory of the supervisor itself (s6: of all its processes) "
    "at the end, RSS and PSS from smaps_rollup; wake-ups are voluntary context switches a second over the window, "
    "summed over threads. watchfiles' own are counted apart: a thread named after notify, or one that is not the "
    f"main thread and wakes at least {THREAD_RATE:g} times a second (its loop wakes every 50 ms). docker: the "
    "modules imported in a whole life of the stack, boot, reload and stop, are listed by `python -X importtime`."
)


@dataclass(frozen=True)
class Seen:
    """One idle window; per thread (name, switches a second, whether watchfiles')."""

    rss: float
    pss: float
    threads: list[tuple[str, float, bool]]
    cpu_share: float
    descriptors: int

    def rate(self, *, theirs: bool) -> float:
        """Wake-ups a second of watchfiles' threads, or of all others."""
        return sum(rate for _, rate, is_theirs in self.threads if is_theirs is theirs)


def run(plan: Plan) -> Section:
    """Everybody at the same time, in each run from a fresh start."""
    section = Section(name="idle", title="idle memory and wake-ups", method=METHOD)
    seconds = 10.0 if plan.quick else 60.0
    section.notes.append(f"window: {seconds:g} s, beginning {SETTLE_SECONDS:g} s after the boot, all at the same time")
    runs: dict[str, list[Seen]] = {}
    for number in range(plan.runs(3, 1)):
        plan.say(f"window {number + 1}")
        for name, seen in _window(seconds).items():
            runs.setdefault(name, []).append(seen)
    for name, all_seen in runs.items():
        section.rows.extend(_rows(name, all_seen))
        if name in OURS:
            section.notes.append(f"{name}, threads of the last run: {_threads(all_seen[-1])}")
    plan.say("imports")
    with folder() as home:
        section.rows.append(Row(what="docker modules imported, embedded", values=[_docker(home)], target=0))
    return section


def _window(seconds: float) -> dict[str, Seen]:
    """Start everybody, leave them alone, look."""
    programs = {f"app{number}": ["sleep", "3600"] for number in range(4)}
    with ExitStack() as scope:
        home = scope.enter_context(folder())
        for name in OURS:
            (home / name).mkdir()
        whole = scope.enter_context(notes_stack(home / OURS[0], Ports.choose()))
        single = scope.enter_context(_one_app(home / OURS[1]))
        groups = {OURS[0]: [whole.pid], OURS[1]: [single.pid]}
        if not missing("supervisord"):
            argv = supervisord_argv(home / "supervisord", programs)
            one = scope.enter_context(Started(argv, log=home / "supervisord.out"))
            groups["supervisord"] = [one.pid]
            _wait_children(one)
        if not missing("s6-svscan"):
            one = scope.enter_context(Started(s6_argv(home / "s6", programs), log=home / "s6.out"))
            _wait_children(one)
            groups["s6"] = [one.pid, *procfs.children(one.pid)]
        whole.booted()
        single.booted()
        time.sleep(SETTLE_SECONDS)
        return dict(zip(groups, _watch(list(groups.values()), seconds), strict=True))


def _wait_children(started: Started) -> None:
    wait_until(lambda: len(procfs.children(started.pid)) >= 4, what="four children")


def _one_app(home: Path) -> Supervisor:
    return alone(home, free_port(), [PYTHON, "-I", "-S", str(PROGRAMS / "app.py")])


def _watch(groups: Sequence[Sequence[int]], seconds: float) -> list[Seen]:
    """Look at groups of processes, leave them alone, look again."""
    pids = [pid for group in groups for pid in group]
    before = {pid: (procfs.switches(pid), procfs.cpu_seconds(pid)) for pid in pids}
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    after = {pid: (procfs.switches(pid), procfs.cpu_seconds(pid)) for pid in pids}
    return [_seen(group, before, after, elapsed) for group in groups]


Look = dict[int, tuple[dict[int, tuple[str, int]], float]]


def _seen(group: Sequence[int], before: Look, after: Look, elapsed: float) -> Seen:
    threads = []
    for pid in group:
        for thread, (name, count) in after[pid][0].items():
            rate = (count - before[pid][0].get(thread, (name, 0))[1]) / elapsed
            theirs = thread != pid and ("notify" in name or rate >= THREAD_RATE)
            threads.append((name, rate, theirs))
    memory = [procfs.memory_mib(pid) for pid in group]
    return Seen(
        rss=sum(rss for rss, _ in memory),
        pss=sum(pss for _, pss in memory),
        threads=threads,
        cpu_share=sum(after[pid][1] - before[pid][1] for pid in group) / elapsed * 1000,
        descriptors=sum(procfs.descriptors(pid) for pid in group),
    )


def _threads(seen: Seen) -> str:
    return ", ".join(f"{name} {rate:.2f}/s{' (watchfiles)' if theirs else ''}" for name, rate, theirs in seen.threads)


def _rows(name: str, runs: Sequence[Seen]) -> list[Row]:
    is_ours = name in OURS
    memory, wakeups = (MEMORY_MIB if name == OURS[0] else None), (WAKEUPS if is_ours else None)
    rows = [
        Row(what=f"{name}: RSS", values=[seen.rss for seen in runs], unit="MiB", target=memory),
        Row(what=f"{name}: PSS", values=[seen.pss for seen in runs], unit="MiB"),
        Row(
            what=f"{name}: wake-ups a second",
            values=[seen.rate(theirs=False) for seen in runs],
            unit="/s",
            target=wakeups,
            why=WHY,
        ),
        Row(what=f"{name}: processor time a second", values=[seen.cpu_share for seen in runs], unit="ms"),
        Row(what=f"{name}: threads", values=[len(seen.threads) for seen in runs]),
        Row(what=f"{name}: descriptors", values=[seen.descriptors for seen in runs]),
    ]
    if is_ours:
        theirs = [seen.rate(theirs=True) for seen in runs]
        rows.insert(3, Row(what=f"{name}: wake-ups a second of watchfiles' own", values=theirs, unit="/s"))
    return rows


def _docker(home: Path) -> int:
    """How many modules of docker a whole life of the stack imports."""
    place = home / "imports"
    place.mkdir()
    python = [sys.executable, "-X", "importtime", "-m", "supervisor"]
    with notes_stack(place, Ports.choose(), python=python) as stack:
        stack.booted()
        (place / "notes" / ".reload-trigger").touch()
        stack.wait("reload.finished")
    lines = stack.log.with_suffix(".stderr").read_text().splitlines()
    modules = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    assert "asyncio" in modules, "the list of imports is not there"
    return sum(module.partition(".")[0] == "docker" for module in modules)
