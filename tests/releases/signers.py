"""Keys, signatures and manifests for tests of trust."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.core.secret import Secret
from supervisor.releases.admission import Candidate
from supervisor.releases.manifest import Manifest
from supervisor.releases.signature import PublicKey, Verified, make_keys, parse_key, sign

WHEN = "2026-11-21T12:00:00Z"
CAROL_OF_MINISIGN = (
    "untrusted comment: minisign public key 6C2E45B007A8CEF\nRWTvjHoAW+TCBjWXyORfS7DhDjdd5JXT8g1uXus+jrpiU/q4TPRmw7HA\n"
)
"""Made by the program, which leaves out leading zeros."""


def no_password() -> Secret:
    raise AssertionError("asked for a password")


@dataclass
class Signer:
    """Somebody with a key."""

    public: str
    secret: Secret
    id: str

    @classmethod
    def make(cls) -> Signer:
        pair = make_keys(None)
        return cls(pair.public, pair.secret, pair.id)

    @property
    def key(self) -> PublicKey:
        return parse_key(self.public.encode())

    def sign(self, data: bytes, comment: str = "for a test") -> bytes:
        return sign(data, self.secret, trusted_comment=comment, password=no_password)

    def sign_the_legacy_way(self, data: bytes) -> bytes:
        import minisign

        return bytes(minisign.SecretKey.from_bytes(self.secret.reveal().encode()).sign(data, prehash=False)) + b"\n"

    def trusted_in(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.pub").write_text(self.public)


def manifest(**values: Any) -> Manifest:
    """One that is accepted by itself; `values` change it."""
    return Manifest.model_validate(
        {
            "format": 1,
            "app": "shop",
            "version": "1.0",
            "sequence": 10,
            "created": WHEN,
            "archive": {"file": "shop.tar.zst", "sha256": "a" * 64, "size": 1000, "compression": "zstd"},
            "tree": {"digest": "b" * 64, "bytes": 5000, "entries": 12},
            **values,
        }
    )


@dataclass
class Release:
    """A candidate in short: what is changed of the manifest, and who signed."""

    signers: tuple[str, ...] = ("1111111111111111",)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def candidate(self) -> Candidate:
        made = manifest(**self.values)
        digest = hashlib.sha256(made.model_dump_json().encode()).hexdigest()
        return Candidate(made, digest, tuple(Verified(key, "") for key in self.signers))
