"""`supervisor release keygen | sign | verify` on real files."""

from __future__ import annotations

import hashlib
import io
import stat
from pathlib import Path

import pytest

from supervisor.commands.release_keys import keygen, run, sign, verify
from supervisor.core.errors import ExitCode
from supervisor.releases.manifest import manifest_bytes
from supervisor.releases.model import ReleaseError
from tests.releases.signers import manifest


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "ci.key"
    keygen(path, no_password=True)
    return path


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A manifest with its archive beside it."""
    archive = b"an archive"
    digest = hashlib.sha256(archive).hexdigest()
    values = {"file": "shop.tar.zst", "sha256": digest, "size": len(archive), "compression": "zstd"}
    (tmp_path / "shop.tar.zst").write_bytes(archive)
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest_bytes(manifest(archive=values)))
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_signed_can_be_verified(key: Path, built: Path) -> None:
    public = key.with_name("ci.key.pub")
    said = sign(built, key=key)
    assert said.startswith(f"signed {str(built)!r} by key ")
    first, second = verify(built, keys=public).splitlines()
    assert first.startswith("signed by key ")
    assert "\tfile:manifest.json\thashed)" in first
    assert second == "archive 'shop.tar.zst' is the one that was signed for"
    assert verify(built, keys=key.parent) == f"{first}\n{second}"


def test_a_new_key_is_secret_and_its_public_half_is_not(key: Path) -> None:
    assert mode_of(key) == 0o600
    assert mode_of(key.with_name("ci.key.pub")) == 0o644


@pytest.mark.parametrize("there", ["ci.key", "ci.key.pub"])
def test_a_key_that_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(ReleaseError, match=f"there is '.*{there}' already; choose another name"):
        keygen(tmp_path / "ci.key", no_password=True)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "ci.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match="already"):
        keygen(tmp_path / "ci.key", no_password=True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_password_from_a_file_locks_the_key(tmp_path: Path, built: Path) -> None:
    right, wrong, empty = (tmp_path / name for name in ("right", "wrong", "empty"))
    right.write_text("open sesame\n")
    wrong.write_text("open barley\n")
    empty.write_text("\n")
    key = tmp_path / "ci.key"
    keygen(key, password_file=right)
    sign(built, key=key, password_file=right)
    assert verify(built, keys=tmp_path / "ci.key.pub")
    with pytest.raises(ReleaseError, match="wrong password for that key"):
        sign(built, key=key, password_file=wrong)
    with pytest.raises(ReleaseError, match=r"cannot use the password in .*: it is empty; write it into that file"):
        sign(built, key=key, password_file=empty)
    with pytest.raises(ReleaseError, match="there is no terminal; give it with --password-file"):
        sign(built, key=key)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "why"),
    [(["one", "two"], "the two passwords differ; try again"), (["", ""], "cannot use an empty password")],
)
def test_a_new_password_is_asked_for_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], why: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: typed.pop(0))
    with pytest.raises(ReleaseError, match=why):
        keygen(tmp_path / "ci.key")
    assert not (tmp_path / "ci.key").exists()


def test_a_key_that_comes_while_the_password_is_typed_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(prompt: str) -> str:
        (tmp_path / "ci.key").write_text("precious")
        return "open sesame"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", slow)
    with pytest.raises(ReleaseError, match=r"cannot write '.*ci\.key': File exists; choose another place"):
        keygen(tmp_path / "ci.key")
    assert (tmp_path / "ci.key").read_text() == "precious"


def test_a_password_that_is_typed_locks_the_key(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: "open sesame")
    keygen(tmp_path / "ci.key")
    sign(built, key=tmp_path / "ci.key")
    assert verify(built, keys=tmp_path / "ci.key.pub")


def test_two_people_sign_one_manifest(tmp_path: Path, built: Path) -> None:
    for name in ("alice", "bob"):
        keygen(tmp_path / "trust" / name, no_password=True)
        sign(built, key=tmp_path / "trust" / name, output=tmp_path / f"manifest.json.{name}.minisig")
    assert verify(built, keys=tmp_path / "trust", threshold=2).count("signed by key") == 2
    (tmp_path / "manifest.json.bob.minisig").unlink()
    with pytest.raises(ReleaseError, match="2 trusted keys must have signed it, 1 did"):
        verify(built, keys=tmp_path / "trust", threshold=2)


def test_a_changed_archive_is_noticed_and_a_missing_one_said(tmp_path: Path, built: Path, key: Path) -> None:
    sign(built, key=key)
    (tmp_path / "shop.tar.zst").write_bytes(b"another at.")
    with pytest.raises(ReleaseError, match=r"cannot accept archive 'shop\.tar\.zst': it has 11 bytes"):
        verify(built, keys=key.parent)
    (tmp_path / "shop.tar.zst").unlink()
    assert "archive 'shop.tar.zst' is not beside the manifest, and was not checked" in verify(built, keys=key.parent)
    (tmp_path / "shop.tar.zst").symlink_to(built)
    with pytest.raises(ReleaseError, match="make it a readable file"):
        verify(built, keys=key.parent)


def test_a_manifest_without_a_signature_is_not_verified(built: Path, key: Path) -> None:
    with pytest.raises(ReleaseError, match="there is no signature beside it; make one with `supervisor release sign`"):
        verify(built, keys=key.parent)


def test_a_named_signature_is_the_one_that_counts(tmp_path: Path, built: Path, key: Path) -> None:
    sign(built, key=key)
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(ReleaseError, match="it is no minisign signature"):
        verify(built, keys=key.parent, signatures=[tmp_path / "junk"])


def test_a_file_of_any_name_can_be_signed(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "größe\n.json"
    path.write_bytes(b"{}")
    sign(path, key=key)
    assert path.with_name(path.name + ".minisig").read_text().count("\n") == 4


@pytest.mark.parametrize("which", ["file", "key"])
def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path, built: Path, key: Path, which: str) -> None:
    none = tmp_path / "none"
    with pytest.raises(ReleaseError, match=r"cannot read '.*none': No such file"):
        sign(none if which == "file" else built, key=none if which == "key" else key)


def test_a_place_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path, built: Path, key: Path) -> None:
    with pytest.raises(ReleaseError, match=r"cannot write '.*/none/x': No such file"):
        sign(built, key=key, output=tmp_path / "none" / "x")
    (tmp_path / "built").write_text("a file")
    with pytest.raises(ReleaseError, match=r"cannot write '.*built/ci\.key': .*choose another place"):
        keygen(tmp_path / "built" / "ci.key", no_password=True)


def test_an_outcome_is_printed_and_becomes_an_exit_code(
    tmp_path: Path, built: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: sign(built, key=key)) == 0
    assert capsys.readouterr().out.startswith("signed ")
    assert run(lambda: sign(tmp_path / "none", key=key)) == ExitCode.REJECTED
    assert capsys.readouterr().err.startswith("supervisor: cannot read ")
