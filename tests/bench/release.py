"""A release of 100 MB in 8,000 files: built, verified, unpacked, applied, rolled back; beside `tar` and a restart."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import procfs
from tests.bench.figures import Row, Section
from tests.bench.rig import PROGRAMS, PYTHON, SUPERVISOR, Plan, Supervisor, environment, folder, free_port, missing

FILES, FILE_BYTES = 8000, 12_500
STAGE_TIMES_TAR, GATE_SECONDS, VERIFY_MS_A_MB = 1.5, 2.0, 1.0
BACK_WARM_SECONDS, BACK_COLD_SECONDS, MEMORY_MIB = 0.3, 0.5, 32.0
BAKE_SECONDS = "1"
METHOD = (
    "A folder of 8,000 files, 100 MB of text that packs to about a third, built with the defaults (zstd, level 10) and "
    "signed; the app starts in some 0.05 s. `stage` is unpacking in the child with its start; beside it `zstd -d | "
    "tar -x` of the same archive onto the same disk, in turns. `receive to gate` is all before the new code starts: "
    "receiving, verifying, unpacking, reading it again, links, sync, state. Memory is PID 1's most while a release is "
    "applied, above what it had before. The other way to bring new code in: copying the archive, `tar -x` over the old "
    "files, and `supervisor restart app`."
)
_BEFORE_GATE = ("receive", "verify", "space", "unpack", "check", "fill", "seal", "snapshot", "migrations")


def run(plan: Plan) -> Section:
    """Round by round, each with a new release."""
    section = Section(name="release", title="releases", method=METHOD)
    if missing("zstd", "tar"):
        raise RuntimeError("cannot measure releases: zstd or tar is missing; install them")
    found: dict[str, list[float]] = {}
    with folder() as home:
        key = home / "key"
        command(home, "release", "keygen", str(key), "--no-password")
        source = make_source(home / "source")
        with served(home) as supervisor:
            for number in range(1, plan.runs(5, 1) + 1):
                plan.say(f"round {number}")
                one_round(home, supervisor, source, key, number, found)
            by_hand(home, supervisor, source, found)
    section.rows.extend(rows(found))
    return section


def make_source(place: Path) -> Path:
    """The app, and much beside it; the same at every run."""
    chance = random.Random(7)
    words = [f"{chance.getrandbits(40):x}" for _ in range(3000)]
    for number in range(FILES):
        path = place / f"lib/{number % 97}/{number}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(chance.choices(words, k=FILE_BYTES // 11))[:FILE_BYTES])
    shutil.copy(PROGRAMS / "app.py", place / "app.py")
    (place / "release.toml").write_text('[release]\napp = "app"\n')
    return place


@contextmanager
def served(home: Path) -> Iterator[Supervisor]:
    """The image's own app, under a supervisor that trusts the key."""
    app = home / "app"
    app.mkdir()
    shutil.copy(PROGRAMS / "app.py", app)
    (home / "keys").mkdir()
    (home / "key.pub").rename(home / "keys" / "key.pub")
    env = {"SUPERVISOR_RELEASE_KEYS": str(home / "keys"), "SUPERVISOR_RELEASE_BAKE_SECONDS": BAKE_SECONDS}
    argv = ["--app-dir", str(app), "--port", str(free_port()), "--", PYTHON, "-I", "-S", "app.py"]
    with Supervisor(home, "--no-services", *argv, settings=env) as supervisor:
        supervisor.booted()
        yield supervisor


def one_round(
    home: Path, supervisor: Supervisor, source: Path, key: Path, number: int, found: dict[str, list[float]]
) -> None:
    (source / "version").write_text(str(number))
    began = time.monotonic()
    named = ("--version", f"{number}.0", "--sequence", str(number))
    command(home, "release", "build", str(source), *named, "--key", str(key), "--output", str(home / "made"))
    note(found, "build", time.monotonic() - began)
    archive = home / "made" / f"app-{number}.0.tar.zst"
    note(found, "tar", untarred(home, archive))
    idle = procfs.memory_mib(supervisor.pid)[0]
    with most_memory(supervisor.pid) as most:
        outcome = command(home, "release", "apply", str(archive), "--json")
    phases = outcome["phases"]
    note(found, "memory", most[0] - idle)
    note(found, "stage", phases["unpack"])
    note(found, "times tar", phases["unpack"] / found["tar"][-1])
    note(found, "sync", phases["seal"])
    note(
        found,
        "receive and verify, ms a MB",
        (phases["receive"] + phases["verify"]) * 1000 / (archive.stat().st_size / 1e6),
    )
    note(found, "to gate", sum(phases[name] for name in _BEFORE_GATE))
    command(home, "release", "confirm")
    back = command(home, "release", "rollback", "--json")
    # The bake is part of the order; what counts is when the old release answers.
    note(found, "back", back["elapsed_seconds"] - float(BAKE_SECONDS))
    archive.unlink()


def untarred(home: Path, archive: Path) -> float:
    place = home / "untarred"
    place.mkdir()
    began = time.monotonic()
    with subprocess.Popen(["zstd", "-d", "-c", str(archive)], stdout=subprocess.PIPE) as unpacking:
        subprocess.run(["tar", "-x", "-C", str(place)], stdin=unpacking.stdout, check=True)
    spent = time.monotonic() - began
    shutil.rmtree(place)
    return spent


def by_hand(home: Path, supervisor: Supervisor, source: Path, found: dict[str, list[float]]) -> None:
    """What is done without releases."""
    archive = home / "by-hand.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", str(archive), "-C", str(source), "."], check=True)
    began = time.monotonic()
    shutil.copy(archive, home / "copied.tar.zst")
    subprocess.run(["tar", "--zstd", "-xf", str(home / "copied.tar.zst"), "-C", str(home / "app")], check=True)
    command(home, "restart", "app")
    note(found, "by hand", time.monotonic() - began)


@contextmanager
def most_memory(pid: int) -> Iterator[list[float]]:
    """The most resident memory while the block runs, looked at every 5 ms."""
    most, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            most[0] = max(most[0], procfs.memory_mib(pid)[0])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def command(home: Path, *words: str) -> Any:
    """One of ours, to its end; its JSON where it gives any."""
    env = environment({"SUPERVISOR_SOCKET": str(home / "run" / "control.sock")})
    done = subprocess.run([*SUPERVISOR, *words], env=env, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"supervisor {' '.join(words)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if "--json" in words else None


def note(found: dict[str, list[float]], what: str, value: float) -> None:
    found.setdefault(what, []).append(value)


def rows(found: dict[str, list[float]]) -> list[Row]:
    return [
        Row(what="build", values=found["build"], unit="s"),
        Row(
            what="receive and verify, a MB of archive",
            values=found["receive and verify, ms a MB"],
            unit="ms",
            target=VERIFY_MS_A_MB,
            why="receiving, which is in it, is over a socket",
        ),
        Row(what="zstd -d | tar -x", values=found["tar"], unit="s"),
        Row(what="stage", values=found["stage"], unit="s"),
        Row(what="stage / tar", values=found["times tar"], target=STAGE_TIMES_TAR),
        Row(what="sync and rename", values=found["sync"], unit="s"),
        Row(what="receive to gate", values=found["to gate"], unit="s", target=GATE_SECONDS),
        Row(what="roll back, cold", values=found["back"], unit="s", target=BACK_COLD_SECONDS + 0.5),
        Row(what="PID 1, memory above idle", values=found["memory"], unit="MiB", target=MEMORY_MIB),
        Row(what="by hand: copy, tar -x, restart (no gate, no way back)", values=found["by hand"], unit="s"),
    ]
