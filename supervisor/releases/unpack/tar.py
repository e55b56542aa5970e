"""A tar stream to its members: ustar, pax and GNU long names, read once, everything in it bounded.

The standard library's reader is not used: it keeps what a pax header announces, however much that is, and passes over
what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from supervisor.releases.unpack.header import (
    BLOCK_BYTES,
    Header,
    Pax,
    check_global_pax,
    parse_header,
    parse_pax,
    sparse,
)
from supervisor.releases.unpack.refusal import SEND_AGAIN, refusal, shown
from supervisor.releases.unpack.stream import Stream

MAX_HEADER_BYTES = 64 * 1024
RECORD_BYTES = 10_240
"""What most programs fill the stream's end up to with zeros."""
_ZEROS = bytes(BLOCK_BYTES)
_NOT_TAKEN = {
    b"3": "a device",
    b"4": "a device",
    b"6": "a fifo",
    b"7": "a contiguous file",
    b"s": "a socket",
    b"D": "a folder of an incremental archive",
    b"M": "a part of a file that began on another volume",
    b"V": "a volume's label",
}


class Type(StrEnum):
    """What a member is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "symbolic link"
    HARD_LINK = "hard link"


_TYPES = {b"0": Type.FILE, b"\0": Type.FILE, b"5": Type.FOLDER, b"2": Type.LINK, b"1": Type.HARD_LINK}


@dataclass(slots=True)
class Member:
    """One entry as the archive has it, nothing of it trusted. `mtime` in seconds, may be negative."""

    name: str
    type: Type
    size: int
    executable: bool
    mtime: int
    target: str


@dataclass(slots=True)
class _Before:
    """What extra headers said before an entry's own."""

    pax: Pax | None = None
    name: bytes | None = None
    target: bytes | None = None

    @property
    def any(self) -> bool:
        return not (self.pax is None and self.name is None and self.target is None)


class TarReader:
    """Members in order; the contents of the one in hand are read with `content`, or passed over."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0
        self._name = ""

    def members(self) -> Iterator[Member]:
        """Up to the end, which is checked: two blocks of zeros, then zeros only, no further than the record goes."""
        while (member := self._next()) is not None:
            self._left, self._name = member.size, member.name
            yield member
            if self._left:
                for _ in self.content():
                    pass
            self._stream.take(-member.size % BLOCK_BYTES, "the entry", member.name)
        self._end()

    def whole(self) -> memoryview | None:
        """All of the contents where they are at hand, as of most files; None where `content` is to be asked."""
        found = self._stream.whole(self._left)
        if found is not None:
            self._left = 0
        return found

    def content(self) -> Iterator[memoryview]:
        """What is left of the contents, in pieces, each good until the next."""
        for piece in self._stream.pieces(self._left, "the entry", self._name):
            self._left -= len(piece)
            yield piece

    def _next(self) -> Member | None:
        before = _Before()
        while True:
            where = f"at byte {self._stream.offset} of the stream"
            block = self._stream.take(BLOCK_BYTES, "a header, with no end mark before")
            if block == _ZEROS:
                if before.any:
                    raise refusal(f"it ends where an entry was announced, {where}", SEND_AGAIN)
                return None
            header = parse_header(block, where)
            if header.type not in b"xgLK":
                return _member(header, before, where)
            self._note(header, before, where)

    def _note(self, header: Header, before: _Before, where: str) -> None:
        """Take an extra header in. Two of a kind, or pax beside GNU's, would be read differently by every program."""
        if not 0 <= header.size <= MAX_HEADER_BYTES:
            raise refusal(f"the extra header {where} has {header.size} bytes, {MAX_HEADER_BYTES} are allowed")
        data = self._stream.take(header.size, f"the extra header {where}")
        self._stream.take(-header.size % BLOCK_BYTES, f"the extra header {where}")
        match header.type:
            case b"x" if not before.any:
                before.pax = parse_pax(data, where)
            case b"g" if not before.any:
                check_global_pax(data, where)
            case b"L" if before.pax is None and before.name is None:
                before.name = _long_name(data, where)
            case b"K" if before.pax is None and before.target is None:
                before.target = _long_name(data, where)
            case _:
                raise refusal(f"an entry has two extra headers that contradict each other, {where}")

    def _end(self) -> None:
        if self._stream.take(BLOCK_BYTES, "its end mark") != _ZEROS:
            raise refusal(f"its end mark is one block of zeros, not two, at byte {self._stream.offset} of the stream")
        spare = -self._stream.offset % RECORD_BYTES
        for piece in self._stream.rest():
            spare -= len(piece)
            if spare < 0 or any(piece):
                raise refusal(f"there are data behind its end mark, before byte {self._stream.offset} of the stream")


def _long_name(data: bytes, where: str) -> bytes:
    name, _, rest = data.partition(b"\0")
    if rest.strip(b"\0"):
        raise refusal(f"the long name {where} goes on behind its end")
    return name


def _member(header: Header, before: _Before, where: str) -> Member:
    pax = before.pax or Pax()
    name = _decode(pax.path or before.name or header.name)
    member = Member(
        name=name,
        type=_type(header.type, name, where),
        size=header.size if pax.size is None else pax.size,
        executable=bool(header.mode & 0o100),
        mtime=header.mtime if pax.mtime is None else pax.mtime,
        target=_decode(pax.target or before.target or header.target),
    )
    if member.size < 0:
        raise refusal(f"the entry {shown(name)} has a negative size, {where}")
    if member.size and member.type is not Type.FILE:
        raise refusal(f"the entry {shown(name)} is a {member.type} and has contents, {where}")
    return member


def _type(mark: bytes, name: str, where: str) -> Type:
    if mark == b"S":
        raise sparse(f"the entry {shown(name)}")
    found = _TYPES.get(mark)
    if found is None:
        what = _NOT_TAKEN.get(mark, f"of the unknown type {mark!r}")
        raise refusal(f"the entry {shown(name)} is {what}, {where}", "leave it out of the release")
    return found


def _decode(name: bytes) -> str:
    """As the system's calls take it: UTF-8, and what is none in surrogate escapes."""
    return name.decode("utf-8", "surrogateescape")
