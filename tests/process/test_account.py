"""Whom a command runs as."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.process import account
from supervisor.process.account import find_account, lacking_rights

SETTING = "SUPERVISOR_APP_USER"


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(account, "lacking_rights", lambda: ())


@pytest.mark.usefixtures("root")
def test_a_name_gives_uid_groups_and_home() -> None:
    nobody = pwd.getpwnam("nobody")
    found = find_account("nobody", SETTING)
    assert found is not None
    assert found.identity is not None
    assert (found.identity.uid, found.identity.gid) == (nobody.pw_uid, nobody.pw_gid)
    assert nobody.pw_gid in found.identity.groups
    assert found.environ == {"HOME": nobody.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}


@pytest.mark.usefixtures("root")
def test_a_number_needs_no_entry_and_gets_no_home() -> None:
    found = find_account("54321", SETTING)
    assert found is not None
    assert found.identity is not None
    assert (found.identity.uid, found.identity.gid, found.identity.groups) == (54321, 54321, (54321,))
    assert found.environ == {"HOME": "/"}


@pytest.mark.usefixtures("root")
def test_a_named_group_is_the_only_one() -> None:
    found = find_account("nobody:54322", SETTING)
    assert found is not None
    assert found.identity is not None
    assert (found.identity.gid, found.identity.groups) == (54322, (54322,))


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("text", "words"), [("no-such-user", "useradd"), ("nobody:no-such-group", "groupadd")])
def test_one_that_is_not_there_is_told_with_the_mend(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        find_account(text, SETTING)


@pytest.mark.usefixtures("root")
def test_root_as_root_changes_nothing() -> None:
    assert find_account("root", SETTING) is None


def test_only_root_can_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    assert find_account("4711", SETTING) is None
    found = find_account("nobody", SETTING)
    assert found is not None
    assert (found.identity, found.environ) == (None, {})
    assert "runs as uid 4711, as we do, not as 'nobody'" in found.warning


@pytest.mark.parametrize(
    ("held", "lacking"),
    [
        (0x1FFFFFFFFFF, ()),
        (0xA80425FB, ()),  # what a container has without being asked
        (0xA8042500, ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID")),
        (0x1FFFFFFFFDF, ("CAP_KILL",)),
    ],
)
def test_rights_that_root_lacks_are_named(tmp_path: Path, held: int, lacking: tuple[str, ...]) -> None:
    (tmp_path / "status").write_text(f"Name:\tcat\nCapPrm:\tffffffffffffffff\nCapEff:\t{held:016x}\n")
    assert lacking_rights(tmp_path / "status") == lacking


def test_without_capabilities_none_is_lacking(tmp_path: Path) -> None:
    assert lacking_rights(tmp_path / "none") == ()
    (tmp_path / "status").write_text("Name:\tcat\n")
    assert lacking_rights(tmp_path / "status") == ()


@pytest.mark.usefixtures("root")
def test_root_without_the_rights_cannot_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "lacking_rights", lambda: ("CAP_SETUID",))
    with pytest.raises(ConfigurationError, match=r"root lacks CAP_SETUID here; .* --user \d+:\d+ instead"):
        find_account("nobody", SETTING)
