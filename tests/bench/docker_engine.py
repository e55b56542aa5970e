"""Stacks in containers on a real engine: ours and the one after the original's algorithm, each in both modes."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from tests.bench.rig import PROGRAMS, Entry, Log, Started, free_port, not_adopting, wait_until
from tests.engine_rig import images, rig
from tests.engine_rig.engine import Engine, Share

PYTHON = "/opt/supervisor/bin/python"
ARCHIVE = "/usr/share/supervisor/images/services.tar"
ROLES = ("postgres", "redis", "traefik")
BOOT_SECONDS = 150.0
STOP_SECONDS = 30
DATA_PORTS = {"postgres": 5432, "redis": 6379}
_PASSWORD = "known-to-all"
_HEALTH_SECONDS = 2
# What the supervisor's own dockerd is started by goes without saying here; this one only loads images.
_SEED = f"""set -e
dockerd --host=unix:///run/seed.sock >/tmp/log 2>&1 &
for _ in $(seq 100); do docker -H unix:///run/seed.sock info >/dev/null 2>&1 && break; sleep 0.2; done
docker -H unix:///run/seed.sock load --input {ARCHIVE} || {{ tail /tmp/log; exit 1; }}
kill $!
wait $! || true
"""


class Mode(StrEnum):
    """Whose engine the stack runs on."""

    DIND = "dind"
    SOCKET = "socket"


@dataclass(frozen=True)
class Boot:
    """One boot, told by its log, by the independent prober, and by the engine; times are seconds of wall time.

    `began` is when `docker run` or `docker start` was called. `truth` has the prober's line per target; `made` and
    `started` are when a role's service or container was made, and when its container was started.
    """

    began: float
    entries: Sequence[Entry]
    truth: dict[str, dict[str, float]]
    made: dict[str, float]
    started: dict[str, float]
    migrations_alone: float


@dataclass(frozen=True)
class Ground:
    """What a round stands on: the engine, and per mode the image; `seed` is a volume of dockerd with the images."""

    share: Share
    images: dict[Mode, str]
    seed: str


class Contender(Protocol):
    """Who is measured: how its container is started, and how its services are reached."""

    name: str

    def arguments(self, stack: str, mode: Mode, ground: Ground) -> list[str]:
        """What follows `docker run` and the options that both share."""

    def targets(self, stack: str, mode: Mode) -> dict[str, dict[str, Any]]:
        """For the prober."""


class Ours:
    """The image as it is."""

    name = "supervisor"

    def arguments(self, stack: str, mode: Mode, ground: Ground) -> list[str]:
        """See `Contender`."""
        settings = {"SUPERVISOR_STACK": stack, "SUPERVISOR_LOG_FORMAT": "json"}
        if mode is Mode.SOCKET:
            settings |= {"SUPERVISOR_HTTP_PORT": str(free_port()), "SUPERVISOR_HTTPS_PORT": str(free_port())}
        return [*(f"--env={name}={value}" for name, value in settings.items()), ground.images[mode]]

    def targets(self, stack: str, mode: Mode) -> dict[str, dict[str, Any]]:
        """See `Contender`."""
        secrets = "/var/lib/supervisor/secrets"
        own = mode is Mode.DIND
        return _targets(
            stack,
            own=own,
            ports={"postgres": "postgres", "redis": "redis", "traefik": "traefik-ping"} if own else {"traefik": 8082},
            passwords={"postgres": f"{secrets}/postgres", "redis": f"{secrets}/redis"},
        )


class Original:
    """The program after the original's algorithm, as PID 1 of the same image."""

    name = "original"

    def arguments(self, stack: str, mode: Mode, ground: Ground) -> list[str]:
        """See `Contender`."""
        own = mode is Mode.DIND
        words = {
            "stack": stack,
            "own_engine": own,
            "password": _PASSWORD,
            "ports": DATA_PORTS if own else {},
            "http_port": 80 if own else free_port(),
            "health_seconds": _HEALTH_SECONDS,
            "images": {role: _image_id(ground.share.engine, role) for role in ROLES},
        }
        program = (PROGRAMS / "original_orchestrator.py").read_text()
        start = ["--no-healthcheck", f"--entrypoint={PYTHON}", ground.images[mode]]
        return [*start, "-c", program, json.dumps(words)]

    def targets(self, stack: str, mode: Mode) -> dict[str, dict[str, Any]]:
        """See `Contender`."""
        own = mode is Mode.DIND
        return _targets(
            stack, own=own, ports={**DATA_PORTS, "traefik": 80}, passwords={"postgres": _PASSWORD, "redis": ""}
        )


