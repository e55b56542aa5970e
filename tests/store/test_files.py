"""Atomic files, generated files, folders and the state lock."""

from __future__ import annotations

import os
import random
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.store import files
from supervisor.store.files import (
    StateLock,
    Written,
    drop_half_written,
    is_untouched,
    make_folder,
    write_atomic,
    write_generated,
)

KILLS = 40
KILLS_WITH_SOAK = 1000
_LIMIT_SECONDS = 20

# Writes one letter over and over, so that a torn text is seen by its length or by two letters in it.
WRITER = """
import sys
from pathlib import Path
from supervisor.store.files import write_atomic
path = Path(sys.argv[1])
print("up", flush=True)
for number in range(10 ** 9):
    letter = "abcdefgh"[number % 8]
    write_atomic(path, letter * 300_000, durable=number % 2 == 0)
    if number == 0:
        print("first written", flush=True)
"""
HOLDER = """
import sys
from pathlib import Path
from supervisor.store.files import StateLock
StateLock(Path(sys.argv[1])).take()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def child(program: str, *arguments: object, close_fds: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, killed at the end. Its output is not buffered here, so that `select` sees all of it."""
    words = [sys.executable, "-c", program, *(str(argument) for argument in arguments)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, close_fds=close_fds)
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[bytes]) -> str:
    """Its next line of output, within a limit."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _LIMIT_SECONDS)
    assert ready, "it said nothing in time"
    return process.stdout.readline().decode().strip()


def is_whole(text: str) -> bool:
    """Whether a text is one that the writer wrote, from its first sign to its last."""
    return len(text) == 300_000 and len(set(text)) == 1


# Atomic writes.


def test_a_write_killed_at_any_moment_leaves_the_old_text_or_the_new(tmp_path: Path, soak: bool) -> None:
    path = tmp_path / "record"
    write_atomic(path, "z" * 300_000)
    chance = random.Random(7)
    moments: set[str] = set()
    kills = 0
    while kills < (KILLS_WITH_SOAK if soak else KILLS):
        with child(WRITER, path) as process:
            assert line_of(process) == "up"
            if chance.random() < 0.8:
                assert line_of(process) == "first written"
            # The moment varies by itself; reading the file meanwhile spreads it over the whole of a write.
            for _ in range(chance.randrange(30)):
                assert is_whole(path.read_text())
            process.send_signal(signal.SIGKILL)
            process.wait(_LIMIT_SECONDS)
        kills += 1
        text = path.read_text()
        assert is_whole(text)
        moments.add(text[0])
    assert len(moments) > 2, "the kills all came at the same moment, so they showed nothing"


def test_the_writers_check_would_see_a_torn_text(tmp_path: Path) -> None:
    """The negative control of the test above: a plain write, looked at half-way, is torn."""
    path = tmp_path / "record"
    path.write_text("a" * 300_000)
    with path.open("r+") as file:
        file.write("b" * 100_000)
    assert not is_whole(path.read_text())


def test_a_failed_write_leaves_the_old_text_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_a_written_file_is_private_unless_asked_otherwise(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "private", "x")
        write_atomic(tmp_path / "public", "x", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o644


# Generated files.


def test_a_generated_file_is_written_and_left_alone_when_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "traefik.yml"
    assert write_generated(path, "a: 1\n").result is Written.WRITTEN
    inode = path.stat().st_ino
    assert write_generated(path, "a: 1\n").result is Written.UNCHANGED
    assert path.stat().st_ino == inode
    assert path.read_text().endswith("\na: 1\n")
    assert is_untouched(path.read_text())


def test_an_untouched_generated_file_follows_its_inputs(tmp_path: Path) -> None:
    path = tmp_path / "traefik.yml"
    write_generated(path, "a: 1\n")
    assert write_generated(path, "a: 2\n").result is Written.WRITTEN
    assert "a: 2" in path.read_text()


def test_an_edited_file_is_kept_and_the_difference_reported(tmp_path: Path) -> None:
    path = tmp_path / "traefik.yml"
    write_generated(path, "a: 1\nb: 1\n")
    edited = path.read_text().replace("b: 1", "b: mine")
    path.write_text(edited)
    kept = write_generated(path, "a: 1\nb: 2\n")
    assert kept.result is Written.KEPT
    assert path.read_text() == edited
    assert "-b: mine" in kept.difference
    assert "+b: 2" in kept.difference


@pytest.mark.parametrize("content", [b"a: users own\n", b"", b"\xff\xfe binary"])
def test_a_file_that_was_never_generated_is_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "traefik.yml"
    path.write_bytes(content)
    assert write_generated(path, "a: 1\n").result is Written.KEPT
    assert path.read_bytes() == content


def test_an_edited_file_that_is_removed_is_generated_again(tmp_path: Path) -> None:
    path = tmp_path / "traefik.yml"
    path.write_text("mine\n")
    path.unlink()
    assert write_generated(path, "a: 1\n").result is Written.WRITTEN


def test_an_empty_folder_in_the_files_place_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "traefik.yml"
    path.mkdir()
    assert write_generated(path, "a: 1\n").result is Written.WRITTEN
    assert path.is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["traefik.yml"]


def test_a_full_folder_in_the_files_place_is_moved_aside_each_time(tmp_path: Path) -> None:
    path = tmp_path / "traefik.yml"
    for number in (1, 2):
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "kept").write_text(str(number))
        assert write_generated(path, "a: 1\n").result is Written.WRITTEN
    asides = sorted(entry for entry in tmp_path.iterdir() if entry.is_dir())
    assert [(folder / "kept").read_text() for folder in asides] == ["1", "2"]


def test_a_folder_that_cannot_be_moved_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traefik.yml"
    path.mkdir()
    (path / "kept").touch()

    def busy(_: Path, __: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(ConfigurationError, match=r"traefik\.yml': a folder is in its place .*busy.* is it a mount"):
        write_generated(path, "a: 1\n")


# Folders.


def test_a_folder_gets_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_folder(tmp_path / "a" / "b", mode=0o711)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o711


def test_a_file_in_a_folders_place_is_an_error_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigurationError, match="a file is in its place; move it away"):
        make_folder(tmp_path / "state")
    with pytest.raises(ConfigurationError, match=r"a part of its path is a file|a file is in its place"):
        make_folder(tmp_path / "state" / "below")


def test_a_folder_we_may_not_make_names_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(PrivilegeError, match=r"Permission denied; make it writable .* SUPERVISOR_STATE_DIR"):
        make_folder(tmp_path / "state")


# The lock.


def test_a_held_lock_names_its_holder_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with child(HOLDER, path) as holder:
        assert line_of(holder) == "held"
        with pytest.raises(ConfigurationError) as caught:
            StateLock(path).take()
    assert f"another supervisor (pid {holder.pid} on {os.uname().nodename}) is using it" in str(caught.value)
    assert "SUPERVISOR_STATE_DIR" in str(caught.value)


def test_a_lock_is_free_once_its_holder_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with child(HOLDER, path) as holder:
        assert line_of(holder) == "held"
        holder.kill()
        holder.wait(_LIMIT_SECONDS)
        lock = StateLock(path)
        lock.take()
        lock.drop()


def test_a_lock_keeps_a_second_one_out_until_it_is_dropped(tmp_path: Path) -> None:
    first, second = StateLock(tmp_path / "lock"), StateLock(tmp_path / "lock")
    first.take()
    with pytest.raises(ConfigurationError):
        second.take()
    first.drop()
    second.take()
    second.drop()


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "lock")
    lock.take()
    with child("import sys; print('up', flush=True); sys.stdin.read()", close_fds=False) as process:
        assert line_of(process) == "up"
        lock.drop()
        again = StateLock(tmp_path / "lock")
        again.take()
        again.drop()


def test_the_hash_of_a_generated_text_is_of_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_generated(path, "a\n")
    text = path.read_text()
    assert not is_untouched(text + "b\n")
    assert not is_untouched(text.replace("a\n", ""))
    assert not is_untouched("")
    assert files.is_untouched(text)


def test_half_written_files_are_dropped_and_others_kept(tmp_path: Path) -> None:
    (tmp_path / ".install.json.abc.tmp").write_text("half")
    (tmp_path / "install.json").write_text("whole")
    (tmp_path / ".hidden").write_text("not ours")
    drop_half_written(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "install.json"]
