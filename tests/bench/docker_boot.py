"""The boot on an engine, in dind and in socket mode, beside an orchestrator after the original's algorithm."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.bench import docker_figures as figures
from tests.bench.docker_engine import Boot, Contender, Ground, Mode, Original, Ours, Stack, ground
from tests.bench.figures import Row, Section
from tests.bench.rig import Plan, folder

DIND_SECONDS, LATE_MS, MEMORY_MIB = 8.0, 100.0, 80.0
SETTLE_SECONDS = 5.0
FIRST, SECOND = "cold", "second"
METHOD = (
    "examples/notes in the images that are shipped, on one engine, in turns with a program that follows the original's "
    "algorithm as PID 1 of the same image: running for 5 s (Postgres) and 3 s (Redis) in the list of tasks, looked at "
    "after 2 s x 1.5 up to 10 s; Traefik made anew each time, ready after 2 s; a failed boot begun again after 3 s. "
    "Where its description leaves a choice it has the quicker one: both data services at the same time, images by id, "
    "no registry asked, a health check as often as ours. cold: `docker run`; in dind on a fresh data root without a "
    "Swarm in which the images are loaded (a copy of one made by `docker load`, written out before), in socket mode on "
    "an engine with the images and a Swarm, without network, services or volumes. second: `docker start` after "
    "`docker stop`, nothing changed. Ready is when the log says so, from the command on. The prober is a second "
    "process in the container: it asks every 4 ms with the app's own role and host, Postgres by a login and "
    "`SELECT 1`, Redis by `AUTH` and `PING`, Traefik by `/ping`, the app by its health path, and tells the first true "
    "answer; late counts from then, or from the engine's readiness where that came later. Critical path: command to "
    "first line of the log, plus phase engine, plus the longer one of Traefik and of the slower data service with "
    "migrations alone (another client, afterwards) and app (spawn to first 200); a service counts from when the "
    "engine was told to make it to the truth, so Swarm's own time is in it, and in the row below it from its "
    f"container's start. Target: critical path x {figures.FACTOR} + {figures.ALLOWANCE_SECONDS} s."
)
WHY_LATE = "see the parts of the boot"

Table = dict[str, list[float]]


def run(plan: Plan) -> Section:
    """Some rounds of everybody in turns."""
    section = Section(name="docker", title="boot on a Docker engine", method=METHOD)
    tables: dict[tuple[Mode, str, str], Table] = {}
    with ground() as base:
        for number in range(plan.rounds or plan.runs(3, 1)):
            for mode in Mode:
                for contender in (Ours(), Original()):
                    plan.say(f"round {number + 1}: {contender.name}, {mode}")
                    _measure(base, contender, mode, tables)
        section.notes.append(f"engine {_version(base)}; in dind the one of the image, {_inner_version(base)}")
    for mode in Mode:
        section.rows.extend(_rows(mode, tables))
    section.rows.append(_early(tables, "supervisor", target=0))
    section.rows.append(_early(tables, "original", target=None))
    return section


def _measure(base: Ground, contender: Contender, mode: Mode, tables: dict[tuple[Mode, str, str], Table]) -> None:
    ours = contender.name == "supervisor"
    with folder() as home, Stack(base, contender, mode, home) as stack:
        boot = stack.first_boot()
        first = tables.setdefault((mode, contender.name, FIRST), {})
        _add(first, _figures(boot, ours=ours))
        _add(first, {f"late {role}": late for role, late in figures.lateness_ms(boot).items()})
        _add(first, {"early": figures.too_early(boot)})
        if ours:
            time.sleep(SETTLE_SECONDS)
            for name, (rss, pss) in figures.grouped_memory(stack.memory()).items():
                _add(first, {f"memory {name}, RSS": rss, f"memory {name}, PSS": pss})
        before = stack.runs()
        again = stack.second_boot()
        second = tables.setdefault((mode, contender.name, SECOND), {})
        _add(second, _figures(again, ours=ours))
        if mode is Mode.SOCKET:  # inside, all of them end with the engine
            _add(second, {"restarts": figures.restarts(before, stack.runs())})
        else:
            _add(second, {f"late {role}": late for role, late in figures.lateness_ms(again).items()})
            _add(second, {"early": figures.too_early(again)})


def _figures(boot: Boot, *, ours: bool) -> figures.Figures:
    found = {"total": figures.total(boot), **figures.ready_after(boot)}
    if ours:
        found |= {**figures.against_path(boot), **figures.phases(boot), **figures.parts(boot)}
    return found


def _add(table: Table, found: figures.Figures) -> None:
    for name, value in found.items():
        table.setdefault(name, []).append(value)


def _rows(mode: Mode, tables: dict[tuple[Mode, str, str], Table]) -> list[Row]:
    rows: list[Row] = []
    for boot in (FIRST, SECOND):
        ours, theirs = tables[mode, "supervisor", boot], tables[mode, "original", boot]
        for name, values in ours.items():
            if name != "early":
                rows.append(_row(f"{mode}, {boot}", name, values))
                rows += _beside(f"{mode}, {boot}", name, theirs.get(name, []), values)
    return rows


def _beside(where: str, name: str, theirs: Sequence[float], ours: Sequence[float]) -> list[Row]:
    if not theirs:
        return []
    row = _row(f"{where}, original", name, theirs)
    return [Row(what=row.what, values=theirs, unit=row.unit, ours=ours)]


def _row(where: str, name: str, values: Sequence[float]) -> Row:
    kind, _, rest = name.partition(" ")
    match kind:
        case "late":
            what = f"{where}: {rest} said ready late by"
            return Row(what=what, values=values, unit="ms", target=LATE_MS, why=WHY_LATE)
        case "memory":
            target = MEMORY_MIB if rest == "PID 1, RSS" else None
            return Row(what=f"{where}, idle: {rest}", values=values, unit="MiB", target=target)
        case "restarts":
            return Row(what=f"{where}: containers restarted or made anew", values=values, target=0)
    target = {"total": DIND_SECONDS if where == f"{Mode.DIND}, {FIRST}" else None, figures.RATIO: 1.0}.get(name)
    unit = "" if "/" in name or name.startswith("the same") else "s"
    return Row(what=f"{where}: {name}", values=values, unit=unit, target=target)


def _early(tables: dict[tuple[Mode, str, str], Table], who: str, *, target: float | None) -> Row:
    found = [value for (_, name, _), table in tables.items() if name == who for value in table.get("early", [])]
    note = f"of {2 * len(found)}"
    return Row(what=f"{who}: said ready too early", values=[sum(found)], target=target, note=note)


def _version(base: Ground) -> str:
    return base.share.engine.output("version", "--format", "{{.Server.Version}}")


def _inner_version(base: Ground) -> str:
    image = base.images[Mode.DIND]
    said = base.share.engine.output("run", "--rm", "--entrypoint=dockerd", image, "--version")
    return said.removeprefix("Docker version ").partition(",")[0]
