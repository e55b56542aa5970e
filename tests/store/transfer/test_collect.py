"""What is read of a state folder is of one moment, whatever is written meanwhile; links lead nowhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError, RejectedError
from supervisor.store.files import write_atomic
from supervisor.store.transfer import collect as reading
from supervisor.store.transfer.collect import collect
from tests.store.transfer.rig import state_files, write_state

MAX = 1024 * 1024
Act = Callable[[Path], None]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_state(tmp_path / "state", state_files("one"))
    return tmp_path / "state"


def test_all_that_is_carried_is_read_and_nothing_else(state: Path) -> None:
    for path in ("lock", "spawned/1.json", "secrets/.redis.abc.tmp", "postgres/data/PG_VERSION", "traefik/a.yml"):
        write_state(state, {path: b"not ours"})
    write_state(state, {"releases/app/journal.json": b"{}", "releases/app/releases/a-1/server.js": b""})
    (state / "current").symlink_to("nowhere")
    assert collect(state, max_bytes=MAX) == state_files("one")


def test_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert collect(tmp_path, max_bytes=MAX) == {}


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Act, state: Path, *, before: str, times: int = 1) -> list[str]:
    """`act` is done just before the file of that name is read; gives what was read."""
    real, opened = os.open, list[str]()

    def open_(path: str | Path, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_NOFOLLOW and str(path).startswith(str(state)):
            opened.append(str(path))
            if str(path).endswith(before) and opened.count(str(path)) <= times:
                act(state)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_)
    return opened


def promote(state: Path) -> None:
    """As a rotation ends."""
    (state / "secrets/postgres-app.next").replace(state / "secrets/postgres-app")


def begin(state: Path) -> None:
    """As another one is recorded."""
    promote(state)
    write_atomic(state / "secrets/postgres-app.next", "third-secret\n")


def drop(state: Path) -> None:
    (state / "secrets/postgres-app.next").unlink()


@pytest.mark.parametrize("before", ["postgres-app", "postgres-app.next", "redis", "install.json"])
@pytest.mark.parametrize(
    ("act", "current", "pending"),
    [
        (promote, b"new-secret-one\n", None),
        (begin, b"new-secret-one\n", b"third-secret\n"),
        (drop, b"old-secret-one\n", None),
    ],
)
def test_secret_that_is_changed_meanwhile_comes_out_usable(
    state: Path, monkeypatch: pytest.MonkeyPatch, before: str, act: Act, current: bytes, pending: bytes | None
) -> None:
    opened = meanwhile(monkeypatch, act, state, before=before)
    files = collect(state, max_bytes=MAX)
    assert files["secrets/postgres-app"] == current
    assert files.get("secrets/postgres-app.next") == pending
    assert opened.count(str(state / "install.json")) >= 1


def test_history_that_grows_meanwhile_is_read_whole(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(state: Path) -> None:
        with (state / "releases/app/history.jsonl").open("ab") as file:
            file.write(b"more\n")

    meanwhile(monkeypatch, append, state, before="install.json")
    assert collect(state, max_bytes=MAX)["releases/app/history.jsonl"].endswith(b"more\n")


def test_folder_that_never_rests_is_given_up(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(state: Path) -> None:
        write_atomic(state / "secrets/redis", "again\n", durable=False)

    meanwhile(monkeypatch, write, state, before="install.json", times=10**6)
    with pytest.raises(RejectedError, match="its files change all the time; try again"):
        collect(state, max_bytes=MAX)


@pytest.mark.parametrize("path", ["secrets/redis", "install.json", "secrets", "releases", "secrets/apps/api"])
def test_link_is_refused_and_not_followed(state: Path, tmp_path: Path, path: str) -> None:
    (state / path).rename(tmp_path / "elsewhere")
    (state / path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=f"cannot carry '{path}': it is a link, which is not followed"):
        collect(state, max_bytes=MAX)


def test_pipe_is_refused_and_not_waited_for(state: Path) -> None:
    os.mkfifo(state / "secrets/pipe")
    assert stat.S_ISFIFO((state / "secrets/pipe").stat().st_mode)
    with pytest.raises(ConfigurationError, match="cannot carry 'secrets/pipe': it is no plain file"):
        collect(state, max_bytes=MAX)


def test_more_than_fits_is_refused_before_it_is_read(state: Path) -> None:
    (state / "releases/app/history.jsonl").touch()
    os.truncate(state / "releases/app/history.jsonl", 2 * MAX)
    with pytest.raises(ConfigurationError, match=r"cannot take all of .*: 2,\d{3},\d{3} bytes, and 1,048,576 at most"):
        collect(state, max_bytes=MAX)


def test_more_files_than_an_import_takes_are_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FILES", 10)
    with pytest.raises(ConfigurationError, match="it has 11 files, and 10 at most fit"):
        collect(state, max_bytes=MAX)


def test_name_that_cannot_be_carried_is_said(state: Path) -> None:
    (state / "secrets/two\nlines").write_text("x")
    with pytest.raises(ConfigurationError, match="whose path is none of a state folder; rename it or move it away"):
        collect(state, max_bytes=MAX)
