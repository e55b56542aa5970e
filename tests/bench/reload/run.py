"""All of it in one run: the same apps and loads for ours and for others, then what only ours has a target for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.figures import Row, Section
from tests.bench.reload import broken, loads, tables
from tests.bench.reload.contenders import NODE, Contender, bare, build_static, contenders, ours
from tests.bench.reload.loads import KEPT, LOADS, NEW, WRK, Outcome
from tests.bench.reload.running import BOOT_SECONDS, Running
from tests.bench.rig import Plan, folder, missing, wait_until
from tests.load.plan import Plan as LoadPlan
from tests.load.process import Load
from tests.load.wrk import is_installed

NEW_CODE_MS, BACK_MS, TURNED_MS, TRIGGER_MS, COST_MS, P99_RATIO = 100.0, 50.0, 250.0, 100.0, 0.3, 2.0
LONG_REQUESTS, LONG_RELOADS = 300_000, 40
METHOD = (
    f"The same app for all (a start of {BOOT_SECONDS:g} s, 3 ms an answer, ends at once on TERM; gunicorn and uvicorn "
    "run its WSGI and ASGI form in two workers, and it ends their way; uvicorn with uvloop and httptools, as without "
    "them it takes 40 ms an answer on kept connections), the same loads from a generator in a process of its own. It "
    "sends by the clock, so late answers do not slow it, and a wait counts from when a request was due; it repeats "
    "nothing. A kept connection whose end was seen is dropped and made anew, as the pools of Go and Node do. wrk sends "
    "as fast as it is answered; what fails is tried again at once, so its count of failures has no bound. Each load "
    "begins with a quiet part, on the same connections. `new code beyond the app's start` is from the order to its "
    "first answer, less what the app took from its first line to being up; `roll back` is for ours with the proxy the "
    "longest wait when the new code is killed while the old one is warm, for others a reload with the old code, its "
    "start included. A slow release counts as failed after 4 s. The bash entrypoint looks at its trigger every 3 s."
)
PROXY = "ours, proxy, Node"
FULL_ONLY = ("ours, proxy, Python", "ours, proxy, static C")


def run(plan: Plan) -> Section:
    """One contender after the other, each load in turn, so that only one thing at a time uses the machine."""
    section = Section(name="reload", title="reload under live traffic", method=METHOD)
    if missing("node"):
        raise RuntimeError("cannot measure reloads: there is no node, which most contenders run; install Node")
    with folder() as home:
        static = build_static(home)
        everyone = contenders(static)
        by_load = _loads(plan, [one for one in everyone if not plan.quick or one.name not in FULL_ONLY])
        back = _back(plan, [one for one in everyone if one.name == PROXY or (one.has_proxy and not plan.quick)])
        for name, found in by_load.items():
            section.tables.append(tables.of_load(name, found, {who: one.after.longest_ms for who, one in back.items()}))
        bad = _broken(plan, _some(plan, everyone))
        crashed = _crashes(plan, _some(plan, everyone))
        section.tables.extend([tables.of_broken(bad), tables.of_crash(crashed)])
        section.rows.extend(_load_rows(by_load))
        section.rows.extend(_back_rows(back) + _broken_rows(bad[PROXY]) + _crash_rows(crashed[PROXY]))
        section.rows.extend(_trigger_rows(plan, static))
        section.rows.extend(_cost_rows(plan, static))
        if plan.full:
            section.rows.extend(_long_rows(plan))
    return section


def _some(plan: Plan, everyone: list[Contender]) -> list[Contender]:
    """With --quick one."""
    return [one for one in everyone if not plan.quick or one.name == PROXY]


def _loads(plan: Plan, everyone: list[Contender]) -> dict[str, dict[str, Outcome]]:
    names = [NEW, KEPT] if plan.quick else [name for name in LOADS if name != WRK or is_installed()]
    found: dict[str, dict[str, Outcome]] = {name: {} for name in names}
    for contender in everyone:
        with contender.start() as running:
            for name in names:
                plan.say(f"{contender.name}: {name}")
                seconds, reloads = (1.5, 1) if plan.quick else (3.0, 2)
                found[name][contender.name] = loads.reload_under(running, name, reloads=reloads, seconds=seconds)
                running.settle()
    return found


def _each(plan: Plan, what: str, them: list[Contender], do: Callable[[Running], Outcome]) -> dict[str, Outcome]:
    """One outcome each, of an app just started."""
    found = {}
    for contender in them:
        plan.say(f"{contender.name}: {what}")
        with contender.start() as running:
            found[contender.name] = do(running)
    return found


def _back(plan: Plan, them: list[Contender]) -> dict[str, Outcome]:
    return _each(plan, "roll back", them, partial(broken.back_under, seconds=3))


def _broken(plan: Plan, them: list[Contender]) -> dict[str, dict[str, Outcome]]:
    found: dict[str, dict[str, Outcome]] = {one.name: {} for one in them}
    for mode in broken.MODES:
        under = partial(broken.release_under, mode=mode, seconds=6 if plan.quick else 8)
        for who, outcome in _each(plan, f"release that is {mode}", them, under).items():
            found[who][mode] = outcome
    return found


def _crashes(plan: Plan, them: list[Contender]) -> dict[str, Outcome]:
    return _each(plan, "killed", them, partial(broken.crash_under, seconds=5))


def _load_rows(by_load: dict[str, dict[str, Outcome]]) -> list[Row]:
    proxy = [(name, one) for name, found in by_load.items() for who, one in found.items() if who.startswith("ours, pr")]
    sent = sum(one.sent for _, one in proxy)
    after_up = [timing.after_up * 1000 for _, one in proxy for timing in one.timings]
    # Where the load itself takes the machine, its figure is in the table, but says nothing of the reload.
    ratios = [one.p99_ratio() for name, one in proxy if name == NEW]
    return [
        Row(what="proxy: failed", values=[one.failed for _, one in proxy], target=0, note=f"of {sent}"),
        Row(what="proxy: new code answers after it is up", values=after_up, unit="ms", target=NEW_CODE_MS),
        Row(what="proxy: p99 against quiet, 200/s", values=ratios, target=P99_RATIO),
        Row(what="proxy: back to an older version", values=[sum(one.backwards for _, one in proxy)], target=0),
    ]


def _back_rows(back: dict[str, Outcome]) -> list[Row]:
    waits = [one.after.longest_ms for one in back.values()]
    lost = "; ".join(filter(None, (tables.kinds(one) for one in back.values())))
    return [Row(what="proxy: roll back from warm, longest wait", values=waits, unit="ms", target=BACK_MS, note=lost)]


def _broken_rows(found: dict[str, Outcome]) -> list[Row]:
    seen = [
        Row(what=f"proxy: release that is {mode}: failed", values=[one.failed], target=0, note=tables.kinds(one))
        for mode, one in found.items()
        if mode != "turns"
    ]
    turns = found["turns"]
    count = LOADS[NEW]["rate"] * TURNED_MS / 1000
    return [
        *seen,
        Row(
            what="proxy: release that turns: bad answers for",
            values=[tables.bad_ms(turns)],
            unit="ms",
            target=TURNED_MS,
        ),
        Row(what="proxy: release that turns: failed", values=[turns.failed], target=count, note=tables.kinds(turns)),
    ]


def _crash_rows(crashed: Outcome) -> list[Row]:
    note = tables.kinds(crashed)
    return [Row(what="proxy: app killed: refused", values=[crashed.failures["refused"]], target=0, note=note)]


def _trigger_rows(plan: Plan, static: Path | None) -> list[Row]:
    """To the first line of the new process: the static app's, which begins at once."""
    if static is None:
        return []
    rows = []
    for what, touch in (("HUP", False), ("trigger file", True)):
        plan.say(f"{what} to new process")
        with ours("proxy", [str(static)], boot_seconds=0.1, touch=touch) as running:
            values = [_to_process(running) * 1000 for _ in range(plan.runs(7))]
        rows.append(Row(what=f"proxy: {what} to new process", values=values, unit="ms", target=TRIGGER_MS))
    return rows


