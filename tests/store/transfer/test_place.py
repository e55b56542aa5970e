"""An import is all there or not at all: killed after every operation on the disk, the next start finds one or other."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from supervisor.commands.load_settings import load
from supervisor.core.errors import ConfigurationError
from supervisor.state import Paths, State
from supervisor.store.files import write_atomic
from supervisor.store.transfer.place import finish, is_unfinished, place, present
from tests.releases.power import recorded, unsynced
from tests.releases.rig import Killed, disk
from tests.store.transfer.rig import files_in, state_files, write_state

EVERY, POWER_EVERY = 3, 7
OLD, NEW = state_files("old"), state_files("new")
ONLY_OLD = {
    "install.json.1": b'{"uuid": "older"}',
    "releases/app/journal.json": b"{}",
    "releases/web/state.json": b"{}",
    "secrets/only-old": b"x",
}
"""What has no successor."""
BESIDE = {"postgres/data/PG_VERSION": b"18", "releases/app/releases/old-0123456789ab/server.js": b"1"}
"""What an import leaves alone."""


def start(state: Path) -> None:
    """As a supervisor opens it, and ends."""
    environ = {"SUPERVISOR_STATE_DIR": str(state), "SUPERVISOR_RUNTIME_DIR": str(state / "run"), "APP_DIR": str(state)}
    opened = State(Paths.of(load({}, environ=environ).settings, environ))
    opened._lock.drop()


def state_in(state: Path) -> dict[str, bytes]:
    """The state itself, without what is beside it."""
    found = files_in(state)
    return {path: data for path, data in found.items() if path not in BESIDE and not path.startswith("state-before-")}


def kept_in(state: Path) -> dict[str, bytes]:
    folders = list(state.glob("state-before-import-*"))
    assert len(folders) <= 1
    return files_in(folders[0]) if folders else {}


def same_install(files: dict[str, bytes], wanted: dict[str, bytes]) -> bool:
    """`install.json` itself is only looked at for its uuid: a start may write it anew."""
    return files.keys() == wanted.keys() and all(files[path] == wanted[path] for path in files if path[:7] != "install")


def made(folder: Path) -> Path:
    write_state(folder, OLD | ONLY_OLD | BESIDE)
    return folder


def check(state: Path) -> str:
    """A start finds one of the two, whole; says which."""
    start(state)
    found = state_in(state)
    which, wanted, kept = ("new", NEW, OLD | ONLY_OLD) if same_install(found, NEW) else ("old", OLD | ONLY_OLD, {})
    assert same_install(found, wanted)
    assert f"install-{which}".encode() in found["install.json"]
    assert same_install(kept_in(state), kept)
    assert all((state / path).read_bytes() == data for path, data in BESIDE.items())
    assert not list(state.glob(".import*"))
    return which


def test_import_into_an_empty_folder_keeps_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "secrets").mkdir()
    assert present(state) == []
    assert place(state, NEW, at="now") is None
    assert files_in(state) == NEW
    assert not list(state.glob("state-before*"))
    assert not list(state.glob(".import*"))


def test_import_replaces_a_state_as_a_whole_and_keeps_the_old_one(tmp_path: Path) -> None:
    state = made(tmp_path / "state")
    kept = place(state, NEW, at="now")
    assert kept == state / "state-before-import-now"
    assert state_in(state) == NEW
    assert files_in(kept) == OLD | ONLY_OLD
    for path, data in BESIDE.items():
        assert (state / path).read_bytes() == data
    again = place(state, OLD, at="now")
    assert again == state / "state-before-import-now.1"
    assert files_in(again) == NEW


def test_what_is_put_in_place_is_of_the_folders_owner_alone(tmp_path: Path) -> None:
    state = made(tmp_path / "state")
    if os.geteuid() == 0:
        os.chown(state, 12345, 12346)
    owner = (state.stat().st_uid, state.stat().st_gid)
    before = os.umask(0)
    try:
        kept = place(state, NEW | {"releases/web/state.json": b"{}", "releases/new/state.json": b"{}"}, at="now")
    finally:
        os.umask(before)
    assert kept is not None
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "releases/new").stat().st_mode) == 0o711
    for path in (*NEW, "releases/new/state.json", "secrets", "secrets/apps", "secrets/apps/api/made", "releases/new"):
        found = (state / path).stat()
        assert (found.st_uid, found.st_gid) == owner, path
        if path != "releases/new":
            assert stat.S_IMODE(found.st_mode) == (0o700 if (state / path).is_dir() else 0o600), path


def test_kill_at_any_moment_leaves_the_old_state_or_the_new(tmp_path: Path, soak: bool) -> None:
    seen = set()
    last = 0
    while True:
        state = made(tmp_path / f"{last}")
        with disk(last) as counted, suppress(Killed):
            place(state, NEW, at="now")
        seen.add(check(state))
        shutil.rmtree(state)
        if counted.done < last:
            break
        last += 1 if soak else EVERY
    assert seen == {"old", "new"}
    assert last > 100, "all of it was counted"


def test_power_loss_at_any_moment_leaves_the_old_state_or_the_new(tmp_path: Path, soak: bool) -> None:
    """The model of the disk has no owners and no modes."""
    state = made(tmp_path / "state")
    chance, seen = random.Random(11), set()
    with unsynced():
        with recorded(state) as recorder:
            place(state, NEW, at="now")
        assert len(recorder.cuts) > 100
        for cut in recorder.cuts[:: 1 if soak else POWER_EVERY]:
            for left in cut.disks(chance, 10 if soak else 4):
                left.write(state)
                seen.add(check(state))
        for left in recorder.cuts[-1].disks(chance, 10):
            left.write(state)
            assert check(state) == "new", "it was reported as done"
    assert seen == {"old", "new"}


def test_power_loss_leaves_a_new_folder_without_a_state_or_with_all_of_it(tmp_path: Path, soak: bool) -> None:
    state, chance, seen = tmp_path / "state", random.Random(11), set()
    state.mkdir()
    with unsynced():
        with recorded(state) as recorder:
            place(state, NEW, at="now")
        for cut in recorder.cuts[:: 1 if soak else POWER_EVERY]:
            for left in cut.disks(chance, 10):
                left.write(state)
                finish(state)
                seen.add(len(files_in(state)))
    assert seen == {0, len(NEW)}


def test_power_loss_after_an_import_does_not_bring_it_back(tmp_path: Path) -> None:
    state = made(tmp_path / "state")
    with unsynced():
        with recorded(state) as recorder:
            place(state, NEW, at="now")
            write_atomic(state / "releases/web/state.json", "made since")
        for left in recorder.cuts[-1].disks(random.Random(11), 30):
            left.write(state)
            finish(state)
            assert (state / "releases/web/state.json").read_text() == "made since"


@contextmanager
def killed_before(what: str) -> Iterator[None]:
    """The import ends after its commit, when this of the new state was to be put in place."""
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if str(source).endswith(f".import/files/{what}"):
            raise Killed
        real(source, target)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(os, "replace", replace)
        yield


def test_start_that_is_killed_too_ends_as_well(tmp_path: Path, soak: bool) -> None:
    origin = made(tmp_path / "origin")
    with killed_before("release-keys"):
        place(origin, NEW, at="now")
    assert is_unfinished(origin)
    for last in range(0, 10_000, 1 if soak else EVERY):
        state = tmp_path / f"{last}"
        shutil.copytree(origin, state)
        with disk(last) as counted, suppress(Killed):
            finish(state)
        assert check(state) == "new"
        if counted.done < last:
            assert last > 30, "all of it was counted"
            return
    raise AssertionError("it never came to its end")


def test_secret_that_is_set_between_a_kill_and_the_start_is_kept_beside(tmp_path: Path) -> None:
    state = made(tmp_path / "state")
    with killed_before("secrets"):
        place(state, NEW, at="now")
    assert not (state / "secrets").exists()
    write_state(state, {"secrets/apps/api/given/LATE": b"late"})
    start(state)
    assert same_install(state_in(state), NEW)
    assert (state / "state-before-import-now/secrets.1/apps/api/given/LATE").read_bytes() == b"late"


@pytest.mark.parametrize("path", ["secrets", "release-keys", "releases", "releases/app", "install.json"])
def test_link_in_the_way_is_refused_and_nothing_changed(tmp_path: Path, path: str) -> None:
    state, outside = made(tmp_path / "state"), tmp_path / "outside"
    (state / path).rename(outside)
    (state / path).symlink_to(outside)
    before = files_in(state), files_in(outside)
    with pytest.raises(
        ConfigurationError, match=r"cannot import into .*: it is a link, and a state is replaced in one"
    ):
        place(state, NEW, at="now")
    assert (files_in(state), files_in(outside)) == before


@pytest.mark.parametrize(("path", "what"), [("install.json", "a folder"), ("secrets", "no folder")])
def test_wrong_kind_in_the_way_is_refused_and_nothing_changed(tmp_path: Path, path: str, what: str) -> None:
    state = made(tmp_path / "state")
    if what == "a folder":
        (state / path).unlink()
        (state / path).mkdir()
    else:
        shutil.rmtree(state / path)
        (state / path).write_text("x")
    before = files_in(state)
    with pytest.raises(ConfigurationError, match=f"it is {what}"):
        place(state, NEW, at="now")
    assert files_in(state) == before


def test_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = made(tmp_path / "state")
    before, real, left = files_in(state), os.fsync, [6]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        place(state, NEW, at="now")
    assert files_in(state) == before
    assert not list(state.glob(".import*"))


def test_filesystem_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    state = made(tmp_path / "state")
    monkeypatch.setattr(os, "link", link)
    kept = place(state, NEW, at="now")
    assert state_in(state) == NEW
    assert kept is not None
    assert files_in(kept) == OLD | ONLY_OLD
