"""An orchestrator after the original's algorithm, for the Docker benchmark: PID 1 of a container of our own image, as
`python -c` with one JSON argument; stands alone there. Written from a description of it, none of its code is here.

Ready means: listed as running for 5 s (Postgres) and 3 s (Redis), looked at after 2 s, then 1.5 times as long, 10 s at
most; Traefik, removed and made anew at every boot, has run for 2 s. Where the description leaves a choice, the quicker
one is made: Postgres and Redis are waited for at the same time, tasks are asked for by service, images are named by id
so that no registry is asked. Its log has the events that ours has, as far as there is a counterpart.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import asyncpg
import docker
import docker.errors

SECOND = 1_000_000_000
FIRST_SECONDS, FACTOR, CAP_SECONDS = 2.0, 1.5, 10.0
AGES = {"postgres": 5.0, "redis": 3.0}
TRAEFIK_SECONDS = 2.0
AGAIN_SECONDS = 3.0
ENGINE_TRIES = 60
STOP_SECONDS = 8.0

Words = dict[str, Any]


def say(event: str, **values: Any) -> None:
    """A line of the log, in one write: two threads have something to say."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    os.write(1, f"{json.dumps({'at': at, 'event': event, **values})}\n".encode())


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Told at its end."""
    began = time.monotonic()
    yield
    say("boot.phase_finished", phase=name, elapsed_seconds=round(time.monotonic() - began, 3))


class Original:
    """One life of it."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.stack: str = words["stack"]
        self.engine: subprocess.Popen[bytes] | None = None
        self.app: subprocess.Popen[bytes] | None = None
        self.client: Any = None

    def run(self) -> None:
        """Until it is told to stop; a boot that fails is begun again, whole, 3 s later."""
        say("supervisor.started")
        if self.words["own_engine"]:
            self.start_engine()
        self.client = docker.DockerClient(base_url="unix:///var/run/docker.sock", version="auto", timeout=60)
        while True:
            try:
                self.boot()
            except Exception as error:
                say("boot.failed", error=repr(error))
                time.sleep(AGAIN_SECONDS)
            else:
                signal.pause()

    def start_engine(self) -> None:
        """dockerd as it comes, and a look every second."""
        Path("/var/run/docker.pid").unlink(missing_ok=True)
        with open("/var/log/dockerd.log", "wb") as log:
            argv = ["dockerd", "--host=unix:///var/run/docker.sock"]
            self.engine = subprocess.Popen(argv, stdout=log, stderr=log)
        for _ in range(ENGINE_TRIES):
            if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
                say("service.state", service="dockerd", state="running")
                return
            time.sleep(1)
        raise SystemExit(Path("/var/log/dockerd.log").read_text()[-1000:])

    def boot(self) -> None:
        """In its order: network, data services, migrations, Traefik, app."""
        with phase("engine"):
            self.ensure_ground()
        with phase("services"):
            waiting = [threading.Thread(target=self.serve, args=(role,)) for role in AGES]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join()
        with phase("migrations"):
            self.wait_port()
            asyncio.run(self.migrate())
        with phase("proxy"):
            self.make_traefik()
        with phase("app"):
            self.start_app()
        say("boot.finished")

    def ensure_ground(self) -> None:
        """Swarm, network, and where the engine is the host's our place on it, without which it never comes up."""
        with suppress(docker.errors.APIError):
            self.client.swarm.init(advertise_addr="127.0.0.1", listen_addr="0.0.0.0")
        name = f"{self.stack}-network"
        try:
            network = self.client.networks.get(name)
        except docker.errors.NotFound:
            network = self.client.networks.create(name, driver="overlay", attachable=True)
        self.network_id = network.id
        if not self.words["own_engine"]:
            with suppress(docker.errors.APIError):
                network.connect(socket.gethostname(), aliases=[f"{self.stack}-app"])

    def serve(self, role: str) -> None:
        """Create, or replace the whole specification of what is there; then wait."""
        api, name, body = self.client.api, f"{self.stack}-{role}", self.body(role)
        try:
            found = api.inspect_service(name)
        except docker.errors.NotFound:
            api.create_service(name=name, **body)
        else:
            api.update_service(found["ID"], found["Version"]["Index"], name=name, **body)
        say("service.state", service=role, state="starting", reason="spawned")
        began = time.monotonic()
        delay = FIRST_SECONDS
        while not self.listed(name, AGES[role]):
            time.sleep(delay)
            delay = min(delay * FACTOR, CAP_SECONDS)
        elapsed = round(time.monotonic() - began, 3)
        say("service.state", service=role, state="running", elapsed_seconds=elapsed)

    def listed(self, name: str, seconds: float) -> bool:
        """Whether the first running task has been so for that long."""
        tasks = [task for task in self.client.api.tasks({"service": name}) if task["Status"]["State"] == "running"]
        if not tasks:
            return False
        since = datetime.fromisoformat(tasks[0]["Status"]["Timestamp"][:26].rstrip("Z")).replace(tzinfo=UTC)
        return (datetime.now(UTC) - since).total_seconds() >= seconds

    def body(self, role: str) -> Words:
        """A service with a health check; its interval is that of ours, which is not what is compared here."""
        words = self.words
        password, port = words["password"], words["ports"].get(role)
        env, args, check, target = {
            "postgres": (
                [f"POSTGRES_{key}={value}" for key, value in (("USER", self.stack), ("DB", self.stack))]
                + [f"POSTGRES_PASSWORD={password}"],
                None,
                f"pg_isready -h 127.0.0.1 -U {self.stack}",
                "/var/lib/postgresql/data",
            ),
            "redis": ([], None, "redis-cli ping", "/data"),
        }[role]
        interval = words["health_seconds"] * SECOND
        container = docker.types.ContainerSpec(
            image=words["images"][role],
            env=env,
            args=args,
            mounts=[docker.types.Mount(target=target, source=f"{self.stack}-{role}", type="volume")],
            healthcheck=docker.types.Healthcheck(
                test=["CMD-SHELL", check], interval=interval, timeout=5 * SECOND, retries=5, start_period=30 * SECOND
            ),
        )
        task = docker.types.TaskTemplate(
            container,
            networks=[docker.types.NetworkAttachmentConfig(target=self.network_id)],
            placement=["node.role==manager"],
        )
        inside = {"postgres": 5432, "redis": 6379}[role]
        published = {"Protocol": "tcp", "TargetPort": inside, "PublishedPort": port, "PublishMode": "host"}
        endpoint = {"Mode": "dnsrr", **({"Ports": [published]} if port else {})}
        return {
            "task_template": task,
            "mode": docker.types.ServiceMode("replicated", replicas=1),
            "endpoint_spec": endpoint,
        }

    def address(self, role: str) -> tuple[str, int]:
        """Where the app reaches it."""
        port = self.words["ports"].get(role)
        return ("127.0.0.1", port) if port else (f"{self.stack}-{role}", {"postgres": 5432, "redis": 6379}[role])

    def wait_port(self) -> None:
        """A port that is open is a Postgres that is ready."""
        for _ in range(60):
            with suppress(OSError), socket.create_connection(self.address("postgres"), timeout=1):
                return
            time.sleep(1)

    async def migrate(self) -> None:
        """The files that have not been applied."""
        host, port = self.address("postgres")
        connection = await asyncpg.connect(
            host=host, port=port, user=self.stack, database=self.stack, password=self.words["password"], ssl=False
        )
        try:
            await connection.execute("CREATE TABLE IF NOT EXISTS applied (name text PRIMARY KEY)")
            done = {row["name"] for row in await connection.fetch("SELECT name FROM applied")}
            for file in sorted(Path("/app/migrations").glob("*.sql")):
                if file.name not in done:
                    async with connection.transaction():
                        await connection.execute(file.read_text())
                        await connection.execute("INSERT INTO applied VALUES ($1)", file.name)
        finally:
            await connection.close()

    def make_traefik(self) -> None:
        """Removed and made anew; ready once it has run for a while."""
        name = f"{self.stack}-traefik"
        with suppress(docker.errors.NotFound):
            self.client.containers.get(name).remove(force=True)
        api = self.client.api
        host = api.create_host_config(
            port_bindings={80: self.words["http_port"]}, restart_policy={"Name": "always"}, network_mode=name_of(self)
        )
        made = api.create_container(
            self.words["images"]["traefik"],
            ["--entrypoints.web.address=:80", "--ping=true", "--ping.entrypoint=web"],
            name=name,
            ports=[80],
            host_config=host,
        )
        api.start(made)
        say("service.state", service="traefik", state="starting", reason="spawned")
        while True:
            state = api.inspect_container(made)["State"]
            since = datetime.fromisoformat(state["StartedAt"][:26].rstrip("Z")).replace(tzinfo=UTC)
            if state["Running"] and (datetime.now(UTC) - since).total_seconds() >= TRAEFIK_SECONDS:
                break
            time.sleep(0.5)
        say("service.state", service="traefik", state="running")

    def start_app(self) -> None:
        """The same app; it serves once it answers."""
        (host, port), (redis_host, redis_port) = self.address("postgres"), self.address("redis")
        env = {
            **os.environ,
            "PORT": "3000",
            "DATABASE_URL": f"postgresql://{self.stack}:{self.words['password']}@{host}:{port}/{self.stack}",
            "REDIS_URL": f"redis://{redis_host}:{redis_port}/0",
        }
        say("app.generation", app="app", state="starting")
        self.app = subprocess.Popen([sys.executable, "app.py"], cwd="/app", env=env, stdout=sys.stderr)
        while not answers("http://127.0.0.1:3000/api/health"):
            if self.app.poll() is not None:
                raise RuntimeError("the app ended")
            time.sleep(0.05)
        say("app.generation", app="app", state="serving")

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Its dockerd gets TERM and time, so that the next boot is on sound data."""
        if self.app is not None:
            self.app.terminate()
        if self.engine is not None:
            self.engine.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.engine.wait(STOP_SECONDS)
        os._exit(0)


def name_of(original: Original) -> str:
    """The stack's network."""
    return f"{original.stack}-network"


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    original = Original(json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, original.stop)
    original.run()
