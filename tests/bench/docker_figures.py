"""What one boot on an engine comes to, in figures. Pure: from its log, the prober's truth and the engine's times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench.docker_engine import ROLES, Boot
from tests.bench.rig import Entry, at

FACTOR, ALLOWANCE_SECONDS = 1.15, 0.5
DATA = ("postgres", "redis")
RATIO = f"boot / (path x {FACTOR} + {ALLOWANCE_SECONDS} s)"
_CUT_SECONDS = 0.001  # times in the log are cut to milliseconds
PHASES = ("engine", "services", "proxy", "migrations", "app", "route")

Figures = dict[str, float]


def find(entries: Sequence[Entry], event: str, **values: str) -> Entry | None:
    """The first such entry."""
    for entry in entries:
        if entry.get("event") == event and all(entry.get(key) == value for key, value in values.items()):
            return entry
    return None


def _moment(entries: Sequence[Entry], event: str, **values: str) -> float:
    entry = find(entries, event, **values)
    if entry is None:
        raise ValueError(f"the log has no {event} {values}")
    return at(entry)


def said_ready(boot: Boot, service: str) -> float:
    """When the log says that a service works."""
    return _moment(boot.entries, "service.state", service=service, state="running")


def total(boot: Boot) -> float:
    """From the command to the end of the boot, in seconds."""
    return _moment(boot.entries, "boot.finished") - boot.began


def phases(boot: Boot) -> Figures:
    """How long each phase says it took."""
    found = {name: find(boot.entries, "boot.phase_finished", phase=name) for name in PHASES}
    return {f"phase {name}": float(entry["elapsed_seconds"]) for name, entry in found.items() if entry is not None}


def ready_after(boot: Boot) -> Figures:
    """When each is said to work, from the command on."""
    services = (*(("dockerd",) if _has_own_engine(boot) else ()), *ROLES)
    after = {f"{name} ready": said_ready(boot, name) - boot.began for name in services}
    return {**after, "app ready": _moment(boot.entries, "app.generation", state="serving") - boot.began}


def _has_own_engine(boot: Boot) -> bool:
    return find(boot.entries, "service.state", service="dockerd", state="running") is not None


def engine_end(boot: Boot) -> float:
    """When engine, Swarm and network were fit."""
    return _moment(boot.entries, "boot.phase_finished", phase="engine")


def to_truth(boot: Boot, role: str, *, since: Mapping[str, float]) -> float:
    """What a service itself took: until it truly answered, from `since` or the engine's readiness, the later one."""
    return max(0.0, boot.truth[role]["ended"] - max(since[role], engine_end(boot)))


def path(boot: Boot, *, since: Mapping[str, float]) -> float:
    """The critical path: up to the first line of the log, engine, slowest service, migrations alone, app."""
    before = at(boot.entries[0]) - boot.began
    engine = float(phases(boot)["phase engine"])
    data = max(to_truth(boot, role, since=since) for role in DATA)
    app = boot.truth["app"]["ended"] - _moment(boot.entries, "app.generation", state="starting")
    rest = max(to_truth(boot, "traefik", since=since), data + boot.migrations_alone + app)
    return before + engine + rest


def against_path(boot: Boot) -> Figures:
    """The whole boot against its critical path, with services counted from the engine's order to make them on."""
    way, narrow = path(boot, since=boot.made), path(boot, since=boot.started)
    return {
        "critical path": way,
        RATIO: total(boot) / (way * FACTOR + ALLOWANCE_SECONDS),
        "the same, services from their container's start": total(boot) / (narrow * FACTOR + ALLOWANCE_SECONDS),
        "boot beyond the path": total(boot) - way,
    }


def parts(boot: Boot) -> Figures:
    """What the path is made of, and what lies before the phases; of services only what this boot did."""
    first = at(boot.entries[0])
    engine_begins = _moment(boot.entries, "boot.phase_started", phase="engine")
    found = {"command to first line": first - boot.began, "first line to phase engine": engine_begins - first}
    if _has_own_engine(boot):
        found["phase engine: until dockerd serves"] = said_ready(boot, "dockerd") - engine_begins
    for role in ROLES:
        if boot.made[role] >= boot.began:
            found[f"{role}: made to container started"] = boot.started[role] - boot.made[role]
        if boot.started[role] >= boot.began:
            found[f"{role}: container started to truth"] = boot.truth[role]["ended"] - boot.started[role]
    found["migrations alone"] = boot.migrations_alone
    spawned = _moment(boot.entries, "app.generation", state="starting")
    found["app: spawn to first 200"] = boot.truth["app"]["ended"] - spawned
    return found


def lateness_ms(boot: Boot) -> Figures:
    """Per data service how long after the truth it was said to work; what cannot have been said before the engine was
    fit is counted from then on."""
    return {role: (said_ready(boot, role) - max(boot.truth[role]["ended"], engine_end(boot))) * 1000 for role in DATA}


def too_early(boot: Boot) -> int:
    """How many services were said to work before the last question that failed."""
    return sum(said_ready(boot, role) + _CUT_SECONDS < boot.truth[role]["last_bad"] for role in DATA)


def restarts(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    """How many roles run in another container than before, or in another run of it."""
    return sum(after.get(role) != run for role, run in before.items())


def grouped_memory(processes: Sequence[Mapping[str, object]], mine: int = 1) -> dict[str, tuple[float, float]]:
    """RSS and PSS in MiB: of PID 1, and of the engine's processes by name, those of a name together."""
    found: dict[str, tuple[float, float]] = {}
    for process in processes:
        name = "PID 1" if process["pid"] == mine else str(process["name"])
        if name != "PID 1" and name not in ("dockerd", "containerd", "haproxy") and "shim" not in name:
            continue
        rss, pss = found.get(name, (0.0, 0.0))
        found[name] = rss + float(str(process["rss"])), pss + float(str(process["pss"]))
    return found
