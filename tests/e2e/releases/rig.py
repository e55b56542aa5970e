"""What the tests of releases add to those of reloads: releases built and applied by the real commands."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.e2e.harness import REPO, request, wait_until
from tests.e2e.reload.rig import PROGRAM, App


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    error: str

    def json(self) -> Any:
        return json.loads(self.out)


def serves(app: App) -> str:
    """The version that answers."""
    status, text = request(app.supervisor.port, "/echo")
    assert status == 200
    return text


def unpacker(app: App) -> int | None:
    """The process that unpacks, once it is there; it may still wait for the archive to be received."""
    for word in Path(f"/proc/{app.supervisor.own_pid}/task/{app.supervisor.own_pid}/children").read_text().split():
        with suppress(OSError):
            if b"supervisor.releases.unpack.child" in Path(f"/proc/{word}/cmdline").read_bytes():
                return int(word)
    return None


def stopped_unpacker(app: App) -> int:
    """The same, stopped where it has just been told what to unpack: all before that is done."""
    child: int = wait_until("the unpacking process is there", lambda: unpacker(app))
    os.kill(child, signal.SIGSTOP)
    wait_until("it is told what to unpack", lambda: _is_told(child))
    return child


def _is_told(child: int) -> bool:
    """The job comes by its standard input, which is closed behind it."""
    descriptor = os.open(f"/proc/{child}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(descriptor)


class ReleasedApp(App):
    """`app.boot(...)`, then `app.apply(app.built(...))`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.supervisor.environ |= {
            "SUPERVISOR_RELEASE_UNSIGNED": "allow",
            "SUPERVISOR_RELEASE_BAKE_SECONDS": "0.3",
            "SUPERVISOR_APP_START_SECONDS": "3",
            "SUPERVISOR_RESTART_BASE_SECONDS": "0.05",
        }

    @property
    def place(self) -> Path:
        """Where the releases lie."""
        return self.supervisor.state / "releases" / "app"

    def state(self) -> dict[str, Any]:
        """What the disk says; nothing is written before the first release is tried."""
        place = self.place / "state.json"
        found: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {"active": "baked", "trial": False}
        return found

    def built(self, *options: str, files: Mapping[str, str] | None = None, **behaviour: Any) -> Path:
        """A release with new code, and with these files; gives its archive, beside which its manifest lies."""
        self.version += 1
        source = self.folder.parent / f"source-{self.version}"
        source.mkdir(exist_ok=True)
        shutil.copy(PROGRAM, source)
        for name, text in (files or {}).items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
        (source / "behaviour.json").write_text(json.dumps({"version": self.version, "boot_seconds": 0.2, **behaviour}))
        named = ("--app", "app", "--version", f"{self.version}.0", "--sequence", str(self.version))
        ended = self.run("release", "build", str(source), *named, *options)
        assert ended.code == 0, ended.error
        return source / "dist-tarball" / f"app-{self.version}.0.tar.zst"

    def run(self, *words: str) -> Ended:
        """One command of ours, as a user would give it."""
        with self.running(*words) as process:
            out, error = process.communicate(timeout=90)
        return Ended(process.returncode, out, error)

    @contextmanager
    def running(self, *words: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
        """The same, while the block runs; it is killed at its end where it still does."""
        environ = {**os.environ, **self.supervisor.env()}
        command = [sys.executable, "-m", "supervisor", *words]
        process = subprocess.Popen(
            command, env=environ, cwd=REPO, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def apply(self, archive: Path, *options: str) -> dict[str, Any]:
        """Bring it into service; gives the outcome."""
        ended = self.run("release", "apply", str(archive), "--json", *options)
        assert ended.out, ended.error
        outcome: dict[str, Any] = ended.json()
        assert ended.code == (0 if outcome["result"] == "ok" else 1), ended
        return outcome

    def good(self, *options: str, **behaviour: Any) -> str:
        """A release that was applied and confirmed; gives its id."""
        outcome = self.apply(self.built(*options, **behaviour))
        assert outcome["result"] == "ok", outcome
        assert self.run("release", "confirm").code == 0
        return str(outcome["detail"]["release"])

    def history(self) -> list[tuple[str, str]]:
        """What was done and how it ended."""
        ended = self.run("release", "history", "--verify", "--json")
        assert ended.code == 0, ended.error
        return [(line["action"], line["outcome"]) for line in ended.json()["history"]]
