"""Using the private engine: who comes takes it over as it runs, or starts it; the last one out ends it."""

from __future__ import annotations

import fcntl
import http.client
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.apart import start_apart
from tests.engine_rig import record
from tests.engine_rig.places import REPOSITORY, EngineRigError, Places

_START_SECONDS = 60
_END_SECONDS = 60
_PING_SECONDS = 2


@dataclass
class Use:
    """Our part in a running engine; `leave` is safe to call more than once."""

    places: Places
    fresh: bool  # started by us: all that is on it was left by earlier runs
    _lock: IO[str]

    def leave(self) -> None:
        """Blocks until the engine is gone where we were the last, at most 60 s."""
        if self._lock.closed:
            return
        self._lock.close()
        began = time.monotonic()

        def is_settled() -> bool:
            # The keeper gets the lock within milliseconds of the last user; later than that, others use it.
            return not _is_kept(self.places) or (time.monotonic() - began > 1 and not _is_ending(self.places))

        wait_until(is_settled, "ended", limit_seconds=_END_SECONDS)


def use(places: Places, *, stay: bool = False, wish: str = "") -> Use:
    """Take part in the engine, started unless it answers; raises EngineRigError. `stay`: it runs until `end`."""
    places.folder.mkdir(parents=True, exist_ok=True)
    places.folder.chmod(0o711)
    lock = places.users.open("a")
    try:
        _take(lock, fcntl.LOCK_SH)
        with _alone(places):
            fresh = not _runs(places)
            if fresh:
                clear_leftovers(places)
                _start(places, stay=stay, wish=wish)
    except BaseException:
        lock.close()
        raise
    return Use(places, fresh, lock)


def end(places: Places) -> bool:
    """End the engine whoever uses it, and clear what one that crashed left; whether there was any."""
    found = record.read(places.record)
    if found is None:
        return False
    if found.keeper_lives:
        _end_process(found.pid, signal.SIGTERM)
    clear_leftovers(places)
    return True


def answers(path: Path) -> bool:
    """One `GET /_ping`: an engine listens long before it serves."""
    connection = http.client.HTTPConnection("localhost", timeout=_PING_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(_PING_SECONDS)
        connection.sock.connect(str(path))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def dockerd_pid(places: Places) -> int:
    """As we see it; its own pid file tells the pid in its namespace."""
    for pid, argv in processes(places):
        if Path(argv[0]).name == "dockerd":
            return pid
    raise EngineRigError(f"cannot find the dockerd of {places.host!r}: it does not run; see {places.log}")


def wait_until(condition: Callable[[], bool], what: str, *, limit_seconds: float = _START_SECONDS) -> None:
    """Poll with a limit; raises EngineRigError."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise EngineRigError(f"cannot use the engine: not {what} within {limit_seconds:.0f} s")
        time.sleep(0.05)


def restart(places: Places, number: signal.Signals) -> None:
    """End dockerd by the signal, as a crash (KILL) or a restart (TERM) does; blocks until the next one answers."""
    ended = dockerd_pid(places)
    os.kill(ended, number)
    wait_until(lambda: not Path(f"/proc/{ended}").exists(), "restarted")
    wait_until(lambda: answers(places.socket), "answering")


def clear_leftovers(places: Places) -> None:
    """After a keeper that was killed: the kernel ended its processes, the rest is taken away here."""
    found = record.read(places.record)
    if found is None:
        return
    if found.keeper_lives:
        _end_process(found.pid, signal.SIGKILL)
    wait_until(lambda: not list(processes(places)), f"ended below {places.folder}")
    found.clear(places)


def processes(places: Places) -> Iterator[tuple[int, list[str]]]:
    """Those with our pid file in their arguments: unshare, the room, dockerd."""
    wanted = f"--pidfile={places.pid_file}"
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_text().split("\0")
        except OSError:  # ended meanwhile
            continue
        if wanted in argv:
            yield int(folder.name), argv


def _runs(places: Places) -> bool:
    """Whether one runs that answers; one that is silent past the limit is a leftover."""
    if not _is_kept(places):
        return False
    with suppress(EngineRigError):
        wait_until(lambda: answers(places.socket) or not _is_kept(places), "answering")
    return _is_kept(places) and answers(places.socket)


def _start(places: Places, *, stay: bool, wish: str) -> None:
    places.log.write_text("")
    argv = ["env", f"PYTHONPATH={REPOSITORY}", "PYTHONDONTWRITEBYTECODE=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    argv += [sys.executable, "-m", "tests.engine_rig.keeper", str(places.folder), wish, "stay" if stay else "leave"]
    keeper = start_apart(argv, log=places.log)
    wait_until(lambda: answers(places.socket) or not keeper.running, "answering")
    if not keeper.running:
        last = "\n".join(places.log.read_text().splitlines()[-15:])
        clear_leftovers(places)
        raise EngineRigError(f"cannot start the engine: it ended at once; the last lines of {places.log}:\n{last}")


def _end_process(pid: int, number: signal.Signals) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for each, limit in ((number, _END_SECONDS), (signal.SIGKILL, 5)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, each)
            if select.select([descriptor], [], [], limit)[0]:
                return
    finally:
        os.close(descriptor)


def _is_kept(places: Places) -> bool:
    found = record.read(places.record)
    return found is not None and found.keeper_lives


def _is_ending(places: Places) -> bool:
    with places.users.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _alone(places: Places) -> Iterator[None]:
    """Two that come at the same time must not both start it."""
    with (places.folder / "starting").open("a") as file:
        _take(file, fcntl.LOCK_EX)
        yield


def _take(file: IO[str], kind: int) -> None:
    """Polled, as a blocking lock has no limit."""

    def taken() -> bool:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    wait_until(taken, f"free, by the lock {file.name},", limit_seconds=_START_SECONDS + _END_SECONDS)
