"""Whom we trust: a folder of public keys, how many of them must sign, and which are revoked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.releases.model import ReleaseError
from supervisor.releases.signature import (
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    SUFFIX,
    PublicKey,
    Verified,
    claimed_key,
    parse_key,
    verify,
)

KEYS, REVOKED = ".pub", "revoked"
MAX_SIGNATURES = 16
_MAX_REVOKED_BYTES = 1024 * 1024
# An id is written without its leading zeros; one much shorter than 16 digits was cut off in copying.
_KEY_ID = re.compile(r"0*([1-9A-F][0-9A-F]{11,15})")


@dataclass(frozen=True)
class TrustStore:
    """Keys of which `threshold` must have signed; a revoked one counts for nothing, its file may stay."""

    keys: tuple[PublicKey, ...] = ()
    revoked: frozenset[str] = frozenset()
    threshold: int = 1

    def verify(self, data: bytes, signatures: Sequence[bytes]) -> tuple[Verified, ...]:
        """The signatures that hold, one a key; none without any: whether that will do is for `admission` to say.

        Raises ReleaseError where some were given and fewer than `threshold` hold, saying why each does not.
        """
        if len(signatures) > MAX_SIGNATURES:
            raise ReleaseError(
                f"cannot verify the release: it has {len(signatures)} signatures, more than {MAX_SIGNATURES}; "
                f"leave out those of keys that are not trusted here"
            )
        good: dict[str, Verified] = {}
        mistakes: list[str] = []
        for signature in signatures:
            try:
                found = self._verify(data, signature)
                good[found.key_id] = found
            except ReleaseError as error:
                mistakes.append(str(error))
        if signatures and len(good) < self.threshold:
            raise self._too_few(good, mistakes)
        return tuple(good.values())

    def _verify(self, data: bytes, signature: bytes) -> Verified:
        key_id = claimed_key(signature)
        if key_id in self.revoked:
            raise ReleaseError(
                f"cannot use the signature that names key {key_id}: that key is revoked here; sign with another"
            )
        return verify(data, signature, self.keys)

    def _too_few(self, good: Mapping[str, Verified], mistakes: Sequence[str]) -> ReleaseError:
        if self.threshold == 1 and len(mistakes) == 1:
            return ReleaseError(mistakes[0])
        by = f" (by {', '.join(sorted(good))})" if good else ""
        first = f"cannot verify the release: {self.threshold} trusted keys must have signed it, {len(good)} did{by}"
        return ReleaseError("\n".join((f"{first}; sign it with more of them", *(f"  - {each}" for each in mistakes))))


def read_trust_store(folder: Path, threshold: int = 1) -> TrustStore:
    """Every `*.pub` in the folder, and its file `revoked` (a key id a line, `#` begins a comment).

    A folder that is not there holds no keys. Raises ReleaseError with every mistake.
    """
    mistakes: list[str] = []
    keys = _read_keys(folder, mistakes)
    revoked = _read_revoked(folder / REVOKED, mistakes)
    usable = len(keys.keys() - revoked)
    if threshold < 1:
        mistakes.append(f"the threshold is {threshold}; set it to 1 or more")
    elif keys and not mistakes and usable < threshold:
        mistakes.append(
            f"{threshold} of its keys must sign, and only {usable} of them {'is' if usable == 1 else 'are'} not "
            f"revoked; add keys, or lower the threshold"
        )
    if mistakes:
        listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
        raise ReleaseError(f"cannot use the trust store {str(folder)!r}:\n{listed}")
    return TrustStore(tuple(key for key, _ in keys.values()), revoked, threshold)


def _read_keys(folder: Path, mistakes: list[str]) -> dict[str, tuple[PublicKey, str]]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(KEYS))
    except FileNotFoundError:
        return {}
    except OSError as error:
        mistakes.append(f"it cannot be listed: {error.strerror}; make it a folder that uid {os.geteuid()} can read")
        return {}
    keys: dict[str, tuple[PublicKey, str]] = {}
    for name in names:
        try:
            key = parse_key(read_small(folder / name, MAX_KEY_BYTES))
        except ReleaseError as error:
            mistakes.append(f"{name!r}: {error}")
            continue
        if key.id in keys:
            mistakes.append(f"{name!r}: key {key.id} is in {keys[key.id][1]!r} already; remove one of the two")
        keys.setdefault(key.id, (key, name))
    return keys


def _read_revoked(path: Path, mistakes: list[str]) -> frozenset[str]:
    if not os.path.lexists(path):
        return frozenset()
    try:
        text = read_small(path, _MAX_REVOKED_BYTES).decode(errors="replace")
    except ReleaseError as error:
        mistakes.append(f"{REVOKED!r}: {error}")
        return frozenset()
    lines = ((number, line.partition("#")[0].strip().upper()) for number, line in enumerate(text.splitlines(), 1))
    ids = [(number, line, _KEY_ID.fullmatch(line)) for number, line in lines if line]
    mistakes += [
        f"{REVOKED!r} line {number}: {line[:40]!r} is no key id; give its hex digits, as in the key file's comment"
        for number, line, found in ids
        if not found
    ]
    return frozenset(found[1] for _, _, found in ids if found)


def read_signatures(manifest: Path) -> list[bytes]:
    """The signatures beside a manifest: `NAME.minisig`, and `NAME.<anything>.minisig` for several signers."""
    beside = manifest.name + "."
    try:
        names = sorted(os.listdir(manifest.parent))
    except OSError as error:
        raise ReleaseError(f"cannot look for signatures of {str(manifest)!r}: {error.strerror}") from error
    found = [name for name in names if name.startswith(beside) and name.endswith(SUFFIX)]
    if len(found) > MAX_SIGNATURES:
        raise ReleaseError(
            f"cannot use the signatures of {str(manifest)!r}: there are {len(found)}, more than {MAX_SIGNATURES}; "
            f"leave out those of keys that are not trusted"
        )
    return [read_small(manifest.parent / name, MAX_SIGNATURE_BYTES) for name in found]


def read_small(path: Path, max_bytes: int) -> bytes:
    """All of a file that is neither large nor a fifo or device, which could make us wait. Raises ReleaseError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ReleaseError(f"cannot read {str(path)!r}: it is no file; put a file in its place")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ReleaseError(
            f"cannot read {str(path)!r}: {error.strerror}; make it a file that uid {os.geteuid()} can read"
        ) from error
    if len(data) > max_bytes:
        raise ReleaseError(f"cannot read {str(path)!r}: it has more than {max_bytes} bytes; is it the right file?")
    return data
