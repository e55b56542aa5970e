"""Archives made byte by byte: `tarfile` would not write most of what a hostile one holds."""

from __future__ import annotations

import zlib

from backports import zstd

from supervisor.releases.model import Compression

POSIX = b"ustar\x0000"
GNU = b"ustar  \x00"
BLOCK = 512
RECORD = 10_240
END = bytes(2 * BLOCK)


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int = 12) -> bytes:
    """A number as GNU tar writes those that do not fit, negative ones too."""
    if value < 0:
        return b"\xff" + (value + (1 << 8 * (width - 1))).to_bytes(width - 1, "big")
    return b"\x80" + value.to_bytes(width - 1, "big")


def header(
    name: str | bytes,
    *,
    type: bytes = b"0",
    size: int | bytes = 0,
    mode: int = 0o644,
    mtime: int | bytes = 0,
    target: str | bytes = "",
    magic: bytes = POSIX,
    prefix: bytes = b"",
) -> bytes:
    """One header block with the right checksum; `size` and `mtime` as bytes are put in as they are."""
    fields = b"".join(
        (
            raw(name).ljust(100, b"\0"),
            octal(mode, 8),
            octal(0, 8),
            octal(0, 8),
            size if isinstance(size, bytes) else octal(size, 12),
            mtime if isinstance(mtime, bytes) else octal(mtime, 12),
            b" " * 8,
            type,
            raw(target).ljust(100, b"\0"),
            magic,
            bytes(32 + 32 + 8 + 8),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    assert len(fields) == BLOCK, len(fields)
    return signed(fields)


def signed(block: bytes) -> bytes:
    """The block with the checksum that it should have."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def raw(name: str | bytes) -> bytes:
    return name.encode() if isinstance(name, str) else name


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: str, content: bytes = b"content\n", *, mode: int = 0o644, mtime: int = 0) -> bytes:
    return header(name, size=len(content), mode=mode, mtime=mtime) + padded(content)


def folder(name: str) -> bytes:
    return header(name if name.endswith("/") else f"{name}/", type=b"5", mode=0o755)


def link(name: str, target: str) -> bytes:
    return header(name, type=b"2", target=target, mode=0o777)


def hard_link(name: str, target: str) -> bytes:
    return header(name, type=b"1", target=target)


def record(key: str | bytes, value: str | bytes) -> bytes:
    """One record of a pax header; its length counts itself."""
    rest = b" " + raw(key) + b"=" + raw(value) + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest


def pax(*records: bytes, type: bytes = b"x") -> bytes:
    data = b"".join(records)
    return header("PaxHeaders/x", type=type, size=len(data)) + padded(data)


def pax_file(path: str | bytes, content: bytes = b"content\n", *more: bytes) -> bytes:
    return pax(record("path", path), *more) + file("app/short", content)


def gnu_long(type: bytes, name: str | bytes) -> bytes:
    data = raw(name) + b"\0"
    return header("././@LongLink", type=type, size=len(data), magic=GNU) + padded(data)


def tar(*parts: bytes) -> bytes:
    """Entries with the end mark, filled up to the record."""
    stream = b"".join(parts) + END
    return stream + bytes(-len(stream) % RECORD)


def pack(stream: bytes, compression: Compression = Compression.ZSTD) -> bytes:
    if compression is Compression.ZSTD:
        return zstd.compress(stream, options={zstd.CompressionParameter.checksum_flag: 1})
    squeeze = zlib.compressobj(wbits=31)
    return squeeze.compress(stream) + squeeze.flush()


def archive(*parts: bytes, compression: Compression = Compression.ZSTD) -> bytes:
    """A whole archive file."""
    return pack(tar(*parts), compression)