def _to_process(running: Running) -> float:
    ordered = running.release()
    started = wait_until(lambda: running.first("started", running.version), what="the new process")
    running.settle()
    return float(started.at - ordered)


def _cost_rows(plan: Plan, static: Path | None) -> list[Row]:
    """Behind the proxy and alone, in turns."""
    argv = [str(static)] if static else NODE
    rounds, seconds = plan.runs(5, 2), 2.0 if plan.quick else 5.0
    alone, behind = [], []
    with bare(argv) as one, ours("proxy", argv) as other:
        for number in range(rounds):
            plan.say(f"cost of the proxy, round {number + 1}")
            alone.append(_p50_ms(one, seconds))
            behind.append(_p50_ms(other, seconds))
    cost = [there - here for here, there in zip(alone, behind, strict=True)]
    return [
        Row(what="the app alone, 1,000/s: p50", values=alone, unit="ms"),
        Row(what="behind the proxy, 1,000/s: p50", values=behind, unit="ms"),
        Row(what="proxy: its cost, p50", values=cost, unit="ms", target=COST_MS),
    ]


def _p50_ms(running: Running, seconds: float) -> float:
    load_plan = LoadPlan(url=running.url(), rate=1000, seconds=seconds + 0.5, connections=40, quiet_seconds=0.5)
    with Load(load_plan) as load:
        return load.report().after.p50_ms


def _long_rows(plan: Plan) -> list[Row]:
    """The long form: many requests over many reloads, none of which may fail."""
    with ours("proxy", NODE) as running:
        one = _long(plan, running)
    note = f"of {one.sent} over {LONG_RELOADS} reloads{': ' * bool(one.failed)}{tables.kinds(one)}"
    return [
        Row(what="proxy, long: failed", values=[one.failed], target=0, note=note),
        Row(what="proxy, long: longest wait", values=[one.longest_ms], unit="ms"),
        Row(what="proxy, long: p99 against quiet", values=[one.p99_ratio()]),
        Row(what="proxy, long: back to an older version", values=[one.backwards], target=0),
    ]


def _long(plan: Plan, running: Running) -> Outcome:
    with Load(loads.plan(running, KEPT, 5)) as load:
        load.wait_quiet()
        for number in range(LONG_RELOADS):
            plan.say(f"long, reload {number + 1} of {LONG_RELOADS}")
            running.release()
            running.settle()
        time.sleep(max(0.0, load.began_at() + LONG_REQUESTS / LOADS[KEPT]["rate"] - time.monotonic()))
        report = load.stop()
    return Outcome(report.quiet, report.after, backwards=report.backwards, late_p99_ms=report.late_p99_ms)
