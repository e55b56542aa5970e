"""Keeps the private engine for as long as someone uses it, then ends it and takes away what it left.

A process of its own, nobody's child. It waits for the lock that every user holds shared: when the last one is gone,
also by a crash, the kernel gives it the lock.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.engine_rig import residue
from tests.engine_rig.places import (
    CAP_SYS_RESOURCE,
    Addresses,
    Places,
    default_interface,
    dockerd_argv,
    free_network,
    lacks_capability,
    routed_networks,
)
from tests.engine_rig.record import Record, start_time

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_ROOM_STOP_SECONDS = 30
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def main(folder: str, wish: str, stay: bool) -> int:
    """Blocks until TERM, or without `stay` until nobody uses the engine; 1 when the engine ended by itself."""
    places = Places(Path(folder))
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    addresses = Addresses(free_network(routed_networks(_routes()), wish, digest=places.digest))
    record = Record(os.getpid(), start_time(os.getpid()), str(addresses.network), residue.look())
    record.write(places.record)
    _make_bridge(places.bridge, str(addresses.bridge))
    room = _start_room(places, addresses)
    if not stay:
        threading.Thread(target=_wait_for_users, args=(places.users,), daemon=True).start()
    told = _wait(room)
    record.clear(places)
    return 0 if told else 1


def _routes() -> str:
    return Path("/proc/net/route").read_text()


def _make_bridge(name: str, address: str) -> None:
    for words in (
        ("link", "add", name, "type", "bridge"),
        ("address", "add", address, "dev", name),
        ("link", "set", name, "up"),
    ):
        subprocess.run(["ip", *words], check=True, timeout=15)


def _start_room(places: Places, addresses: Addresses) -> subprocess.Popen[bytes]:
    interface = default_interface(_routes())
    mtu = int(Path(f"/sys/class/net/{interface}/mtu").read_text()) if interface else 1500
    wrap = lacks_capability(CAP_SYS_RESOURCE, Path("/proc/self/status").read_text())
    places.settings.write_text("{}\n")
    # Of an earlier run: with its networks dockerd would put the addresses of then on our bridge.
    for path in (places.pid_file, places.socket, places.networks):
        path.unlink(missing_ok=True)
    # The death of this process ends unshare, that of unshare the room, that of the room all below it.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "slave", "--pid", "--fork"]
    argv += [
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-I",
        str(Path(__file__).with_name("room.py")),
        str(places.run),
    ]
    return subprocess.Popen(
        argv + dockerd_argv(places, addresses, mtu=mtu, wrap_runtime=wrap),
        env={"PATH": _PATH, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
    )


def _wait_for_users(path: Path) -> None:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Held until this process has ended: a new user waits for that and then starts a new engine.
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()


def _wait(room: subprocess.Popen[bytes]) -> bool:
    """Whether we were told to end; when this returns the room is gone."""
    while room.poll() is None:
        if signal.sigwait(_SIGNALS) != signal.SIGCHLD:
            _end(room)
            return True
    return False


def _end(room: subprocess.Popen[bytes]) -> None:
    """unshare itself takes no TERM; what it forked is PID 1 of the room."""
    for pid in Path(f"/proc/{room.pid}/task/{room.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGTERM)
    try:
        room.wait(_ROOM_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        room.kill()
        room.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], stay=sys.argv[3] == "stay"))
