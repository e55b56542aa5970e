"""`supervisor release keygen | sign | verify`: keys and signatures on a developer's machine or in CI, no supervisor."""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from supervisor.core.errors import SupervisorError
from supervisor.core.secret import Secret
from supervisor.releases.admission import check_archive
from supervisor.releases.manifest import MAX_MANIFEST_BYTES, parse_manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.signature import (
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    SUFFIX,
    Verified,
    claimed_key,
    make_keys,
    parse_key,
)
from supervisor.releases.signature import sign as make_signature
from supervisor.releases.tree import file_digest
from supervisor.releases.trust import KEYS, TrustStore, read_signatures, read_small, read_trust_store
from supervisor.store.files import write_atomic

_MAX_PASSWORD_BYTES = 1024


def keygen(key: Path, *, password_file: Path | None = None, no_password: bool = False) -> str:
    """Make the secret key `key` (0600) and its public one beside it, with `.pub`; gives sentences to print.

    Files that are there stay as they are. Asks for a password on the terminal where none of the two is given. Raises
    SupervisorError.
    """
    public = key.with_name(key.name + KEYS)
    for path in (key, public):
        if os.path.lexists(path):
            raise ReleaseError(f"cannot make key {str(key)!r}: there is {str(path)!r} already; choose another name")
    password = None if no_password else _new_password(password_file)
    pair = make_keys(password)
    _write_new(key, pair.secret.reveal(), 0o600)
    _write_new(public, pair.public, 0o644)
    return (
        f"key {pair.id}\nsecret key {str(key)!r}: keep it where releases are signed, with a copy in a safe place\n"
        f"public key {str(public)!r}: put it into the trust store of every container that is to accept its releases"
    )


def sign(file: Path, *, key: Path, password_file: Path | None = None, output: Path | None = None) -> str:
    """Write the signature of `file` to `output`, else beside it as `<file>.minisig`; gives a sentence to print.

    The password is asked for on the terminal where the key has one and no file holds it. Raises SupervisorError.
    """
    data = read_small(file, MAX_MANIFEST_BYTES)
    secret = Secret(read_small(key, MAX_KEY_BYTES).decode(errors="replace"))
    comment = f"timestamp:{int(time.time())}\tfile:{ascii(file.name)[1:-1]}\thashed"
    signature = make_signature(data, secret, trusted_comment=comment, password=_password(password_file))
    target = output or file.with_name(file.name + SUFFIX)
    try:
        write_atomic(target, signature.decode(), mode=0o644)
    except OSError as error:
        raise ReleaseError(f"cannot write {str(target)!r}: {error.strerror}; make its folder writable") from error
    return f"signed {str(file)!r} by key {claimed_key(signature)}: {str(target)!r}"


def verify(manifest: Path, *, keys: Path, signatures: Sequence[Path] = (), threshold: int = 1) -> str:
    """Check a manifest's signatures, and the archive that lies beside it; gives sentences to print.

    `keys` is a trust store's folder or one public key; without `signatures` those beside the manifest count. Raises
    SupervisorError.
    """
    data = read_small(manifest, MAX_MANIFEST_BYTES)
    given = [read_small(path, MAX_SIGNATURE_BYTES) for path in signatures] or read_signatures(manifest)
    if not given:
        raise ReleaseError(
            f"cannot verify {str(manifest)!r}: there is no signature beside it; make one with `supervisor release sign`"
        )
    verified = _trusted(keys, threshold).verify(data, given)
    return "\n".join((*map(_said, verified), _check_archive(manifest, data)))


def run(command: Callable[[], str]) -> int:
    """Print what `command` gives, or its error; gives the exit code."""
    try:
        print(command())
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


def _trusted(keys: Path, threshold: int) -> TrustStore:
    if keys.is_dir():
        return read_trust_store(keys, threshold)
    return TrustStore((parse_key(read_small(keys, MAX_KEY_BYTES)),), threshold=threshold)


def _said(verified: Verified) -> str:
    return f"signed by key {verified.key_id} ({verified.trusted_comment})"


def _check_archive(manifest: Path, data: bytes) -> str:
    archive = parse_manifest(data).archive
    place = manifest.parent / archive.file
    try:
        check_archive(archive, size=place.lstat().st_size, sha256=file_digest(place))
    except FileNotFoundError:
        return f"archive {archive.file!r} is not beside the manifest, and was not checked"
    except OSError as error:
        raise ReleaseError(f"cannot read {str(place)!r}: {error.strerror}; make it a readable file") from error
    return f"archive {archive.file!r} is the one that was signed for"


def _new_password(file: Path | None) -> Secret:
    if file is not None:
        return _password(file)()
    first, again = _ask("Password for the new key: "), _ask("The same again: ")
    if first != again:
        raise ReleaseError("cannot make the key: the two passwords differ; try again")
    return first


def _password(file: Path | None) -> Callable[[], Secret]:
    """Asked for when it is needed. Never an argument: every user of the machine can read those."""

    def read() -> Secret:
        if file is None:
            return _ask("Password of the key: ")
        text = read_small(file, _MAX_PASSWORD_BYTES).decode(errors="replace").rstrip("\r\n")
        if not text:
            raise ReleaseError(f"cannot use the password in {str(file)!r}: it is empty; write it into that file")
        return Secret(text)

    return read


def _ask(prompt: str) -> Secret:
    if not sys.stdin.isatty():
        raise ReleaseError(
            "cannot ask for the password: there is no terminal; give it with --password-file, or make a key without "
            "one with `supervisor release keygen --no-password`"
        )
    text = getpass.getpass(prompt)
    if not text:
        raise ReleaseError("cannot use an empty password; give one, or make the key with --no-password")
    return Secret(text)


def _write_new(path: Path, text: str, mode: int) -> None:
    """Durable, and only where nothing is: a key that was overwritten is gone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise ReleaseError(f"cannot write {str(path)!r}: {error.strerror}; choose another place") from error
