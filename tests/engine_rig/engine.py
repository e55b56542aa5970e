"""A Docker engine as the tests see it: the CLI on it, its images, and what belongs to one test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.engine_rig import images, private
from tests.engine_rig.places import EngineRigError, Places

LABEL = "supervisor-test"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Engine:
    """An engine that answers. `private`: started for the tests, so that nothing of a user's is on it."""

    host: str
    private: bool
    cache: Path

    def run(
        self,
        *arguments: str | Path,
        check: bool = True,
        limit_seconds: float = 60,
        stdin: str | None = None,
        quiet: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS`; a failure raises EngineRigError with what the CLI said, unless `check` is off."""
        done = subprocess.run(
            [_cli(), *map(str, arguments)],
            env=self.environ,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            timeout=limit_seconds,
            check=False,
        )
        if check and done.returncode:
            said = f"{done.stdout or ''}{done.stderr or ''}".strip()
            raise EngineRigError(
                f"cannot run 'docker {' '.join(map(str, arguments))}': exit code {done.returncode}\n{said}"
            )
        return done

    @property
    def environ(self) -> dict[str, str]:
        """For any process that is to reach this engine, and none of the user's settings."""
        # The legacy builder is the one that every engine of Debian has without a plugin.
        settings = self.cache / "cli"
        settings.mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = f"{os.environ.get('PATH', '')}:{_PATH}"
        return {**kept, "PATH": path, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(settings), "DOCKER_BUILDKIT": "0"}

    def output(self, *arguments: str | Path, limit_seconds: float = 60) -> str:
        """What `docker ARGUMENTS` printed, without the last line end."""
        return self.run(*arguments, limit_seconds=limit_seconds).stdout.rstrip("\n")

    def image(self, name: str) -> str:
        """The tag of an image of ours, built when it is missing or its sources changed; minutes the first time."""
        return images.tag(self, name)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """A restart of the engine, or its crash with KILL; only the private one lets itself be treated so."""
        if not self.private:
            raise EngineRigError(f"cannot restart the engine {self.host!r}: it is not the tests' own")
        private.restart(Places(self.cache / "engine"), number)

    def has(self, tag: str) -> bool:
        return self.run("image", "inspect", tag, check=False).returncode == 0


@dataclass(frozen=True)
class Share:
    """What one test has on the engine: all its names begin with `prefix`, all it makes bears `label`."""

    engine: Engine
    prefix: str

    @property
    def label(self) -> str:
        return f"{LABEL}={self.prefix}"

    def name(self, word: str) -> str:
        return f"{self.prefix}-{word}"

    def start(self, image: str, *arguments: str, word: str = "box", options: tuple[str, ...] = ()) -> str:
        """`docker run --detach`; gives the container's name."""
        name = self.name(word)
        self.engine.run("run", "--detach", "--name", name, "--label", self.label, *options, image, *arguments)
        return name

    def network(self, word: str = "net", *options: str) -> str:
        name = self.name(word)
        self.engine.run("network", "create", "--label", self.label, *options, name)
        return name

    def volume(self, word: str = "data") -> str:
        name = self.name(word)
        self.engine.run("volume", "create", "--label", self.label, name)
        return name

    def address(self, container: str) -> str:
        """Of a container on the default bridge or on its only network."""
        found = json.loads(self.engine.output("inspect", container))[0]["NetworkSettings"]["Networks"]
        return next(str(network["IPAddress"]) for network in found.values() if network["IPAddress"])

    def log(self, container: str) -> str:
        done = self.engine.run("logs", container)
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Everything that bears the label or the prefix, and nothing else."""
        for kind, listing, verb in _KINDS:
            wanted = {
                found
                for each in (f"label={self.label}", f"name={self.prefix}-")
                for found in self._list(*listing, each)
            }
            if wanted:
                self.engine.run(kind, *verb, *sorted(wanted), check=kind != "network", limit_seconds=120)

    def _list(self, *arguments: str) -> list[str]:
        done = self.engine.run(*arguments, check=False)
        return done.stdout.split() if done.returncode == 0 else []


# Services first: a task that is removed comes back. Listing services fails without a Swarm, where there are none.
_KINDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("service", ("service", "ls", "--quiet", "--filter"), ("rm",)),
    ("container", ("container", "ls", "--all", "--quiet", "--filter"), ("rm", "--force", "--volumes")),
    ("network", ("network", "ls", "--quiet", "--filter"), ("rm",)),
    ("secret", ("secret", "ls", "--quiet", "--filter"), ("rm",)),
    ("config", ("config", "ls", "--quiet", "--filter"), ("rm",)),
    ("volume", ("volume", "ls", "--quiet", "--filter"), ("rm", "--force")),
)


def _cli() -> str:
    """The CLI beside Debian's engine before another one in front of it on the PATH."""
    found = shutil.which("docker", path=f"/usr/bin:{os.environ.get('PATH', '')}")
    if found is None:
        raise EngineRigError(
            "cannot use the Docker engine: there is no command 'docker' here; install Debian's docker.io"
        )
    return found
