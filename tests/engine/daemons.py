"""Private Docker daemons: each in mount, network and PID namespaces of its own, nobody's child, ended wholly."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.apart import Apart, start_apart

BUSYBOX = "supervisor-test/busybox:1"
UPLINK = "uplink0"
_CGROUPS = Path("/sys/fs/cgroup")

# PID 1 of the namespaces: waiting for `cat` it reaps whatever it adopts, and it ends with the tests, who hold the other
# end of the pipe, however they end. Docker's own state in /run and its key stay private too.
_HOLD = """
mount -t tmpfs tmpfs /run && mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker || exit 1
ip link set lo up && ip link add uplink0 type bridge && ip link set uplink0 up || exit 1
: >"$1/held"
cat "$1/life"
"""


def eventually(condition: Callable[[], bool], what: str, *, limit_seconds: float = 20) -> None:
    """Poll a condition of another process; past the limit the test fails with `what`."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit_seconds:g} s")
        time.sleep(0.02)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(2)
        self.sock.connect(self._path)


def _pings(path: Path) -> bool:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _child_of(pid: int) -> int | None:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return None


class Daemon:
    """One dockerd with everything of its own. `host` is its DOCKER_HOST."""

    def __init__(self, *flags: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))
        self.socket = self.folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self._flags = flags
        self._log = self.folder / "dockerd.log"
        os.mkfifo(self.folder / "life")
        self._holder = self._hold()
        self._life = os.open(self.folder / "life", os.O_WRONLY)
        self._dockerd: Apart | None = None
        self._others: list[Apart] = []

    def _hold(self) -> Apart:
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
        holder = start_apart([*unshare, "sh", "-c", _HOLD, "sh", self.folder], log=self._log)
        eventually((self.folder / "held").exists, "namespaces made")
        return holder

    @property
    def init_pid(self) -> int:
        """PID 1 of the namespaces, as we see it."""
        pid = _child_of(self._holder.pid)
        assert pid is not None, self.log()
        return pid

    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    def start(self, *, answers: bool = True) -> Daemon:
        """Start dockerd, and wait until it answers."""
        enter = ["nsenter", "--target", str(self.init_pid), "--mount", "--net", "--pid", "--"]
        at = self.folder
        own = [f"--data-root={at}/root", f"--exec-root={at}/exec", f"--pidfile={at}/docker.pid", f"--host={self.host}"]
        cgroup = f"--cgroup-parent=/{self.folder.name}"
        self._dockerd = start_apart([*enter, "dockerd", *own, cgroup, *self._flags], log=self._log)
        if answers:
            eventually(self._answers, "dockerd ready", limit_seconds=40)
        return self

    def _answers(self) -> bool:
        assert self._dockerd is not None
        assert self._dockerd.running, f"dockerd ended:\n{self.log()[-3000:]}"
        return _pings(self.socket)

    def signal(self, number: signal.Signals) -> None:
        """Signal dockerd and wait for its end."""
        assert self._dockerd is not None
        pid = _child_of(self._dockerd.pid)
        if pid is not None:
            os.kill(pid, number)
        eventually(lambda: not (self._dockerd and self._dockerd.running), f"dockerd ended by {number.name}")
        self._dockerd.end(signal.SIGKILL)
        self._dockerd = None

    def stop(self) -> None:
        """One TERM, and wait."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash: KILL. What is left of it is as the next start finds it."""
        self.signal(signal.SIGKILL)

    def inside(self, *argv: str) -> str:
        """Run a program in its namespaces; its output."""
        enter = ["nsenter", "--target", str(self.init_pid), "--mount", "--net", "--pid", "--"]
        done = subprocess.run([*enter, *argv], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def leave_running(self, *argv: str, port: int) -> None:
        """Start a server in its namespaces, which ends with them; returns when it listens on TCP `port`."""
        enter = ["nsenter", "--target", str(self.init_pid), "--mount", "--net", "--pid", "--"]
        self._others.append(start_apart([*enter, *argv], log=self._log))
        eventually(lambda: bool(self.listeners(port)), f"{argv} listening")

    def docker(self, *argv: str) -> str:
        """Run Docker's own command line against it; its output."""
        words = ["/usr/bin/docker", "--host", self.host, *argv]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def link_to(self, other: Daemon, own_address: str, other_address: str) -> None:
        """A cable between both namespaces, each end with an address such as `192.0.2.1/24`."""
        ends = ("cable0", "netns", str(self.init_pid)), ("cable0", "netns", str(other.init_pid))
        subprocess.run(
            ["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]], check=True, timeout=10
        )
        for daemon, address in ((self, own_address), (other, other_address)):
            daemon.inside("ip", "address", "add", address, "dev", "cable0")
            daemon.inside("ip", "link", "set", "cable0", "up")

    def listeners(self, port: int) -> set[str]:
        """The addresses on which TCP and UDP `port` is bound inside."""
        lines = self.inside("ss", "--tcp", "--udp", "--listening", "--numeric", "--no-header").splitlines()
        bound = [line.split()[4].rsplit(":", 1) for line in lines]
        return {address for address, number in bound if number == str(port)}

    def end(self) -> None:
        """End every process of its namespaces, and remove its files; to be called once."""
        init = _child_of(self._holder.pid)
        if init is not None:
            os.kill(init, signal.SIGKILL)  # the kernel ends all of its namespace before `unshare` sees it gone
        eventually(lambda: not self._holder.running, "namespaces ended")
        self._holder.end(signal.SIGKILL)
        os.close(self._life)
        for started in (*self._others, *([self._dockerd] if self._dockerd else [])):
            started.end(signal.SIGKILL)
        for hierarchy in _CGROUPS.iterdir():
            for folder, _, _ in os.walk(hierarchy / self.folder.name, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def private_daemon(*flags: str) -> Iterator[Daemon]:
    """A running daemon for the length of the block; skips where the machine cannot have one."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("needs root and a dockerd")
    daemon = Daemon(*flags)
    try:
        yield daemon.start()
    finally:
        daemon.end()


def busybox() -> Path:
    """The static busybox; one file is a whole image."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("needs a static busybox")
    return Path(found)


def save_image(path: Path, *names: str, command: tuple[str, ...] = ("/bin/sleep", "600")) -> None:
    """Write an archive as `docker save` makes it: busybox under `names`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(busybox(), "bin/busybox")
        for applet in ("sh", "sleep", "echo", "cat", "true", "false", "ip", "nslookup", "wget"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    digest = sha256(layer.getvalue()).hexdigest()
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    config = json.dumps(settings).encode()
    config_name = f"{sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": list(names), "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, data in (
            (f"{digest}/layer.tar", layer.getvalue()),
            (config_name, config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
