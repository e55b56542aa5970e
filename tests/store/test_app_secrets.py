"""An app's secrets on the disk: what is set stays to the byte, what is made stays the same, nobody else can read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.store.app_secrets import MAX_BYTES, AppSecrets, apps_with_secrets, drop_half_written_secrets

PEM = "-----BEGIN KEY-----\nä\n-----END KEY-----\n"


def test_what_is_set_is_kept_to_the_byte_and_can_be_unset(tmp_path: Path) -> None:
    api = AppSecrets(tmp_path, "api")
    assert api.given() == {}
    api.set("KEY", Secret(PEM))
    api.set("KEY2", Secret(" x "))
    assert AppSecrets(tmp_path, "api").given() == {"KEY": Secret(PEM), "KEY2": Secret(" x ")}
    assert AppSecrets(tmp_path, "web").given() == {}
    assert apps_with_secrets(tmp_path) == ["api"]
    assert api.unset("KEY")
    assert not api.unset("KEY")
    assert list(api.given()) == ["KEY2"]


def test_what_is_made_stays_until_it_is_renewed(tmp_path: Path) -> None:
    api = AppSecrets(tmp_path, "api")
    first = api.make("SESSION_SECRET")
    assert len(first.reveal()) >= 43
    assert AppSecrets(tmp_path, "api").make("SESSION_SECRET") == first
    assert AppSecrets(tmp_path, "web").make("SESSION_SECRET") != first
    assert api.renew("SESSION_SECRET") != first
    assert api.made() == {"SESSION_SECRET": api.make("SESSION_SECRET")}
    assert api.given() == {}


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    api = AppSecrets(tmp_path, "api")
    api.make("A")
    api.set("B", Secret("b"))
    for path in (tmp_path / "apps").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    opened = tmp_path / "apps/api/given/B"
    opened.chmod(0o644)
    api.given()
    assert opened.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "../x", "a-b", "A=B", "1A", "A\n", "x" * 256])
def test_names_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        AppSecrets(tmp_path, "api").set(name, Secret("x"))


@pytest.mark.parametrize("app", ["", "..", "a/b", "A"])
def test_apps_that_are_none_are_refused(tmp_path: Path, app: str) -> None:
    with pytest.raises(ConfigurationError, match="no name of an app"):
        AppSecrets(tmp_path, app)


@pytest.mark.parametrize("value", ["", "a\0b", "x" * (MAX_BYTES + 1)])
def test_values_that_cannot_be_are_refused_without_being_shown(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AppSecrets(tmp_path, "api").set("KEY", Secret(value))
    assert "xxx" not in str(caught.value)
    assert apps_with_secrets(tmp_path) == []


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    api = AppSecrets(tmp_path, "api")
    api.set("KEY", Secret("x"))
    path = tmp_path / "apps/api/given/KEY"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"KEY': it is not UTF-8 text; restore it"):
        api.given()
    path.write_bytes(b"")
    with pytest.raises(ConfigurationError, match="it is empty; restore it, or remove the file"):
        api.given()


def test_what_a_kill_left_half_written_is_no_secret(tmp_path: Path) -> None:
    api = AppSecrets(tmp_path, "api")
    api.set("KEY", Secret("x"))
    half = tmp_path / "apps/api/given/.KEY.abc.tmp"
    half.write_text("half")
    os.chmod(half, 0o600)
    assert list(api.given()) == ["KEY"]
    drop_half_written_secrets(tmp_path)
    assert not half.exists()
    assert list(api.given()) == ["KEY"]
