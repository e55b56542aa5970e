"""The key a release is signed with: its files are read before the long part of a build, and used after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor.core.secret import Secret
from supervisor.releases.model import ReleaseError
from supervisor.releases.signature import MAX_KEY_BYTES, sign
from supervisor.releases.trust import read_small

_MAX_PASSWORD_BYTES = 1024


@dataclass(frozen=True)
class Signer:
    """A minisign secret key as in its file, and the password of an encrypted one."""

    key: Secret
    password: Secret | None = None

    @classmethod
    def read(cls, key: Path, password: Path | None) -> Signer:
        """From their files; a password ends with its file's first line. Raises ReleaseError."""
        text = read_small(key, MAX_KEY_BYTES).decode(errors="replace")
        if password is None:
            return cls(Secret(text))
        lines = read_small(password, _MAX_PASSWORD_BYTES).decode(errors="replace").splitlines()
        return cls(Secret(text), Secret(lines[0] if lines else ""))

    def sign(self, data: bytes, comment: str) -> bytes:
        """A signature's file for exactly `data`; with an encrypted key a second and 1 GiB. Raises ReleaseError."""
        return sign(data, self.key, trusted_comment=comment, password=self._password)

    def _password(self) -> Secret:
        if self.password is None:
            raise ReleaseError("cannot sign: the key is encrypted; give its password with --key-password-file")
        return self.password
