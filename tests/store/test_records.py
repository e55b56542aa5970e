"""The records of the state folder: the install, the spawns, the secrets."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.store.formats import Kind, Values
from supervisor.store.records import INSTALL_FILE, InstallFile, SpawnFolder, Verified, read_install
from supervisor.store.secrets import SecretFolder
from tests.releases.rig import Killed, disk


def mode_of(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


# install.json.


def test_an_install_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "install.json"
    first = InstallFile(path)
    first.install.ports["redis"] = 20001
    first.install.facts["engine"] = "none"
    first.save()
    again = InstallFile(path).install
    assert again == first.install
    assert len(again.uuid) == 32
    assert mode_of(path) == 0o600


def test_two_installs_have_two_names(tmp_path: Path) -> None:
    assert InstallFile(tmp_path / "a").install.uuid != InstallFile(tmp_path / "b").install.uuid


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"uuid": "a", "por', "Unterminated string"),
        (b"[]", "it is no record"),
        (b"{}", "'uuid' is missing"),
        (b'{"uuid": null}', "its uuid is no text"),
        (b'{"uuid": ""}', "its uuid is no text"),
        (b'{"uuid": "a", "ports": {"redis": "high"}}', "invalid literal"),
        (b'{"uuid": "a", "ports": [1]}', "has no attribute 'items'"),
        (b"\xff\xfe\x00", "Expecting value"),
        (b'{"uuid": "a", "format": true}', "its format is True"),
        (b'{"uuid": "a", "format": 0}', "its format is 0"),
        (b'{"uuid": "a", "verified": {"mode": "dind"}}', "string indices"),
    ],
)
def test_a_broken_install_file_is_an_error_that_says_what_it_holds(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "install.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        InstallFile(path)
    text = str(caught.value)
    assert text.startswith(f"cannot read {str(path)!r}: ")
    assert why in text
    assert "restore it from a backup, or move it away" in text
    assert path.read_bytes() == content


def test_keys_of_a_later_version_are_kept_as_they_are_when_an_install_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "install.json"
    path.write_text(json.dumps({"uuid": "a" * 32, "later": {"deep": [1]}, "format": 1}))
    file = InstallFile(path)
    file.install.ports["redis"] = 7
    file.save()
    values = json.loads(path.read_text())
    assert values["later"] == {"deep": [1]}
    assert values["ports"] == {"redis": 7}


def _renamed(values: Values) -> Values:
    return {**values, "uuid": values["uuid"] + "-2"}


def _counted(values: Values) -> Values:
    return {**values, "facts": {"steps": "two"}}


def test_an_install_of_an_older_format_is_brought_forward_step_by_step_with_a_copy_kept(tmp_path: Path) -> None:
    path = tmp_path / "install.json"
    before = '{"uuid": "a", "ports": {"redis": 7}, "later": 1}'
    path.write_text(before)
    install = InstallFile(path, Kind((_renamed, _counted))).install
    assert (install.uuid, install.facts, install.ports) == ("a-2", {"steps": "two"}, {"redis": 7})
    assert json.loads(path.read_text())["format"] == 3
    assert (tmp_path / "install.json.1").read_text() == before
    assert mode_of(path) == 0o600
    again = InstallFile(path, Kind((_renamed, _counted))).install
    assert again.uuid == "a-2", "no step is taken twice"
    assert (tmp_path / "install.json.1").read_text() == before, "and what is kept is of before the steps"


def test_an_install_is_whole_after_a_kill_at_any_moment_of_its_upgrade(tmp_path: Path) -> None:
    kind, before = Kind((_renamed,)), '{"uuid": "a"}'
    for last in range(100):
        path = tmp_path / f"{last}" / "install.json"
        path.parent.mkdir()
        path.write_text(before)
        with disk(last) as counted, suppress(Killed):
            InstallFile(path, kind)
        assert InstallFile(path, kind).install.uuid == "a-2"
        assert path.with_name("install.json.1").read_text() == before
        if counted.done < last:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("number", [2, 99])
def test_an_install_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path, number: int) -> None:
    path = tmp_path / "install.json"
    text = json.dumps({"uuid": "a", "format": number})
    path.write_text(text)
    for read in (lambda: InstallFile(path), lambda: read_install(tmp_path)):
        with pytest.raises(ConfigurationError) as caught:
            read()
        assert str(caught.value) == (
            f"cannot use {str(path)!r}: it was written by a newer version (format {number}, this one knows 1); "
            f"update the supervisor, or restore the folder from a backup of before"
        )
    assert path.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["install.json"]


def test_a_verified_fact_is_kept_with_its_time(tmp_path: Path) -> None:
    file = InstallFile(tmp_path / INSTALL_FILE)
    file.install.verified["mode"] = Verified("dind", "2026-11-22T08:00:00Z")
    file.save()
    looked = read_install(tmp_path)
    assert looked is not None
    assert looked.verified == {"mode": Verified("dind", "2026-11-22T08:00:00Z")}


# Spawns.


def test_spawns_are_read_back_until_they_are_removed(tmp_path: Path) -> None:
    folder = SpawnFolder(tmp_path)
    folder.write(7, {"pid": 7, "name": "a"})
    folder.write(8, {"pid": 8, "name": "b"})
    folder.remove(7)
    folder.remove(7)
    assert SpawnFolder(tmp_path).read() == [{"pid": 8, "name": "b"}]
    folder.clear()
    assert folder.read() == []


def test_torn_and_foreign_files_are_no_spawns(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"pid": 1')
    (tmp_path / "2.json").write_text("[2]")
    (tmp_path / "3.json").write_bytes(b"\xff")
    (tmp_path / "4.json").mkdir()
    (tmp_path / "notes.txt").write_text("{}")
    assert SpawnFolder(tmp_path).read() == []


# Secrets.


def test_a_secret_is_made_once_random_and_private(tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path)
    before = os.umask(0)
    try:
        secret = folder.get_or_make("redis")
    finally:
        os.umask(before)
    assert mode_of(folder.path("redis")) == 0o600
    assert len(secret.reveal()) >= 43
    assert secret == SecretFolder(tmp_path).get_or_make("redis")
    assert secret != folder.get_or_make("postgres-app")


def test_a_secret_does_not_show_itself(tmp_path: Path) -> None:
    secret = SecretFolder(tmp_path).get_or_make("redis")
    assert repr(secret) == str(secret) == f"{secret}" == "***"
    assert secret.reveal() not in repr({"secret": [secret]})


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_secret_is_refused_and_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "redis").write_text(content)
    with pytest.raises(ConfigurationError, match="it is empty; restore it from a backup"):
        SecretFolder(tmp_path).get_or_make("redis")
    assert (tmp_path / "redis").read_text() == content


def test_a_secret_others_could_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("given-by-hand\n")
    (tmp_path / "redis").chmod(0o644)
    assert SecretFolder(tmp_path).get_or_make("redis").reveal() == "given-by-hand"
    assert mode_of(tmp_path / "redis") == 0o600


def test_a_secret_that_cannot_be_read_is_an_error_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory; restore it from a backup"):
        SecretFolder(tmp_path).get_or_make("redis")
    (tmp_path / "other").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not UTF-8 text"):
        SecretFolder(tmp_path).get_or_make("other")


def test_an_install_is_its_own_owner_until_it_took_an_older_one_back(tmp_path: Path) -> None:
    file = InstallFile(tmp_path / INSTALL_FILE)
    assert file.install.owner == file.install.uuid
    file.install.owner = "older"
    file.save()
    looked = read_install(tmp_path)
    assert looked is not None
    assert (looked.owner, looked.uuid) == ("older", file.install.uuid)


@pytest.mark.parametrize("text", [None, "", "[]", '{"uuid": 1}', '{"uuid": "a", "ports": 3}'])
def test_a_look_at_no_install_makes_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / INSTALL_FILE).write_text(text)
    assert read_install(tmp_path) is None
    assert len(list(tmp_path.iterdir())) == (text is not None)
