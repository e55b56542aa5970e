"""A dockerd of ours in mount, network and PID namespaces of its own; needs root and Debian's docker.io."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAM = "tests.engine.programs.dockerd_alone"
CHECKOUT = Path(__file__).parents[2]
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
LIMIT_SECONDS = 90.0
_CGROUPS = Path("/sys/fs/cgroup")
ADDRESS = "172.30.40.2"


def why_unavailable() -> str:
    """Empty where a dockerd can be brought up."""
    if os.geteuid() != 0:
        return "not root"
    missing = [name for name in ("dockerd", "containerd", "iptables", "unshare", "ip") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (Debian's docker.io and iptables)" if missing else ""


class Alone:
    """The running program: orders in, answers out."""

    def __init__(self, popen: subprocess.Popen[str], folder: Path) -> None:
        self._popen = popen
        self.folder = folder

    def do(self, name: str, **values: object) -> dict[str, Any]:
        """Give an order; its answer. At the limit of the whole program the pipe ends, and this fails."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps({"do": name, **values}) + "\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        assert line, f"{name}: the program ended with {self._popen.wait(5)}"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def shell(self, text: str) -> str:
        """A shell command inside; its output. Fails with it."""
        answer = self.do("shell", text=text)
        assert answer["status"] == 0, answer
        return str(answer["output"])

    def up(self) -> dict[str, Any]:
        """Start it and prove it."""
        started = self.do("start")
        assert "error" not in started, started
        proved = self.do("prove")
        assert proved["proved"], (proved, self.do("heard"))
        return {**started, **proved}

    def kill_world(self) -> None:
        """What `docker kill` does to a container: everything is gone at once, its files stay."""
        self._popen.kill()
        self._popen.wait(10)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def data(self) -> Path:
        return self.folder / "data"


@contextmanager
def folder_on_disk() -> Iterator[Path]:
    """A short path, on a disk: /tmp may be a tmpfs. Control groups named after it are removed, too."""
    folder = Path(tempfile.mkdtemp(prefix="dockerd-", dir="/var/tmp"))
    (folder / "daemon.json").write_text(json.dumps({"cgroup-parent": f"/{folder.name}"}))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        remove_groups(folder.name)


def remove_groups(name: str) -> None:
    """Every control group of this name; its last processes may need a moment to be gone."""
    deadline = time.monotonic() + 10
    while left := [*_CGROUPS.glob(name), *_CGROUPS.glob(f"*/{name}")]:
        for found in left:
            for group in [*found.glob("*/"), found]:
                with contextlib.suppress(OSError):
                    group.rmdir()
        assert time.monotonic() < deadline, f"{left} stay"


@contextmanager
def alone(folder: Path, *, scene: tuple[str, ...] = (), **values: object) -> Iterator[Alone]:
    """The program running on `folder`; `scene` are shell commands run in the namespaces before it."""
    if reason := why_unavailable():
        pytest.skip(f"no dockerd can be brought up here: {reason}")
    given = json.dumps({"folder": str(folder), "address": ADDRESS, **values})
    script = " && ".join([*scene, 'exec "$@"'])
    argv = [*UNSHARE, "/bin/sh", "-c", script, "sh", sys.executable, "-m", PROGRAM, given]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as popen:
        limit = threading.Timer(LIMIT_SECONDS, popen.kill)
        limit.start()
        try:
            yield Alone(popen, folder)
        finally:
            limit.cancel()
            popen.kill()  # with --kill-child the whole PID namespace ends with it


def load_image(target: Alone) -> str:
    """An image with one program, `sleep`; its id."""
    archive = target.folder / "image.tar"
    archive.write_bytes(sleep_archive())
    return target.shell(f"docker import {archive}").strip()


def sleep_archive() -> bytes:
    """`sleep` and the libraries that it needs, as a tar."""
    program = shutil.which("sleep")
    assert program is not None
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        tar.add(program, "bin/sleep")
        for library in libraries:
            tar.add(library, library.lstrip("/"))
    return packed.getvalue()


def run_sleeper(target: Alone, image: str) -> str:
    """A container that sleeps and ends by KILL, as PID 1 without a handler ignores TERM; its id."""
    name = f"sleeper-{uuid.uuid4().hex[:6]}"
    return target.shell(f"docker run -d --name {name} --stop-signal KILL {image} /bin/sleep 1000").strip()
