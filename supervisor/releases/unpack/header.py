"""One header block of a tar stream, and the records of a pax header. Pure: bytes in, values out."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache

from supervisor.releases.unpack.refusal import BUILD_AGAIN, SEND_AGAIN, refusal

BLOCK_BYTES = 512
_FIELDS = struct.Struct("100s 8s 8x 8x 12s 12s 8s s 100s 8s 80x 155s 12x")
"""Name, mode, (owner, group,) size, time, checksum, type, target, magic with version, (owner, devices,) prefix."""
_BLANK_CHECKSUM = 8 * ord(" ")
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_SECONDS = re.compile(rb"(-?\d{1,18})(?:\.\d*)?\Z")
_SIZE = re.compile(rb"\d{1,18}\Z")


@dataclass(slots=True)
class Header:
    """The fields that count. Names are as they stand there, bytes of no known encoding."""

    name: bytes
    mode: int
    size: int
    mtime: int
    type: bytes
    target: bytes


def parse_header(block: bytes, where: str) -> Header:
    """Raises ReleaseError for a damaged block, an unknown format or a number that is none; `where` it is, in words."""
    name, mode, size, mtime, checksum, mark, target, magic, prefix = _FIELDS.unpack(block)
    if _number(checksum, "checksum", where) != _sum(block) - sum(checksum) + _BLANK_CHECKSUM:
        raise refusal(f"the checksum of the header {where} is wrong", SEND_AGAIN)
    if magic not in (_POSIX, _GNU):
        raise refusal(f"the header {where} is of no tar format that is read here", "pack it as pax, ustar or GNU tar")
    name = _text(name)
    if magic == _POSIX and (above := _text(prefix)):  # GNU has times in this place
        name = above + b"/" + name
    return Header(
        name=name,
        mode=_number(mode, "mode", where),
        size=_number(size, "size", where),
        mtime=_number(mtime, "time", where),
        type=mark,
        target=_text(target),
    )


def _sum(block: bytes) -> int:
    """Of its bytes, ten times as fast as by `sum`: the low half of an Adler-32 is one more than the sum, modulo 65521
    (RFC 1950), which 256 bytes do not reach.
    """
    half = BLOCK_BYTES // 2
    return (zlib.adler32(block[:half]) & 0xFFFF) + (zlib.adler32(block[half:]) & 0xFFFF) - 2


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str, where: str) -> int:
    number = _decoded(field)
    if number is None:
        raise refusal(f"the {what} in the header {where} is no number ({field!r})", SEND_AGAIN)
    return number


@lru_cache(maxsize=256)  # modes, times and many sizes are the same in most headers
def _decoded(field: bytes) -> int | None:
    """Octal digits, or the base-256 that GNU tar has for large and negative numbers; None for anything else."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    digits = _text(field).strip(b" ")
    return None if digits.strip(b"01234567") else int(digits or b"0", 8)


@dataclass(slots=True)
class Pax:
    """What a pax header says for the next entry; None where it says nothing."""

    path: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    mtime: int | None = None


def parse_pax(data: bytes, where: str) -> Pax:
    """Records of an extended header (POSIX pax, "length key=value\\n"); those that do not count here are left out."""
    pax = Pax()
    for key, value in _records(data, where):
        if key.startswith(b"GNU.sparse."):
            raise sparse(where)
        match key:
            case b"path":
                pax.path = value
            case b"linkpath":
                pax.target = value
            case b"size":
                pax.size = _pax_number(_SIZE, value, "size", where)
            case b"mtime":
                pax.mtime = _pax_number(_SECONDS, value, "mtime", where)
    return pax


def check_global_pax(data: bytes, where: str) -> None:
    """A header for all entries may hold a comment (git archive writes one), but nothing that changes them."""
    for key, _ in _records(data, where):
        if key != b"comment":
            raise refusal(f"the pax header for all entries {where} holds {key[:80]!r}", "pack it without")


def sparse(where: str) -> Exception:
    """The error for a file with holes, in any of its forms."""
    return refusal(f"{where} is a sparse file", "pack it without --sparse")


def _records(data: bytes, where: str) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 8].partition(b" ")
        end = at + int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if not at < end <= len(data) or data[end - 1 : end] != b"\n" or not (key and equals):
            raise refusal(f"the pax header {where} is damaged at its byte {at}", SEND_AGAIN)
        found.append((key, value))
        at = end
    return found


def _pax_number(pattern: re.Pattern[bytes], value: bytes, what: str, where: str) -> int | None:
    if not value:  # POSIX: as if it had not been given
        return None
    found = pattern.match(value)
    if found is None:
        raise refusal(f"the {what} in the pax header {where} is no number ({value[:80]!r})", BUILD_AGAIN)
    return int(found[1] if pattern is _SECONDS else found[0])
