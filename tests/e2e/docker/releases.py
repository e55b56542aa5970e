"""Releases for containers: built by the command, brought in from outside, and what the disk in there says of them."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.docker.echo import EchoStack
from tests.e2e.docker.stack import fetch
from tests.e2e.harness import REPO
from tests.e2e.reload.rig import PROGRAM, failures
from tests.load.report import Report

_LIMIT = 120
_numbers = itertools.count(101)
# Runs in the container; nothing is written before the first release is tried.
_LOOK = """
import json, os, pathlib
place = pathlib.Path("/var/lib/supervisor/releases/app")
state, current = place / "state.json", place / "current"
print(json.dumps({
    "state": json.loads(state.read_text()) if state.exists() else {"active": "baked", "trial": False, "previous": ""},
    "links": {name: os.path.basename(os.readlink(place / name)) if os.path.islink(place / name) else ""
              for name in ("current", "previous")},
    "version": json.loads((current / "behaviour.json").read_text())["version"] if current.is_symlink() else None,
    "left": [str(path) for name in ("staging", "incoming") for path in (place / name).iterdir()]
            + [str(path) for path in place.glob("*.tmp")],
    "journal": (place / "journal.json").exists(),
}))
"""


@dataclass(frozen=True)
class Asked:
    """What a load asked for: on kept connections, a second of them, in all, and what of that failed."""

    kept: int
    kept_rate: float
    all: int
    failed: dict[str, int]
    first_failed_at: float | None
    last_failed_at: float | None

    @staticmethod
    def of(reports: Sequence[Report], seconds: float) -> Asked:
        """Of `Loads.stop()`, that ran for so long."""
        sent = [report.after.sent for report in reports]
        kept = sum(sent[: len(sent) // 2])
        first = [at for report in reports if (at := report.after.first_failed_at) is not None]
        last = [at for report in reports if (at := report.after.last_failed_at) is not None]
        failed = failures(list(reports), may_go_back=True)
        return Asked(kept, kept / seconds, sum(sent), failed, min(first, default=None), max(last, default=None))

    def __str__(self) -> str:
        return f"{self.kept:7} kept, {self.kept_rate:4.0f}/s {self.all:7} in all {sum(self.failed.values()):3} failed"


def release(folder: Path, *options: str, files: Mapping[str, str] | None = None, **behaviour: Any) -> Path:
    """New code of the echoing app as a release, and these files, built by the command; gives its archive."""
    number = next(_numbers)
    source = folder / f"source-{number}"
    source.mkdir()
    shutil.copy(PROGRAM, source)
    (source / "behaviour.json").write_text(json.dumps({"version": number, **behaviour}))
    for name, text in (files or {}).items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    named = ["--app", "app", "--version", f"{number}.0", "--sequence", str(number)]
    command = [sys.executable, "-m", "supervisor", "release", "build", str(source), *named, *options]
    subprocess.run(command, check=True, cwd=REPO, capture_output=True, timeout=_LIMIT)
    return source / "dist-tarball" / f"app-{number}.0.tar.zst"


def version_of(archive: Path) -> int:
    """What the app answers when it runs from it."""
    return int(archive.name.split("-")[1].split(".")[0])


def deploy(stack: EchoStack, archive: Path) -> int:
    """By the script, from outside; gives its exit code."""
    command = [str(REPO / "scripts" / "deploy-release"), stack.container, str(archive)]
    ended = subprocess.run(command, env=stack.share.engine.environ, capture_output=True, text=True, timeout=_LIMIT)
    print(ended.stdout, ended.stderr)  # shown with a test that fails
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode


@contextmanager
def applying(stack: EchoStack, archive: Path) -> Iterator[subprocess.Popen[str]]:
    """`supervisor release apply` in the container, from copies of the files; ended with the block."""
    folder = f"/tmp/{archive.name}.d"
    stack.share.engine.run("cp", archive.parent, f"{stack.container}:{folder}")
    command = ["docker", "exec", stack.container, "supervisor", "release", "apply", f"{folder}/{archive.name}"]
    with subprocess.Popen(
        command, env=stack.share.engine.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def apply(stack: EchoStack, archive: Path) -> int:
    """The same by hand; gives its exit code."""
    with applying(stack, archive) as process:
        return process.wait(_LIMIT)


def serves(stack: EchoStack) -> int:
    """The version that answers."""
    return int(fetch(f"{stack.app_url}/echo")[1])


def history(stack: EchoStack) -> list[tuple[str, str]]:
    """What was done and how it ended, each line proved by the next."""
    found = json.loads(stack.inside("supervisor", "release", "history", "--verify", "--json"))
    assert found["verified"] == len(found["history"])
    return [(line["action"], line["outcome"]) for line in found["history"]]


def agreed(stack: EchoStack) -> dict[str, Any]:
    """The state, which the links, the journal and what serves agree with; nothing is left of what was cut short."""
    found = json.loads(stack.inside("python3", "-c", _LOOK))
    state: dict[str, Any] = found["state"]
    wanted = {name: "" if state[word] == "baked" else state[word] for name, word in _LINKS.items()}
    assert found["links"] == wanted, found
    assert found["version"] in (None, serves(stack)), found
    assert (found["version"] is None) == (state["active"] == "baked"), found
    assert found["left"] == [], found
    assert found["journal"] == state["trial"], found
    return state


_LINKS = {"current": "active", "previous": "previous"}
