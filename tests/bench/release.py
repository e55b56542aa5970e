"""A release of 100 MB in 8,000 files: built, verified, unpacked, applied, rolled back; beside `tar` and a restart."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supervisor.releases.admission import check_archive
from supervisor.releases.manifest import parse_manifest
from supervisor.releases.tree import file_digest
from supervisor.releases.trust import read_trust_store
from tests.bench import procfs
from tests.bench.figures import Row, Section
from tests.bench.rig import (
    IMPORTS,
    PROGRAMS,
    PYTHON,
    SUPERVISOR,
    Plan,
    Supervisor,
    environment,
    folder,
    free_port,
    missing,
)

FILES, FILE_BYTES = 8000, 12_500
STAGE_TIMES_TAR, GATE_SECONDS, VERIFY_MS_A_MB = 1.5, 2.0, 1.0
BACK_WARM_SECONDS, BACK_COLD_SECONDS, MEMORY_MIB = 0.3, 0.5, 32.0
BAKE_SECONDS = "1"
RESET_PEAK = "5"  # proc(5), clear_refs: VmHWM begins anew
METHOD = (
    "A folder of 8,000 files, 100 MB of text that packs to about a third, built with the defaults (zstd, level 10) "
    "and signed; the app starts in some 0.05 s. `verify` is the signature and the archive's digest, read from a file; "
    "over the control socket it is made while receiving. `unpack` is the child, which was started while the archive "
    "was received; beside it `zstd -d | tar -x` of the same archive onto the same disk, in turns, who is first too. "
    "`stage` is unpack, check (all of it read again, synced meanwhile), links, records and sync, beside tar and its "
    "`sync -f`. Nothing is deleted before the end: ext4 without a journal makes new files many times slower for "
    "minutes after a large tree was removed. `receive to gate` is all before the new code starts. Memory is the "
    "kernel's mark of PID 1's most while a release is applied, above what it had before. The other way to bring new "
    "code in: copying the archive, `tar -x` over the old files, and `supervisor restart app`."
)
_STAGE = ("unpack", "check", "fill", "seal")
_BEFORE_GATE = ("receive", "verify", "space", *_STAGE, "snapshot", "migrations")


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
    megabytes = archive.stat().st_size / 1e6
    note(found, "verify", verified(home, archive) * 1000 / megabytes)
    if number % 2:
        untarred(home, archive, number, found)
    idle, outcome, most = applied(home, supervisor.pid, archive)
    if not number % 2:
        untarred(home, archive, number, found)
    phases = outcome["phases"]
    note(found, "memory", most - idle)
    note(found, "unpack", phases["unpack"])
    note(found, "times tar", phases["unpack"] / found["tar"][-1])
    note(found, "sync", phases["seal"])
    note(found, "stage", sum(phases[name] for name in _STAGE))
    note(found, "stage, times tar", found["stage"][-1] / (found["tar"][-1] + found["tar, sync"][-1]))
    note(found, "receive", (phases["receive"] + phases["verify"]) * 1000 / megabytes)
    note(found, "to gate", sum(phases[name] for name in _BEFORE_GATE))
    command(home, "release", "confirm")
    back = command(home, "release", "rollback", "--json")
    # The bake is part of the order; what counts is when the old release answers.
    note(found, "back", back["elapsed_seconds"] - float(BAKE_SECONDS))
    archive.unlink()


def verified(home: Path, archive: Path) -> float:
    """What proves an archive before anything reads in it; seconds."""
    manifest = archive.with_name("manifest.json")
    signature = archive.with_name("manifest.json.minisig").read_bytes()
    began = time.monotonic()
    read_trust_store(home / "keys", 1).verify(manifest.read_bytes(), [signature])
    check_archive(
        parse_manifest(manifest.read_bytes()).archive, size=archive.stat().st_size, sha256=file_digest(archive)
    )
    return time.monotonic() - began


def untarred(home: Path, archive: Path, number: int, found: dict[str, list[float]]) -> None:
    """What others unpack with, and then their sync."""
    place = home / f"untarred-{number}"
    place.mkdir()
    subprocess.run(["sync", "-f", str(place)], check=True)
    began = time.monotonic()
    with subprocess.Popen(["zstd", "-d", "-c", str(archive)], stdout=subprocess.PIPE) as unpacking:
        subprocess.run(["tar", "-x", "-C", str(place)], stdin=unpacking.stdout, check=True)
    note(found, "tar", time.monotonic() - began)
    began = time.monotonic()
    subprocess.run(["sync", "-f", str(place)], check=True)
    note(found, "tar, sync", time.monotonic() - began)


def applied(home: Path, pid: int, archive: Path) -> tuple[float, Any, float]:
    """PID 1's memory before, in MiB, what it answered, and the most it had meanwhile."""
    idle = procfs.memory_mib(pid)[0]
    Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
    outcome = command(home, "release", "apply", str(archive), "--json")
    peak = procfs.status(pid)["VmHWM"]
    return idle, outcome, int(peak.split()[0]) / 1024


def by_hand(home: Path, supervisor: Supervisor, source: Path, found: dict[str, list[float]]) -> None:
    """What is done without releases."""
    archive = home / "by-hand.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", str(archive), "-C", str(source), "."], check=True)
    began = time.monotonic()
    shutil.copy(archive, home / "copied.tar.zst")
    subprocess.run(["tar", "--zstd", "-xf", str(home / "copied.tar.zst"), "-C", str(home / "app")], check=True)
    command(home, "restart", "app")
    note(found, "by hand", time.monotonic() - began)


def command(home: Path, *words: str) -> Any:
    """One of ours, to its end; its JSON where it gives any."""
    env = environment({**IMPORTS, "SUPERVISOR_SOCKET": str(home / "run" / "control.sock")})
    done = subprocess.run([*SUPERVISOR, *words], env=env, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"supervisor {' '.join(words)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if "--json" in words else None


def note(found: dict[str, list[float]], what: str, value: float) -> None:
    found.setdefault(what, []).append(value)


def rows(found: dict[str, list[float]]) -> list[Row]:
    return [
        Row(what="build", values=found["build"], unit="s"),
        Row(what="verify, a MB of archive", values=found["verify"], unit="ms", target=VERIFY_MS_A_MB),
        Row(what="receive over the control socket, a MB of archive", values=found["receive"], unit="ms"),
        Row(what="zstd -d | tar -x", values=found["tar"], unit="s"),
        Row(what="its sync", values=found["tar, sync"], unit="s"),
        Row(what="unpack", values=found["unpack"], unit="s"),
        Row(what="unpack / tar", values=found["times tar"], target=STAGE_TIMES_TAR),
        Row(what="sync and rename", values=found["sync"], unit="s"),
        Row(what="stage: unpack, check, links, sync", values=found["stage"], unit="s"),
        Row(what="stage / (tar and its sync)", values=found["stage, times tar"], target=STAGE_TIMES_TAR),
        Row(what="receive to gate", values=found["to gate"], unit="s", target=GATE_SECONDS),
        Row(what="roll back, cold", values=found["back"], unit="s", target=BACK_COLD_SECONDS + 0.5),
        Row(what="PID 1, memory above idle", values=found["memory"], unit="MiB", target=MEMORY_MIB),
        Row(what="by hand: copy, tar -x, restart (no gate, no way back)", values=found["by hand"], unit="s"),
    ]
