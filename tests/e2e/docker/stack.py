"""A supervisor in a container of the tests' engine, started as a user would: its log, its ports, what it runs."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.e2e.harness import free_port, wait_until
from tests.engine_rig.engine import Share
from tests.engine_rig.places import EngineRigError

BOOT_SECONDS = 90.0
BACK_SECONDS = 30.0
"""What the issue allows until everything is back by itself."""
APP_PORT = 3000
DATA_SERVICES = ("postgres", "redis")
SERVICES = (*DATA_SERVICES, "traefik")
_LOOK_SECONDS = 0.1
_SOCKET = "/var/run/docker.sock"
# Prints `host:port XX`, XX being the first byte of an answer: to Postgres' request for TLS, or to a line.
_ASK = r"""say() { timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "$2" >&3 && head -c1 <&3' "$@"; }
ask() {
  for words in '\0\0\0\10\4\322\26/' 'PING\r\n'; do
    say "$1" "$2" "$words" | od -An -tx1 | sed "s|^|$1:$2|" &
  done
  wait
}"""
_HTTP = f"{ord('H'):02x}"


class Kind(StrEnum):
    """Which of the two lines starts it."""

    DIND = "dind"
    SOCKET = "socket"


@dataclass(frozen=True)
class Back:
    """Seconds it took after an ordeal: until notes could be read and written, and until all was said to run."""

    served_seconds: float
    running_seconds: float


@dataclass
class Stack:
    """One stack named after the test's share. Ended by `end`, with everything that it made on the engine.

    `documented` is the line with volumes and a restart policy, else the bare one.
    """

    share: Share
    kind: Kind
    example: str = "notes"
    documented: bool = False
    environ: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    image: str = ""
    """Another image than the example's."""
    access: tuple[str, ...] | None = None
    """Other words than those that let it have an engine."""
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)
    word: str = "app"
    stack: str = ""
    """Another stack's name than the share's prefix; it begins with the prefix, so that it is found again."""

    @property
    def container(self) -> str:
        return self.share.name(self.word)

    @property
    def name(self) -> str:
        return self.stack or self.share.prefix

    def thing(self, word: str) -> str:
        """What the supervisor calls a service, volume or network of the stack."""
        return f"{self.name}-{word}"

    # Starting and ending

    def prepare(self) -> Stack:
        """Have the image built, which is no part of a boot."""
        self.image = self.image or self.share.engine.image(f"{self.example}{'-dind' * self._is_dind}-ready")
        return self

    def run(self) -> Stack:
        """`docker run` by the line; returns at once."""
        self.prepare()
        self.share.start(self.image, word=self.word, options=self._options())
        return self

    @property
    def _is_dind(self) -> bool:
        return self.kind is Kind.DIND

    def _options(self) -> tuple[str, ...]:
        line = ["--publish", f"127.0.0.1:{self.port}:{APP_PORT}"]
        line += self._access if self.access is None else self.access
        if self.documented:
            line += ["--restart", "unless-stopped", "--volume", f"{self.thing('supervisor')}:/var/lib/supervisor"]
            line += ["--volume", f"{self.thing('docker')}:/var/lib/docker"] * self._is_dind
        environ = {"SUPERVISOR_STACK": self.name, **self._ports, **self.environ}
        return (*line, *(word for pair in environ.items() for word in ("--env", "=".join(pair))), *self.options)

    @property
    def _access(self) -> tuple[str, ...]:
        if self._is_dind:
            return ("--privileged",)
        return ("--volume", f"{self.share.engine.host.removeprefix('unix://')}:{_SOCKET}")

    @property
    def _ports(self) -> dict[str, str]:
        """In socket mode Traefik's ports are the host's, where the usual ones may be taken."""
        if self._is_dind:
            return {}
        return {"SUPERVISOR_HTTP_PORT": str(self.http_port), "SUPERVISOR_HTTPS_PORT": str(self.https_port)}

    def boot(self) -> Stack:
        """Start it and wait until it is through."""
        self.run()
        self.wait_event("boot.finished")
        return self

    def remove(self) -> None:
        """`docker rm -f` of the supervisor's container, anonymous volumes too."""
        self.share.engine.run("rm", "--force", "--volumes", self.container)

    def end(self) -> None:
        """Everything of it is gone from the engine; the supervisor first, as it would bring things back."""
        engine = self.share.engine
        engine.run("rm", "--force", "--volumes", self.container, check=False)
        for kind in ("service", "config"):
            listed = engine.run(kind, "ls", "--quiet", "--filter", f"name={self.name}-", check=False)
            if listed.returncode == 0 and (found := listed.stdout.split()):
                engine.run(kind, "rm", *found, check=False)
        # Killed, as Swarm takes its time to stop tasks in order; again until none is left.
        wait_until("its tasks are gone", lambda: not self._kill_tasks(), limit=60)

    def _kill_tasks(self) -> list[str]:
        """Remove containers of its services; gives those that there were."""
        words = ("ps", "--all", "--format", '{{.ID}} {{.Label "com.docker.swarm.service.name"}}')
        rows = (line.partition(" ") for line in self.share.engine.output(*words).splitlines())
        found = [container for container, _, service in rows if service.startswith(f"{self.name}-")]
        if found:
            self.share.engine.run("rm", "--force", "--volumes", *found, check=False)
        return found

    def wait_end(self, limit: float = 60) -> int:
        """Its exit code."""
        wait_until("the container ended", lambda: self.state["Status"] == "exited", limit=limit)
        return int(self.state["ExitCode"])

    # Looking from outside

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.share.engine.output("inspect", self.container))[0]["State"]
        return state

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Lines of the log, of all its runs, with this event's name and these fields."""
        found = []
        # Asked again and again while a test waits: only what may be meant is parsed.
        for line in (each for each in self.share.log(self.container).splitlines() if name in each):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if name in ("", event.get("event")) and all(event.get(key) == value for key, value in fields.items()):
                    found.append(event)
        return found

    def output(self, source: str, *, after: str = "") -> str:
        """What a service wrote, as the log has it; `after` is the time of a log line."""
        return "\n".join(event["msg"] for event in self.events("output", source=source) if event["at"] > after)

    def wait_event(self, name: str, *, after: int = 0, limit: float = BOOT_SECONDS, **fields: Any) -> dict[str, Any]:
        """The first event of this kind beyond the first `after` ones; fails at once where the container ended."""
        deadline = time.monotonic() + limit
        while True:
            ended = self.state["Status"] == "exited" and not self.documented
            events = self.events(name, **fields)
            if len(events) > after:
                return events[after]
            assert not ended, f"ended with {self.state['ExitCode']} before {name} {fields}:\n{self.story()}"
            assert time.monotonic() < deadline, f"not within {limit:g} s: {name} {fields}:\n{self.story()}"
            time.sleep(_LOOK_SECONDS)

    def story(self) -> str:
        """The log for a reader: our own events and the services' output, without the engine's chatter."""
        kept = [event for event in self.events() if event.get("source") != "dockerd"]
        return "\n".join(
            f"{event['at']} [{event['source']}] {event['msg']} "
            + " ".join(
                f"{key}={event[key]}" for key in ("state", "health", "reason", "error", "detail") if key in event
            )
            for event in kept[-80:]
        )

    @property
    def overall(self) -> str:
        """The newest overall state of the log."""
        states = self.events("supervisor.state")
        return str(states[-1]["state"]) if states else ""

    @property
    def networks(self) -> dict[str, str]:
        """Address of the supervisor's container on each of its networks."""
        found = json.loads(self.share.engine.output("inspect", self.container))[0]["NetworkSettings"]["Networks"]
        return {name: str(network["IPAddress"]) for name, network in found.items()}

    @property
    def address(self) -> str:
        """The one on the network that it was started on."""
        return next(address for name, address in self.networks.items() if name != self.thing("network"))

    @property
    def app_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def traefik_url(self) -> str:
        """Traefik's entry point: published by the inner engine in the container, or by the host's."""
        return f"http://{self.address}" if self._is_dind else f"http://127.0.0.1:{self.http_port}"

    # The notes

    def add_note(self, text: str) -> None:
        status, answer = self._write(text)
        assert status == 201, answer

    def _write(self, text: str) -> tuple[int, str]:
        return fetch(f"{self.app_url}/notes", body={"body": text})

    def takes_note(self, text: str) -> bool:
        """Whether one can be written."""
        with contextlib.suppress(OSError):
            return self._write(text)[0] == 201
        return False

    def notes(self, url: str = "") -> list[str]:
        status, answer = fetch(f"{url or self.app_url}/notes")
        assert status == 200, answer
        return [note["body"] for note in json.loads(answer)["notes"]]

    def has_note(self, text: str) -> bool:
        """Whether it can be read, through the app's own port and through Traefik."""
        with contextlib.suppress(OSError, AssertionError, StopIteration):
            return text in self.notes() and text in self.notes(self.traefik_url)
        return False

    def measure(self, note: str, happened: Callable[[], bool], *, since: float) -> Back:
        """Wait until the ordeal has shown (`happened`), `note` and a new one are there, and it says running.

        `since` is when it began (monotonic).
        """
        self._await("it happened", happened, since=since)
        self._await("the note is there", lambda: self.has_note(note), since=since)
        self._await("another can be written", lambda: self.takes_note(f"after {note}"), since=since)
        served = time.monotonic() - since
        self._await("it says running", lambda: self.overall == "running", since=since)
        return Back(round(served, 2), round(time.monotonic() - since, 2))

    def _await(self, what: str, condition: Callable[[], bool], *, since: float) -> None:
        """With pauses, as each look costs a process or two; the container may be away meanwhile."""
        while True:
            with contextlib.suppress(EngineRigError, LookupError, ValueError):
                if condition():
                    return
            assert time.monotonic() - since < BACK_SECONDS, f"not within {BACK_SECONDS:g} s: {what}\n{self.story()}"
            time.sleep(_LOOK_SECONDS)

    @property
    def is_whole(self) -> bool:
        """Whether everything runs, as far as can be seen from outside."""
        with contextlib.suppress(EngineRigError, OSError, LookupError):
            answered = fetch(f"{self.app_url}/api/health")[0] == 200
            return answered and self.overall == "running" and set(self.containers()) == set(SERVICES)
        return False

    # Within

    def inside(self, *argv: str, check: bool = True) -> str:
        """What a command in the supervisor's container printed."""
        return self.share.engine.run("exec", self.container, *argv, check=check).stdout.rstrip("\n")

    def docker(self, *arguments: str) -> str:
        """`docker ARGUMENTS` on the engine that runs the services."""
        return self.inside("docker", *arguments) if self._is_dind else self.share.engine.output(*arguments)

    def containers(self) -> dict[str, str]:
        """Id of the running container of each service."""
        listed = self.docker("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}", "--filter", f"name={self.name}-")
        found = {}
        for line in listed.splitlines():
            container, name = line.split()
            word = name.removeprefix(f"{self.name}-").partition(".")[0]
            if word in SERVICES:
                found[word] = container
        return found

    def tasks(self) -> set[str]:
        """Ids of all tasks that Swarm has of the data services, ended ones too: an update makes another at once."""
        services = [self.thing(service) for service in DATA_SERVICES]
        return set(self.docker("service", "ps", "--quiet", "--no-trunc", *services).split())

    def pids(self, comm: str) -> list[int]:
        """Of processes of that name in the container, and in those within."""
        script = f'for p in /proc/[0-9]*; do read -r n <"$p/comm" && [ "$n" = {comm} ] && echo "${{p#/proc/}}"; done; :'
        return [int(word) for word in self.inside("sh", "-c", script).split()]

    @property
    def dockerd(self) -> int:
        """The pid of the inner engine, in the container."""
        (pid,) = self.pids("dockerd")
        return pid

    @property
    def app(self) -> int:
        """The app's pid, in the container."""
        return int(self.events("app.generation", state="serving")[-1]["pid"])

    def app_environ(self) -> dict[str, str]:
        """Read as the app's user: root in a container may not look into another user's processes."""
        place = f"/proc/{self.app}"
        user = self.inside("stat", "--format", "%u:%g", place)
        text = self.share.engine.output("exec", "--user", user, self.container, "cat", f"{place}/environ")
        return dict(entry.partition("=")[::2] for entry in text.split("\0") if entry)

    def kill_9(self, pid: int) -> None:
        """A process in the container."""
        self.inside("sh", "-c", f"kill -9 {pid}")

    def init_on_host(self) -> int:
        """The pid of the container's PID 1 as this machine sees it."""
        container = self.share.engine.output("inspect", "--format", "{{.Id}}", self.container)
        found = [
            (len(ids), int(path.name))
            for path in Path("/proc").glob("[0-9]*")
            if (ids := _pids_of(path, container)) and ids[-1] == 1
        ]
        return min(found)[1]

    def opens(self, *targets: str, network: str = "bridge", inner: bool = False) -> list[bool]:
        """Which of them (`host:port`) answer another container, on the engine or on the `inner` one.

        That something takes a connection proves nothing: a proxy on the way out of the machine may take any, and then
        speaks as a web server does.
        """
        asked = " & ".join(f"ask {each.replace(':', ' ')}" for each in targets)
        words = ("run", "--rm", "--network", network, "--label", self.share.label, "--entrypoint", "bash")
        image = self.share.engine.image("postgres" if inner else "base")
        run = self.docker if inner else self.share.engine.output
        said = run(*words, image, "-c", f"{_ASK}\nexec 2>&-; {asked} & wait")
        answers = dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
        return [each in answers and (answers[each] != _HTTP or each.endswith(f":{APP_PORT}")) for each in targets]

    def in_volume(self, volume: str, script: str) -> str:
        """A shell script in another container that has the volume at /volume."""
        mount = ("--volume", f"{volume}:/volume", "--label", self.share.label)
        return self.share.engine.output("run", "--rm", *mount, self.share.engine.image("base"), "sh", "-c", script)


def _pids_of(process: Path, container: str) -> list[int]:
    """The pids of a process in its namespaces, outermost first; none where it is not of the container."""
    with contextlib.suppress(OSError):
        if container in (process / "cgroup").read_text():
            line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:"))
            return [int(word) for word in line.split()[1:]]
    return []


def fetch(url: str, *, body: dict[str, Any] | None = None, limit: float = 5) -> tuple[int, str]:
    """One HTTP request; (status, text). Raises OSError where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    made = urllib.request.Request(url, data=data, headers={"content-type": "application/json"} if data else {})
    try:
        with urllib.request.urlopen(made, timeout=limit) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
