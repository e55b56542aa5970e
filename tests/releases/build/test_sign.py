"""Signed builds: good for the `minisign` program, with plain and encrypted keys, and never on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from supervisor.core.secret import Secret
from supervisor.releases.build.output import MANIFEST, SIGNATURE
from supervisor.releases.model import ReleaseError
from supervisor.releases.signature import make_keys, parse_key, verify
from tests.releases.build.rig import MOMENT, build_in, left_in, make_tree, run

needs_minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="there is no minisign here")
COMMENT = f"timestamp:{int(MOMENT.at.timestamp())} file:manifest.json app:shop version:1.2.3 sequence:5"


def keys(folder: Path, password: str | None = None) -> tuple[Path, Path]:
    """The files of a new key: secret and public."""
    pair = make_keys(Secret(password) if password is not None else None)
    secret, public = folder / "sign.key", folder / "sign.pub"
    secret.write_text(pair.secret.reveal())
    public.write_text(pair.public)
    return secret, public


def test_a_signature_covers_the_manifest_and_says_what_it_is_of(tmp_path: Path) -> None:
    secret, public = keys(tmp_path)
    built = build_in(make_tree(tmp_path / "app"), key=secret, sequence=5)
    key = parse_key(public.read_bytes())
    data, signature = (built.output / MANIFEST).read_bytes(), (built.output / SIGNATURE).read_bytes()
    assert verify(data, signature, [key]).trusted_comment == COMMENT
    assert built.key_id == key.id
    assert built.output / SIGNATURE in built.files
    assert (built.output / SIGNATURE).stat().st_mode & 0o777 == 0o644
    with pytest.raises(ReleaseError):
        verify(data.replace(b"1.2.3", b"1.2.4"), signature, [key])


def test_the_same_build_has_the_same_signature(tmp_path: Path) -> None:
    secret, _ = keys(tmp_path)
    folder = make_tree(tmp_path / "app")
    one, two = (build_in(folder, tmp_path / name, key=secret).output / SIGNATURE for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_an_encrypted_key_takes_its_password_from_a_file(tmp_path: Path) -> None:
    secret, public = keys(tmp_path, "open sesame")
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    built = build_in(make_tree(tmp_path / "app"), key=secret, key_password=password)
    data, signature = (built.output / MANIFEST).read_bytes(), (built.output / SIGNATURE).read_bytes()
    assert verify(data, signature, [parse_key(public.read_bytes())])


@pytest.mark.parametrize(
    ("password", "why"),
    [(None, "give its password with --key-password-file"), ("wrong", "wrong password"), ("", "wrong password")],
)
def test_an_encrypted_key_without_its_password_signs_nothing(tmp_path: Path, password: str | None, why: str) -> None:
    secret, _ = keys(tmp_path, "right")
    file = None
    if password is not None:
        file = tmp_path / "password"
        file.write_text(password)
    folder = make_tree(tmp_path / "app")
    with pytest.raises(ReleaseError, match=why):
        build_in(folder, key=secret, key_password=file)
    assert left_in(folder / "dist-tarball") == {".gitignore"}


def test_a_key_in_the_apps_folder_is_not_shipped(tmp_path: Path) -> None:
    """Left out where its name says what it is, refused where it does not."""
    folder = make_tree(tmp_path / "app")
    secret, _ = keys(folder)
    assert build_in(folder, key=secret).secrets == ("sign.key",)
    secret.rename(folder / "signing")
    with pytest.raises(ReleaseError, match="'signing' is the signing key; keep it outside"):
        build_in(folder, key=folder / "signing")


@needs_minisign
def test_the_minisign_program_makes_keys_for_it_and_accepts_what_it_signs(tmp_path: Path) -> None:
    secret, public = tmp_path / "sign.key", tmp_path / "sign.pub"
    run("minisign", "-G", "-W", "-s", secret, "-p", public)
    built = build_in(make_tree(tmp_path / "app"), key=secret, sequence=5)
    said = run("minisign", "-V", "-p", public, "-m", built.output / MANIFEST).stdout
    assert "Signature and comment signature verified" in said
    assert f"Trusted comment: {COMMENT}" in said
    (built.output / MANIFEST).write_text("{}")
    assert run("minisign", "-V", "-p", public, "-m", built.output / MANIFEST, check=False).returncode == 1
