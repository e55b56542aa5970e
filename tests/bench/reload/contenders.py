"""Who takes part: ours with each front, and others, each started and told to reload its own way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from tests.bench.others import s6_argv, supervisorctl_argv, supervisord_argv
from tests.bench.reload.running import REPOSITORY, Running, app_environment, lay_out, peer_environment
from tests.bench.rig import PYTHON, Started, alone, environment, folder, free_port, missing

APPS = Path(__file__).resolve().parents[1] / "apps"
NODE = ("node", str(APPS / "app.js"))
PYTHON_APP = (PYTHON, "-m", "tests.bench.apps.app")
IMPORTS = {"PYTHONPATH": str(REPOSITORY)}

Start = Callable[[], AbstractContextManager[Running]]


@dataclass(frozen=True)
class Contender:
    """One way to run the app. `start` gives it healthy, in a folder and on a port of its own."""

    name: str
    start: Start
    is_ours: bool = False
    has_proxy: bool = False


def contenders(static: Path | None) -> list[Contender]:
    """Those whose programs are here. `static`: the app in C, built."""
    apps = {"Node": NODE, "Python": PYTHON_APP, **({"static C": (str(static),)} if static else {})}
    found = [
        Contender(f"ours, proxy, {name}", partial(ours, "proxy", argv), is_ours=True, has_proxy=True)
        for name, argv in apps.items()
    ]
    found.append(Contender("ours, restart, Node", partial(ours, "restart", NODE), is_ours=True))
    return found + _others()


def _others() -> list[Contender]:
    found = [
        Contender(name, start)
        for name, start, commands in (
            ("s6, Node", _s6, ("s6-svscan", "s6-svc", "node")),
            ("supervisord, Node", _supervisord, ("supervisord", "supervisorctl", "node")),
            ("bash entrypoint, Node", _bash, ("bash", "node")),
        )
        if not missing(*commands)
    ]
    if programs := python_servers():
        found.append(Contender("gunicorn HUP, Python", partial(_gunicorn, programs)))
        found.append(Contender("uvicorn HUP, Python", partial(_uvicorn, programs)))
    return found


def build_static(home: Path) -> Path | None:
    """The app in C as one static program; None where there is no compiler."""
    if missing("gcc"):
        return None
    made = home / "app-static"
    argv = ["gcc", "-static", "-O2", "-Wall", "-Wextra", "-o", str(made), str(APPS / "app.c"), "-pthread"]
    built = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if built.returncode:
        print(f"bench: going on without the app in C: {built.stderr[-500:]}", file=sys.stderr)
        return None
    return made


@contextlib.contextmanager
def ours(
    front: str, argv: Sequence[str], *, boot_seconds: float = 1.0, touch: bool = False, **settings: str
) -> Iterator[Running]:
    """`supervisor run` with that front; told by HUP, or by the trigger file with `touch`."""
    with folder() as home:
        lay_out(home)
        port = free_port()
        values = {
            **app_environment(home, boot_seconds=boot_seconds),
            **IMPORTS,
            "SUPERVISOR_FRONT": front,
            **settings,
        }
        with alone(home, port, argv, settings=values) as supervisor:
            supervisor.booted()
            trigger = home / ".reload-trigger"
            reload = trigger.touch if touch else partial(os.kill, supervisor.pid, signal.SIGHUP)
            yield _healthy(Running(home, port, reload))


@contextlib.contextmanager
def bare(argv: Sequence[str]) -> Iterator[Running]:
    """The app alone."""
    with _room() as (home, port), Started(argv, log=home / "log", env=peer_environment(home, port, IMPORTS)):
        yield _healthy(Running(home, port, lambda: None))


@contextlib.contextmanager
def _room() -> Iterator[tuple[Path, int]]:
    with folder() as home:
        lay_out(home)
        yield home, free_port()


def _healthy(running: Running) -> Running:
    running.wait_healthy()
    return running


def _call(argv: Sequence[str]) -> None:
    """Run a client to its end, in an environment whose PYTHONPATH cannot lead supervisorctl to our package."""
    subprocess.run(argv, env=environment(), capture_output=True, timeout=30, check=True)


@contextlib.contextmanager
def _s6() -> Iterator[Running]:
    with (
        _room() as (home, port),
        Started(s6_argv(home / "it", {"app": NODE}), log=home / "log", env=peer_environment(home, port)),
    ):
        yield _healthy(Running(home, port, partial(_call, ["s6-svc", "-r", str(home / "it" / "app")])))


@contextlib.contextmanager
def _supervisord() -> Iterator[Running]:
    with (
        _room() as (home, port),
        Started(supervisord_argv(home / "it", {"app": NODE}), log=home / "log", env=peer_environment(home, port)),
    ):
        # Without waiting for its client, which watches the new process for a second.
        client = partial(_begin, supervisorctl_argv(home / "it", "restart", "app"), home / "client")
        yield _healthy(Running(home, port, client))


def _begin(argv: Sequence[str], log: Path) -> None:
    Started(argv, log=log)


@contextlib.contextmanager
def _told_by_hup(argv: Callable[[int], Sequence[str]]) -> Iterator[Running]:
    with (
        _room() as (home, port),
        Started(argv(port), log=home / "log", env=peer_environment(home, port, IMPORTS)) as started,
    ):
        yield _healthy(Running(home, port, partial(_hup, started)))


def _hup(started: Started) -> None:
    with contextlib.suppress(ProcessLookupError):  # a broken release may have ended it
        started.popen.send_signal(signal.SIGHUP)


def _gunicorn(programs: Path) -> AbstractContextManager[Running]:
    options = ["-w", "2", "-k", "gthread", "--threads", "32", "--keep-alive", "5", "--backlog", "1024"]
    argv = [str(programs / "gunicorn"), *options, "tests.bench.apps.wsgi:app"]
    return _told_by_hup(lambda port: [*argv, "-b", f"127.0.0.1:{port}"])


def _uvicorn(programs: Path) -> AbstractContextManager[Running]:
    options = ["--workers", "2", "--lifespan", "off", "--no-access-log"]
    argv = [str(programs / "uvicorn"), *options, "tests.bench.apps.asgi:app"]
    return _told_by_hup(lambda port: [*argv, "--port", str(port)])


@contextlib.contextmanager
def _bash() -> Iterator[Running]:
    with _room() as (home, port):
        trigger = home / ".reload-trigger"
        argv = [str(APPS / "entrypoint.sh"), str(trigger), *NODE]
        with Started(argv, log=home / "log", env=peer_environment(home, port)):
            yield _healthy(Running(home, port, trigger.touch))


@cache
def python_servers() -> Path | None:
    """The programs of gunicorn and uvicorn, each at its best, in an environment of their own that is kept for the next
    time; None where it cannot be made."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "container-supervisor-bench"
    programs = home / "bin"
    if missing(str(programs / "gunicorn"), str(programs / "uvicorn")):
        print("  .. installing gunicorn and uvicorn", file=sys.stderr, flush=True)
        try:
            _quietly([PYTHON, "-m", "venv", str(home)])
            _quietly([str(programs / "pip"), "install", "-q", "gunicorn>=23", "uvicorn[standard]>=0.40"])
        except (subprocess.SubprocessError, OSError) as error:
            print(f"bench: going on without gunicorn and uvicorn: {error}", file=sys.stderr)
            return None
    return programs


def _quietly(argv: Sequence[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
