"""Said ready against truly ready, for Postgres and Redis: at boot, while loading, in crash recovery."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import redis

from tests.bench.figures import Row, Section
from tests.bench.rig import Entry, Plan, Supervisor, alone_services, at, folder, wait_until
from tests.bench.truth import Prober

TARGET_MS = 100.0
WHY = "2 s after the start a probe comes every 75 ms, or at a line of output"
METHOD = (
    "A prober in a process of its own asks every 2 ms: Postgres by a login with the app's own role and `SELECT 1`, "
    "Redis by `AUTH` and `PING`. Truth is the moment it has its first answer; said is the `at` of our log's "
    "`service.state running`. `at most` counts from when that answered question was asked, which may have waited in a "
    "server that was still busy. `said too early` counts runs in which it was before the last failure. "
    "Redis loading: a data set that takes it a while to read. Postgres in recovery: the postmaster is killed with -9 "
    "under a write load, and restarted by the supervisor; as each refused login makes a line in its log, and each line "
    "a probe of ours, it is measured without the prober too, against Postgres' own `ready to accept connections`."
)
UNWATCHED = "postgres, crash recovery without the prober"
Milliseconds = dict[str, list[float]]


class Tally:
    """What was found, per figure, and how often ready was said too early."""

    def __init__(self) -> None:
        self.late: Milliseconds = {}
        self.at_most: Milliseconds = {}
        self.took: Milliseconds = {}
        self.early: list[float] = []

    def add(self, what: str, said: Entry, truth: dict[str, float], spawned: Entry) -> None:
        """Compare one run. The log's times are cut to milliseconds, so that much is not early."""
        moment = at(said)
        self.late.setdefault(what, []).append((moment - truth["ended"]) * 1000)
        self.at_most.setdefault(what, []).append((moment - truth["began"]) * 1000)
        self.took.setdefault(what, []).append((truth["ended"] - at(spawned)) * 1000)
        self.early.append(moment + 0.001 < truth["last_bad"])


def run(plan: Plan) -> Section:
    """All of it."""
    tally = Tally()
    for number in range(plan.runs(7)):
        plan.say(f"boot pair {number + 1}")
        with folder() as home:
            _boot(home, tally, "first boot")
            _boot(home, tally, "second boot")
    for number in range(plan.runs(5, 1)):
        plan.say(f"redis loading {number + 1}")
        with folder() as home:
            _redis_loading(home, tally, keys=300_000 if plan.quick else 2_500_000)
    for number in range(plan.runs(5, 1)):
        plan.say(f"postgres recovery {number + 1}")
        for watched in (True, False):
            with folder() as home:
                _postgres_recovery(home, tally, load_seconds=2 if plan.quick else 6, watched=watched)
    return Section(name="ready", title="said ready against truly ready", method=METHOD, rows=_rows(tally))


def _rows(tally: Tally) -> list[Row]:
    rows = [
        Row(what=f"{what}: late by", values=late, unit="ms", target=TARGET_MS, why=WHY)
        for what, late in tally.late.items()
    ]
    rows.append(Row(what="said too early", values=[sum(tally.early)], target=0, note=f"of {len(tally.early)}"))
    rows += [Row(what=f"{what}: at most", values=late, unit="ms") for what, late in tally.at_most.items()]
    rows += [Row(what=f"{what}: spawn to truth", values=took, unit="ms") for what, took in tally.took.items()]
    return rows


def _boot(home: Path, tally: Tally, what: str) -> None:
    with Prober(home, "postgres", "redis") as prober, alone_services(home, "postgres", "redis") as stack:
        for service in ("postgres", "redis"):
            said = stack.wait("service.state", service=service, state="running")
            spawned = stack.wait("service.state", service=service, reason="spawned")
            tally.add(f"{service}, {what}", said, prober.up(service), spawned)


def _redis_loading(home: Path, tally: Tally, *, keys: int) -> None:
    with alone_services(home, "redis") as stack:
        stack.wait("service.state", service="redis", state="running")
        _fill_redis(home, keys)
    with Prober(home, "redis") as prober, alone_services(home, "redis") as stack:
        said = stack.wait("service.state", service="redis", state="running", limit_seconds=120)
        spawned = stack.wait("service.state", service="redis", reason="spawned")
        tally.add("redis, loading", said, prober.up("redis"), spawned)


def _fill_redis(home: Path, keys: int) -> None:
    port = json.loads((home / "state" / "install.json").read_text())["ports"]["redis"]
    password = (home / "state" / "secrets" / "redis").read_text().strip()
    script = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'key:' .. i, string.rep('x', 64)) end"
    step = 50_000
    with redis.Redis(port=port, password=password, socket_timeout=30) as client:
        for first in range(0, keys, step):
            client.eval(script, 0, str(first), str(first + step - 1))


def _postgres_recovery(home: Path, tally: Tally, *, load_seconds: float, watched: bool) -> None:
    with ExitStack() as scope:
        stack = scope.enter_context(alone_services(home, "postgres"))
        running = stack.wait("service.state", service="postgres", state="running")
        prober = scope.enter_context(Prober(home, "postgres", once=False)) if watched else None
        if prober is not None:
            prober.up("postgres")
        killed_at = _kill_while_writing(home, load_seconds, running["pid"])
        crashed = _crash_seen(stack, running)
        before = stack.events.entries.index(crashed)
        said = stack.wait("service.state", after=before, service="postgres", state="running", limit_seconds=120)
        entries = stack.events.entries[before : stack.events.entries.index(said)]
        if prober is None:
            ready = [entry for entry in entries if "ready to accept connections" in entry["msg"]][-1]
            tally.late.setdefault(UNWATCHED, []).append((at(said) - at(ready)) * 1000)
            return
        spawns = [
            entry for entry in entries if entry.get("event") == "service.state" and entry.get("reason") == "spawned"
        ]
        down = prober.down("postgres", after=killed_at)
        tally.add("postgres, crash recovery", said, prober.up("postgres", after=down["began"]), spawns[-1])


def _crash_seen(stack: Supervisor, running: Entry) -> Entry:
    """The entry that says the server is gone."""

    def found() -> Entry | None:
        entries = stack.events.read()
        for entry in entries[entries.index(running) + 1 :]:
            if entry.get("event") == "service.state" and entry.get("state") in ("backoff", "starting", "waiting"):
                return entry
        return None

    entry: Entry = wait_until(found, what="the crash of postgres in the log")
    return entry


def _kill_while_writing(home: Path, seconds: float, postmaster: int) -> float:
    """Write for `seconds`, and kill the server in the midst of it; gives the wall time of that."""
    port = json.loads((home / "state" / "install.json").read_text())["ports"]["postgres"]
    password = (home / "state" / "secrets" / "postgres-app").read_text().strip()
    dsn = f"postgresql://dokploy:{password}@127.0.0.1:{port}/dokploy?sslmode=disable"

    async def write(number: int) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(f"CREATE TABLE load_{number} (id bigserial PRIMARY KEY, body text)")
            while True:
                await connection.execute(
                    f"INSERT INTO load_{number} (body) SELECT md5(i::text) FROM generate_series(1, 5000) AS i"
                )
        finally:
            connection.terminate()

    async def work() -> float:
        tasks = [asyncio.create_task(write(number)) for number in range(2)]
        await asyncio.sleep(seconds)
        killed_at = time.time()
        os.kill(postmaster, signal.SIGKILL)
        # The writers end when their backends notice.
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        return killed_at

    return asyncio.run(work())
