"""File systems of a test's own, mounted where releases are kept, and gone with the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.releases.rig import ReleasedApp

MIB = 1024 * 1024


@contextmanager
def mounted(place: Path, kind: str, options: str, source: str = "none") -> Iterator[Path]:
    """Mount a file system at `place` for the block; the test is skipped where that may not be done."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", kind, "-o", options, source, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def volume(app: ReleasedApp, options: str) -> Iterator[Path]:
    """The folder of all releases is a file system in memory."""
    with mounted(app.supervisor.state / "releases", "tmpfs", options) as place:
        try:
            yield place
        finally:
            app.supervisor.end_everything()


def remount(place: Path, options: str) -> None:
    """The same file system with other options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def fill(place: Path, *, but_bytes: int = 0) -> Path:
    """Take what is free on the file system of `place`, but so much; gives the file to remove."""
    filler = place / "filler"
    with filler.open("ab") as file:
        for _ in range(1000):  # the supervisor takes some at the same time
            free = os.statvfs(place)
            missing = free.f_bavail * free.f_frsize - but_bytes
            if missing <= 0:
                break
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), missing)
    return filler


def fill_inodes(place: Path) -> Path:
    """Take all inodes that are free; gives the folder to remove."""
    folder = place / "fillers"
    with suppress(OSError):
        folder.mkdir()
        for number in range(os.statvfs(place).f_favail + 1):
            (folder / str(number)).touch()
    return folder
