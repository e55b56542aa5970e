"""The sealed file: what a passphrase closes and opens. Only commands import this: the library takes some 9 MB.

bytes  what
8      `SUPSTATE`
1      version of this layout, 1
1      N of scrypt (RFC 7914) as a power of two; r is 8, p is 1
16     salt of scrypt
12     nonce of AES-256-GCM
8      length of the sealed content in bytes, big-endian
32     HMAC-SHA-256 of all bytes above, with the second half of scrypt's 64 bytes
...    the content, by AES-256-GCM with the first half; the header (all above) is its associated data
16     the tag of AES-256-GCM, as its last bytes
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from supervisor.core.secret import Secret

MAX_BYTES = 64 * 1024 * 1024
"""Of a sealed file."""
MAGIC = b"SUPSTATE"
_VERSION = 1
_COST = 17
"""128 MiB and some 0.4 s for each guess: what OWASP asks of scrypt as of 2026."""
_LOWEST_COST, _HIGHEST_COST = 14, 18
"""What is read: a file of somebody else must not take more than 256 MiB."""
_R, _P = 8, 1
_KEY_BYTES, _TAG_BYTES = 32, 16
_FIELDS = struct.Struct(">8sBB16s12sQ")
_MAC_BYTES = 32
_HEADER_BYTES = _FIELDS.size + _MAC_BYTES
OVERHEAD_BYTES = _HEADER_BYTES + _TAG_BYTES


def seal(content: bytes, passphrase: Secret, *, cost: int = _COST) -> bytes:
    """The file for `content`; blocks while the key is made. The salt is new each time, and with it the key."""
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    key, mac_key = _keys(passphrase, salt, cost)
    fields = _FIELDS.pack(MAGIC, _VERSION, cost, salt, nonce, len(content) + _TAG_BYTES)
    header = fields + _mac(mac_key, fields)
    return header + AESGCM(key).encrypt(nonce, content, header)


def unseal(file: bytes, passphrase: Secret) -> bytes:
    """The content. Raises ValueError, saying why it cannot be had."""
    check(file)
    _, _, cost, salt, nonce, _ = _FIELDS.unpack_from(file)
    header, content = file[:_HEADER_BYTES], file[_HEADER_BYTES:]
    key, mac_key = _keys(passphrase, salt, cost)
    if not hmac.compare_digest(_mac(mac_key, header[: _FIELDS.size]), header[_FIELDS.size :]):
        raise ValueError("the passphrase is not the one it was sealed with, or its first bytes were changed")
    try:
        return AESGCM(key).decrypt(nonce, content, header)
    except InvalidTag:
        raise ValueError("it was changed since it was made; take another copy of it") from None


def check(file: bytes) -> None:
    """All that can be said without the passphrase. Raises ValueError, saying why it cannot be opened."""
    if not file.startswith(MAGIC):
        raise ValueError("it was not made by `supervisor state export`")
    if len(file) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    if len(file) < OVERHEAD_BYTES:
        raise ValueError("its end is missing; copy it again")
    _, version, cost, _, _, length = _FIELDS.unpack_from(file)
    if version != _VERSION:
        raise ValueError(
            f"it was sealed by a newer version (layout {version}, this one knows {_VERSION}); update the supervisor"
        )
    if not _LOWEST_COST <= cost <= _HIGHEST_COST:
        raise ValueError(f"its cost of scrypt is {cost}, and {_LOWEST_COST} to {_HIGHEST_COST} are accepted")
    if len(file) < _HEADER_BYTES + length:
        raise ValueError(f"its end is missing: {_HEADER_BYTES + length - len(file):,} bytes; copy it again")
    if len(file) > _HEADER_BYTES + length:
        raise ValueError(f"it has {len(file) - _HEADER_BYTES - length:,} bytes too many; copy it again")


def _keys(passphrase: Secret, salt: bytes, cost: int) -> tuple[bytes, bytes]:
    try:
        made = Scrypt(salt=salt, length=2 * _KEY_BYTES, n=1 << cost, r=_R, p=_P).derive(passphrase.reveal().encode())
    except MemoryError:
        raise ValueError(f"scrypt needs {(128 * _R << cost) >> 20} MiB of memory for it; give more") from None
    return made[:_KEY_BYTES], made[_KEY_BYTES:]


def _mac(key: bytes, fields: bytes) -> bytes:
    return hmac.new(key, fields, hashlib.sha256).digest()