def _targets(stack: str, *, own: bool, ports: dict[str, Any], passwords: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By a port of loopback where the engine is our own, by name on the stack's network elsewhere."""
    inside = {**DATA_PORTS, **ports}
    at = {role: {"host": "127.0.0.1" if own else f"{stack}-{role}", "port": inside[role]} for role in ROLES}
    return {
        "postgres": {"kind": "postgres", "user": stack, "password": passwords["postgres"], **at["postgres"]},
        "redis": {"kind": "redis", "password": passwords["redis"], **at["redis"]},
        "traefik": {"kind": "http", "path": "/ping", **at["traefik"]},
        "app": {"kind": "http", "path": "/api/health", "host": "127.0.0.1", "port": 3000},
    }


def _image_id(engine: Engine, role: str) -> str:
    return engine.output("image", "inspect", "--format", "{{.Id}}", images.TAGS[role])


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """An engine in a Swarm, the images, and a volume with what a dockerd keeps of them; all but the images goes."""
    with not_adopting():  # an engine started here is nobody's child
        taken = rig.take()
    share = Share(taken.engine, f"b{uuid.uuid4().hex[:8]}")
    try:
        engine = taken.engine
        found = {Mode.DIND: engine.image("notes-dind-ready"), Mode.SOCKET: engine.image("notes-ready")}
        _join_swarm(engine)
        yield Ground(share, found, _seed(share, found[Mode.DIND]))
    finally:
        clean(share)
        taken.leave()


def _join_swarm(engine: Engine) -> None:
    """Before anything is measured: whether the host's engine has a Swarm already must not differ between rounds."""
    if engine.output("info", "--format", "{{.Swarm.LocalNodeState}}") == "active":
        return
    if not engine.private:
        raise RuntimeError("cannot measure on this engine: it is in no Swarm, and is not ours to change; init one")
    engine.run("swarm", "init", "--listen-addr", "127.0.0.1", "--advertise-addr", "127.0.0.1")


def _seed(share: Share, image: str) -> str:
    """A data root without a Swarm that has the images loaded."""
    seed = share.volume("seed")
    script = ["--entrypoint=/bin/sh", image, "-c", _SEED]
    options = ["--rm", "--privileged", f"--volume={seed}:/var/lib/docker", f"--label={share.label}"]
    share.engine.run("run", f"--name={share.name('seeding')}", *options, *script, limit_seconds=180)
    return seed


def _copy_seed(ground: Ground, to: str) -> None:
    share = ground.share
    share.engine.run("volume", "create", "--label", share.label, to)
    volumes = [f"--volume={ground.seed}:/from:ro", f"--volume={to}:/to"]
    # Written out now, and not in the midst of the boot.
    copy = ["--entrypoint=/bin/sh", ground.images[Mode.DIND], "-c", "cp -a /from/. /to/ && sync"]
    share.engine.run("run", "--rm", f"--label={share.label}", *volumes, *copy, limit_seconds=180)


def clean(share: Share) -> None:
    """Everything of this run; containers that are still being ended hold networks and volumes for a moment."""

    def is_clean() -> bool:
        with contextlib.suppress(Exception):
            share.remove()
        return not _left(share)

    wait_until(is_clean, what="the engine's removal of what was made", limit_seconds=60, poll=0.2)


def _left(share: Share) -> list[str]:
    """Of containers, volumes and networks; nothing else holds on."""
    found = []
    for kind in ("container", "network", "volume"):
        every = ["--all"] if kind == "container" else []
        found += share.engine.output(kind, "ls", "--quiet", *every, f"--filter=name={share.prefix}").split()
    return found


class Stack:
    """One stack of a contender, from its first `docker run` on; leaving the `with` removes all of it."""

    def __init__(self, ground: Ground, contender: Contender, mode: Mode, home: Path) -> None:
        self.ground = ground
        self.contender = contender
        self.mode = mode
        self.name = ground.share.name(uuid.uuid4().hex[:6])
        self.container = f"{self.name}-outer"
        self._home = home
        self._engine = ground.share.engine

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        # Before its services, which it would make anew.
        self._engine.run("rm", "--force", "--volumes", self.container, check=False)
        clean(Share(self._engine, self.name))

    def first_boot(self) -> Boot:
        """`docker run`, with the images loaded and nothing else there."""
        share = self.ground.share
        options = [f"--name={self.container}", f"--label={share.label}", "--publish=127.0.0.1::3000"]
        options += [f"--volume={self.name}-state:/var/lib/supervisor"]
        if self.mode is Mode.DIND:
            volume = f"{self.name}-docker"
            _copy_seed(self.ground, volume)
            options += ["--privileged", f"--volume={volume}:/var/lib/docker"]
        else:
            options += [f"--volume={self._engine.host.removeprefix('unix://')}:/var/run/docker.sock"]
        words = self.contender.arguments(self.name, self.mode, self.ground)
        return self._observe("run", "--detach", *options, *words, first=True)

    def second_boot(self) -> Boot:
        """`docker start` after an orderly stop, nothing changed."""
        self._engine.run("stop", f"--time={STOP_SECONDS}", self.container, limit_seconds=STOP_SECONDS + 30)
        return self._observe("start", self.container, first=False)

    def _observe(self, *command: str, first: bool) -> Boot:
        home = self._home / f"{self.name}-{'first' if first else 'second'}"
        home.mkdir()
        began = time.time()
        self._engine.run(*command)
        targets = self.contender.targets(self.name, self.mode)
        with contextlib.ExitStack() as scope:
            asking = self._inside({"do": "watch", "targets": targets})
            prober = scope.enter_context(Started(asking, log=home / "prober", env=self._engine.environ))
            following = [_cli(self._engine), "logs", "--follow", f"--since={began:.3f}", self.container]
            scope.enter_context(Started(following, log=home / "log", env=self._engine.environ))
            log = Log(home / "log")
            wait_until(
                lambda: self._booted(log), what=f"{self.contender.name}'s boot", limit_seconds=BOOT_SECONDS, poll=0.05
            )
            wait_until(
                lambda: prober.popen.poll() is not None, what=f"the prober: {prober.explain()}", limit_seconds=20
            )
            truth = {line.pop("target"): line for line in _lines(home / "prober")}
        alone = self._ask({"do": "migrate", "target": targets["postgres"], "first": first})
        made, started = self._times()
        return Boot(began, list(log.entries), truth, made, started, alone)

    def _booted(self, log: Log) -> bool:
        if log.find("boot.finished"):
            return True
        state = self._engine.output("inspect", "--format", "{{.State.Running}}", self.container)
        if state != "true":
            raise RuntimeError(f"{self.contender.name} ended in its boot: {log.read()[-3:]}")
        return False

    def _inside(self, words: dict[str, Any]) -> list[str]:
        program = (PROGRAMS / "inside.py").read_text()
        return [_cli(self._engine), "exec", self.container, PYTHON, "-c", program, json.dumps(words)]

    def _ask(self, words: dict[str, Any]) -> Any:
        return json.loads(self._engine.output(*self._inside(words)[1:]))

    def memory(self) -> list[dict[str, Any]]:
        """Each process in its container: pid, name, rss and pss in MiB."""
        found: list[dict[str, Any]] = self._ask({"do": "memory"})
        return found

    def docker(self, *arguments: str) -> str:
        """What the CLI prints on the engine that the stack's services are on."""
        inside = ["exec", self.container, "docker"] if self.mode is Mode.DIND else []
        return self._engine.output(*inside, *arguments)

    def runs(self) -> dict[str, str]:
        """Per role which container runs, and since when."""
        found = json.loads(self.docker("inspect", *self._containers()))
        return {_role(each, self.name): f"{each['Id']} since {each['State']['StartedAt']}" for each in found}

    def _containers(self) -> list[str]:
        each = [f"--filter=name=^/{self.name}-{role}" for role in ROLES]
        return self.docker("ps", "--quiet", *each).split()

    def _times(self) -> tuple[dict[str, float], dict[str, float]]:
        """When services or containers were made, and when containers were started."""
        containers = json.loads(self.docker("inspect", *self._containers()))
        services = json.loads(self.docker("service", "inspect", *(f"{self.name}-{role}" for role in ROLES[:2])))
        started = {_role(each, self.name): _moment(each["State"]["StartedAt"]) for each in containers}
        made = {_role(each, self.name): _moment(each["Created"]) for each in containers}
        made |= {each["Spec"]["Name"].removeprefix(f"{self.name}-"): _moment(each["CreatedAt"]) for each in services}
        return made, started


def _role(container: dict[str, Any], stack: str) -> str:
    return str(container["Name"]).removeprefix(f"/{stack}-").partition(".")[0]


def _moment(text: str) -> float:
    """A time of the engine: nanoseconds, which Python takes no more of than microseconds."""
    return datetime.fromisoformat(f"{text.removesuffix('Z').partition('.')[0]}+00:00").timestamp() + float(
        f"0.{text.removesuffix('Z').partition('.')[2] or 0}"
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _cli(engine: Engine) -> str:
    found = shutil.which("docker", path=f"/usr/bin:{engine.environ['PATH']}")
    if found is None:
        raise RuntimeError("cannot measure: there is no command 'docker' here; install Debian's docker.io")
    return found
