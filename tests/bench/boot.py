"""The whole boot against its critical path."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import asyncpg

from tests.bench.figures import Row, Section
from tests.bench.rig import Entry, Plan, Ports, Supervisor, at, folder, notes_stack
from tests.bench.truth import Prober

FACTOR, ALLOWANCE_SECONDS = 1.1, 0.5
METHOD = (
    "`supervisor run --mode embedded` with examples/notes: Postgres, Redis, Traefik, migrations, app, route. The "
    "boot is from exec to the log's `boot.finished`. The critical path is made of parts seen by the independent "
    "prober in the same boot: the longest of the services' spawn to truth (Postgres on its first boot from the "
    "start of initdb; Traefik by its ping), plus the migrations alone (connect, run the files, by another client "
    f"afterwards), plus the app's spawn to its first 200. Target: critical path x {FACTOR} + {ALLOWANCE_SECONDS} "
    "s."
)


def run(plan: Plan) -> Section:
    """First and second boots."""
    section = Section(name="boot", title="total boot against the critical path", method=METHOD)
    tables: dict[str, dict[str, list[float]]] = {"first boot": {}, "second boot": {}}
    for number in range(plan.runs(7)):
        plan.say(f"boot pair {number + 1}")
        with folder() as home:
            for what, table in tables.items():
                for name, value in _boot(home, first=what == "first boot").items():
                    table.setdefault(name, []).append(value)
    for what, table in tables.items():
        for name, values in table.items():
            target = 1.0 if name == "boot / (path x 1.1 + 0.5 s)" else None
            section.rows.append(Row(what=f"{what}: {name}", values=values, unit="" if target else "s", target=target))
    return section


def _boot(home: Path, *, first: bool) -> dict[str, float]:
    ports = Ports.choose()
    app = f"http:{ports.app}/api/health"
    with Prober(home, "postgres", "redis", "traefik", app) as prober, notes_stack(home, ports) as stack:
        total = at(stack.booted()) - stack.started_at
        services = {name: _to_truth(stack, prober, name, first=first) for name in ("postgres", "redis", "traefik")}
        spawned = stack.wait("app.generation", state="starting")
        serving = prober.up(app)["ended"] - at(spawned)
        migrations = asyncio.run(_migrations_alone(home, first=first))
        path = max(services.values()) + migrations + serving
        allowed = path * FACTOR + ALLOWANCE_SECONDS
        said = at(stack.wait("supervisor.started")) - stack.started_at
        return {
            "total": total,
            "critical path": path,
            "boot / (path x 1.1 + 0.5 s)": total / allowed,
            "boot beyond the path": total - path,
            **{f"{name}, spawn to truth": seconds for name, seconds in services.items()},
            "migrations alone": migrations,
            "app, spawn to first 200": serving,
            "exec to supervisor.started": said,
        }


def _to_truth(stack: Supervisor, prober: Prober, name: str, *, first: bool) -> float:
    """Spawn to the prober's truth; Postgres' first boot counts from the start of its preparation (initdb)."""
    began: Entry = (
        stack.wait("service.state", service=name, state="starting")
        if first and name == "postgres"
        else stack.wait("service.state", service=name, reason="spawned")
    )
    ended: float = prober.up(name)["ended"]
    return ended - at(began)


async def _migrations_alone(home: Path, *, first: bool) -> float:
    """What the migrations cost without us: in a schema of their own, or, when none is pending, one query."""
    port = json.loads((home / "state" / "install.json").read_text())["ports"]["postgres"]
    password = (home / "state" / "secrets" / "postgres-app").read_text().strip()
    began = time.monotonic()
    connection = await asyncpg.connect(f"postgresql://dokploy:{password}@127.0.0.1:{port}/dokploy?sslmode=disable")
    try:
        if not first:
            await connection.fetch("SELECT 1")
            return time.monotonic() - began
        await connection.execute("CREATE SCHEMA alone; SET search_path TO alone")
        for file in sorted((home / "notes" / "migrations").glob("*.sql")):
            async with connection.transaction():
                await connection.execute(file.read_text())
        return time.monotonic() - began
    finally:
        connection.terminate()
