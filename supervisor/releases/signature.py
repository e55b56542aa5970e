"""Signatures in minisign's format (https://jedisct1.github.io/minisign/) over a manifest's exact bytes.

Prehashed ones only. The library is loaded on first use: with `cryptography` it takes about 9 MB of resident memory.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from supervisor.core.secret import Secret
from supervisor.releases.model import ReleaseError

SUFFIX = ".minisig"
MAX_SIGNATURE_BYTES = 16 * 1024
"""minisign's own limits: 1,024 bytes of untrusted and 8,192 of trusted comment, beside about 200 of signature."""
MAX_KEY_BYTES = 4 * 1024
_ID = slice(2, 10)


@dataclass(frozen=True)
class PublicKey:
    """`id` is written as the `minisign` program does: up to 16 hex digits, no leading zeros. `line` is the key file's
    second line.
    """

    id: str
    line: str


@dataclass(frozen=True)
class Verified:
    """A signature that holds. The comment is signed too; signs of it that do not print are replaced."""

    key_id: str
    trusted_comment: str


@dataclass(frozen=True)
class KeyPair:
    """A new key in the texts of its two files."""

    id: str
    public: str
    secret: Secret


def parse_key(data: bytes) -> PublicKey:
    """The text of a public key file, with its comment line. Raises ReleaseError."""
    import minisign

    if len(data) > MAX_KEY_BYTES:
        raise ReleaseError(f"cannot read the key: it has more than {MAX_KEY_BYTES} bytes; give a minisign public key")
    try:
        line = minisign.PublicKey.from_bytes(data).to_base64()
    except ValueError as error:
        raise ReleaseError(
            f"cannot read the key: it is no minisign public key ({error}); give the .pub file with both of its lines"
        ) from None
    return PublicKey(_key_id(line), line.decode())


def claimed_key(signature: bytes) -> str:
    """The id of the key that a signature says it is by; nothing of it is proved yet. Raises ReleaseError."""
    return _parse(signature)[1]


def verify(data: bytes, signature: bytes, keys: Iterable[PublicKey]) -> Verified:
    """Prove that one of `keys` signed exactly `data`. Raises ReleaseError; its text quotes nothing unproved but ids."""
    import minisign

    parsed, key_id = _parse(signature)
    if not parsed.is_prehashed():
        raise ReleaseError(
            f"cannot use the signature that names key {key_id}: it is of the legacy kind, not prehashed; sign again "
            f"with `supervisor release sign` or `minisign -SH`"
        )
    key = next((key for key in keys if key.id == key_id), None)
    if key is None:
        raise ReleaseError(
            f"cannot use the signature that names key {key_id}: that key is not trusted here; sign with one that is, "
            f"or put its .pub file into the trust store if it is yours"
        )
    try:
        minisign.PublicKey.from_base64(key.line).verify(data, parsed)
    except ValueError:
        raise ReleaseError(
            f"cannot use the signature that names key {key_id}: it does not hold for these bytes under that key; "
            f"take the manifest and its signature from one build, unchanged, or sign again"
        ) from None
    return Verified(key_id, _printable(parsed.trusted_comment))


def sign(data: bytes, secret: Secret, *, trusted_comment: str, password: Callable[[], Secret]) -> bytes:
    """A prehashed signature's file. `secret` is a secret key's file; `password` is asked for only where it has one.

    Blocks: opening a key of the `minisign` program takes about a second and 1 GiB. Raises ReleaseError.
    """
    import minisign

    try:
        with minisign.SecretKey.from_bytes(secret.reveal().encode()) as key:
            if key.is_encrypted():
                key.decrypt(password().reveal())
            public = key.get_public_key()
            made = key.sign(data, trusted_comment=trusted_comment)
            # The file of a key without a password has no working checksum: this finds a damaged one.
            public.verify(data, made)
    except minisign.VerifyError:
        raise ReleaseError("cannot sign: the secret key file is damaged; restore it from a backup") from None
    except MemoryError:
        raise ReleaseError("cannot sign: not enough memory to open the secret key (up to 1 GiB); free some") from None
    except ValueError as error:
        raise ReleaseError(
            f"cannot sign: {error}; give a secret key as `supervisor release keygen` or `minisign -G` makes it, "
            f"and its own password"
        ) from None
    return bytes(made) + b"\n"


def make_keys(password: Secret | None) -> KeyPair:
    """A new key. Without a password whoever can read the secret file can sign."""
    import minisign

    pair = minisign.KeyPair.generate()
    with pair.secret_key as secret:
        if password is not None:
            secret.encrypt(password.reveal())
        key_id = _key_id(pair.public_key.to_base64())
        # The library writes an id's bytes in the other order than the program.
        pair.public_key.untrusted_comment = f"minisign public key {key_id}"
        return KeyPair(key_id, f"{bytes(pair.public_key).decode()}\n", Secret(f"{bytes(secret).decode()}\n"))


def _parse(signature: bytes) -> tuple[Any, str]:
    import minisign

    if len(signature) > MAX_SIGNATURE_BYTES:
        raise ReleaseError(
            f"cannot read the signature: it has more than {MAX_SIGNATURE_BYTES} bytes; give the {SUFFIX} file"
        )
    try:
        parsed = minisign.Signature.from_bytes(signature)
    except ValueError as error:
        raise ReleaseError(
            f"cannot read the signature: it is no minisign signature ({error}); give the {SUFFIX} file as it was made"
        ) from None
    return parsed, _key_id(bytes(parsed).splitlines()[1])


def _key_id(line: bytes) -> str:
    return f"{int.from_bytes(base64.b64decode(line)[_ID], 'little'):X}"


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() or each == "\t" else "?" for each in text)
