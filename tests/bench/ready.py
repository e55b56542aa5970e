"""Said ready against truly ready, for Postgres and Redis: at boot, while loading, in crash recovery."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.figures import Row, Section
from tests.bench.rig import Entry, Plan, Supervisor, alone_services, at, folder, wait_until
from tests.bench.truth import Prober

TARGET_MS = 100.0
METHOD = (
    "A prober in a process of its own asks every 2 ms: Postgres by a login with the app's own role and `SELECT "
    "1`, Redis by `AUTH` and `PING`. Truth is the moment its first answered question was asked; said is the `at` "
    "of our log's `service.state running`. `said before the truth` counts runs in which that was before the "
    "prober's last failure. Postgres in recovery: the postmaster is killed with -9 under a write load, and "
    "restarted by the supervisor. Redis loading: a data set that takes it a while to read."
)
Lateness = dict[str, list[float]]


class Tally:
    """Lateness per figure, in ms, and how often ready was said too early."""

    def __init__(self) -> None:
        self.late: Lateness = {}
        self.early = 0
        self.took: Lateness = {}

    def add(self, what: str, said: Entry, truth: dict[str, float], spawned: Entry) -> None:
        """Compare one run. The log's times are cut to milliseconds, so that much is not early."""
        moment = at(said)
        self.late.setdefault(what, []).append((moment - truth["began"]) * 1000)
        self.took.setdefault(what, []).append(truth["began"] - at(spawned))
        self.early += moment + 0.001 < truth["last_bad"]


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
        with folder() as home:
            _postgres_recovery(home, tally, load_seconds=2 if plan.quick else 6)
    rows = [Row(what=f"{what}: late by", values=late, unit="ms", target=TARGET_MS) for what, late in tally.late.items()]
    rows.append(Row(what="said before the truth", values=[tally.early], target=0))
    rows += [Row(what=f"{what}: spawn to truth", values=took, unit="s") for what, took in tally.took.items()]
    return Section(name="ready", title="said ready against truly ready", method=METHOD, rows=rows)


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
    import json

    import redis

    port = json.loads((home / "state" / "install.json").read_text())["ports"]["redis"]
    password = (home / "state" / "secrets" / "redis").read_text().strip()
    script = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'key:' .. i, string.rep('x', 64)) end"
    step = 50_000
    with redis.Redis(port=port, password=password, socket_timeout=30) as client:
        for first in range(0, keys, step):
            client.eval(script, 0, str(first), str(first + step - 1))


def _postgres_recovery(home: Path, tally: Tally, *, load_seconds: float) -> None:
    with ExitStack() as scope:
        stack = scope.enter_context(alone_services(home, "postgres"))
        running = stack.wait("service.state", service="postgres", state="running")
        prober = scope.enter_context(Prober(home, "postgres", once=False))
        prober.up("postgres")
        _write_for(home, load_seconds, then=lambda: os.kill(running["pid"], signal.SIGKILL))
        crashed = _crash_seen(stack, running)
        before = stack.events.entries.index(crashed)
        said = stack.wait("service.state", after=before, service="postgres", state="running", limit_seconds=120)
        spawns = [
            entry
            for entry in stack.events.entries[before : stack.events.entries.index(said)]
            if entry.get("event") == "service.state" and entry.get("reason") == "spawned"
        ]
        down = prober.down("postgres", after=at(crashed) - 1.0)
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


def _write_for(home: Path, seconds: float, *, then: Callable[[], None]) -> None:
    """A write load from a process of its own; `then` while it is on."""
    import asyncio
    import json
    import time

    import asyncpg

    port = json.loads((home / "state" / "install.json").read_text())["ports"]["postgres"]
    password = (home / "state" / "secrets" / "postgres-app").read_text().strip()
    dsn = f"postgresql://dokploy:{password}@127.0.0.1:{port}/dokploy?sslmode=disable"

    async def write(until: float, number: int) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(f"CREATE TABLE load_{number} (id bigserial PRIMARY KEY, body text)")
            while time.monotonic() < until:
                await connection.execute(
                    f"INSERT INTO load_{number} (body) SELECT md5(i::text) FROM generate_series(1, 5000) AS i"
                )
        finally:
            connection.terminate()

    async def work() -> None:
        until = time.monotonic() + seconds
        # The writers go on a little longer than the kill, so that it comes while they write.
        tasks = [asyncio.create_task(write(until + 5, number)) for number in range(2)]
        await asyncio.sleep(seconds)
        then()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(work())
