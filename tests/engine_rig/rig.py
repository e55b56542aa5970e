"""The engine for a run of tests: one that answers, else the private one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.engine_rig import private
from tests.engine_rig.engine import Engine
from tests.engine_rig.places import REPOSITORY, EngineRigError, cache_folder, here

_USUAL_SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True)
class Rig:
    """An engine and how to leave it."""

    engine: Engine
    leave: Callable[[], None]


def found_host(environ: Mapping[str, str]) -> str | None:
    """Of an engine that answers: DOCKER_HOST, which must, else the usual socket."""
    host = environ.get("DOCKER_HOST", "")
    if not host:
        return f"unix://{_USUAL_SOCKET}" if private.answers(_USUAL_SOCKET) else None
    if host.startswith("unix://") and not private.answers(Path(host.removeprefix("unix://"))):
        raise EngineRigError(
            f"cannot use the engine of DOCKER_HOST={host!r}: it does not answer; start it, or unset DOCKER_HOST"
        )
    return host


def take(*, stay: bool = False) -> Rig:
    """Blocks until an engine answers: about 2 s for the private one, minutes where it must be installed first."""
    cache = cache_folder(os.environ, root=os.geteuid() == 0)
    if host := found_host(os.environ):
        return Rig(Engine(host, private=False, cache=cache), leave=lambda: None)
    _install()
    use = private.use(here(), stay=stay, wish=os.environ.get("SUPERVISOR_TEST_NETWORK", ""))
    engine = Engine(use.places.host, private=True, cache=cache)
    if use.fresh:
        _sweep(engine)
    return Rig(engine, leave=use.leave)


def _install() -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts" / "engine", "install"], text=True, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise EngineRigError(done.stderr.strip())


def _sweep(engine: Engine) -> None:
    """What earlier runs left on the private engine, crashed ones too; its images stay."""
    engine.run("swarm", "leave", "--force", check=False)
    for kind, option, verb in (
        ("container", "--all", ("rm", "--force", "--volumes")),
        ("network", "--filter=type=custom", ("rm",)),
        ("volume", "--quiet", ("rm", "--force")),
    ):
        if found := engine.output(kind, "ls", "--quiet", option).split():
            engine.run(kind, *verb, *found, check=False)
