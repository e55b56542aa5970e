"""SCRAM-SHA-256 verifiers: what Postgres keeps of a password, computed here so that the password never travels. Pure.

RFC 5802, section 3, in the text form of Postgres (scram_build_secret in its src/common/scram-common.c).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from base64 import b64decode, b64encode

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret

_ITERATIONS = 4096
_SALT_BYTES = 16
_FORM = re.compile(r"SCRAM-SHA-256\$(\d+):([^$:]+)\$([^$:]+):([^$:]+)")


def make_verifier(password: Secret, *, salt: bytes | None = None, iterations: int = _ITERATIONS) -> str:
    """The verifier of a password, with a random salt; some milliseconds.

    Raises ConfigurationError for what Postgres or a client would change before hashing it (RFC 4013): other than ASCII.
    """
    text = password.reveal()
    if not text or not text.isascii() or "\0" in text:
        raise ConfigurationError(
            "cannot use this password for a role of Postgres: it must be of ASCII signs, at least one; choose another"
        )
    salt = os.urandom(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", text.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(iterations, *parts)


def fits(password: Secret, verifier: str) -> bool:
    """Whether a verifier, as pg_authid has it, is of this password; False for one of another kind (md5)."""
    found = _FORM.fullmatch(verifier)
    if found is None:
        return False
    return make_verifier(password, salt=b64decode(found[2]), iterations=int(found[1])) == verifier
