"""An archive file to the stream that is in it: gzip or zstd, bounded in window, ratio and length."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Generator, Iterator

from supervisor.releases.model import Compression
from supervisor.releases.unpack.limits import MIB
from supervisor.releases.unpack.refusal import BUILD_AGAIN, SEND_AGAIN, refusal
from supervisor.releases.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

MAX_WINDOW_LOG = 27
MAX_RATIO = 200
RATIO_FREE_BYTES = 16 * MIB
MAX_FRAMES = 4096
"""Of zstd; pzstd makes one for each few MiB."""
_READ_BYTES = 256 * 1024
_CHUNK_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f, RFC 8878 section 3.1.2


class Source:
    """The archive file, read once from its start to its end, hashed on the way. Closed by `close`.

    Raises OSError where it cannot be opened; a link is not followed.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._digest = hashlib.sha256()
        self.offset = 0

    @property
    def size(self) -> int:
        """Of the file as it is now; refused where it is no regular file."""
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise refusal("it is no regular file", "give the path of the archive itself")
        return status.st_size

    @property
    def sha256(self) -> str:
        """Hex, of what was read so far."""
        return self._digest.hexdigest()

    def read(self) -> bytes:
        """The next bytes, none at the end."""
        data = os.read(self._descriptor, _READ_BYTES)
        self._digest.update(data)
        self.offset += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def decompress(source: Source, compression: Compression, *, max_bytes: int) -> Iterator[bytes]:
    """The unpacked stream in pieces of 1 MiB at most. Read to its end it has also proved that of the file."""
    made = 0
    for chunk in _gunzip(source) if compression is Compression.GZIP else _unzstd(source):
        made += len(chunk)
        if made > max_bytes:
            raise refusal(
                f"it unpacks to more than the {max_bytes} bytes that its manifest or the settings allow, "
                f"at byte {source.offset} of the file"
            )
        if made > RATIO_FREE_BYTES and made > MAX_RATIO * source.offset:
            raise refusal(
                f"it unpacks to more than {MAX_RATIO} times its size: {made} bytes by byte {source.offset} of the file",
                "leave the file that is nearly all the same bytes out of the release",
            )
        yield chunk


def _gunzip(source: Source) -> Iterator[bytes]:
    data = _start(source, len(_GZIP_MAGIC))
    if not data.startswith(_GZIP_MAGIC):
        raise refusal("it is not packed with gzip, as its manifest or its name says", BUILD_AGAIN)
    inflate = zlib.decompressobj(wbits=31)
    while not inflate.eof:
        try:
            chunk = inflate.decompress(data, _CHUNK_BYTES)
        except zlib.error as error:
            raise _damaged(source, str(error)) from None
        if chunk:
            yield chunk
        if not inflate.eof:
            data = inflate.unconsumed_tail or _more(source)
    rest = inflate.unused_data
    while rest:
        if rest.strip(b"\0"):
            raise _behind(source)
        rest = source.read()


def _unzstd(source: Source) -> Iterator[bytes]:
    data = _start(source, len(_ZSTD_MAGIC))
    if not _starts_frame(data):
        raise refusal("it is not packed with zstd, as its manifest or its name says", BUILD_AGAIN)
    frames = 0
    while data:
        frames += 1
        if frames > MAX_FRAMES:
            raise refusal(f"it has more than {MAX_FRAMES} zstd frames", "pack it in one")
        rest = yield from _frame(source, data)
        data = _start(source, len(_ZSTD_MAGIC), rest)
        if data and not _starts_frame(data):
            raise _behind(source)


def _frame(source: Source, data: bytes) -> Generator[bytes, None, bytes]:
    """One frame; returns what is behind it of the bytes that were read."""
    decoder = ZstdDecompressor(options={DecompressionParameter.window_log_max: MAX_WINDOW_LOG})
    while True:
        try:
            chunk = decoder.decompress(data, _CHUNK_BYTES)
        except ZstdError as error:
            raise _not_decoded(source, str(error)) from None
        if chunk:
            yield chunk
        if decoder.eof:
            return decoder.unused_data
        data = _more(source) if decoder.needs_input else b""


def _starts_frame(data: bytes) -> bool:
    return data.startswith(_ZSTD_MAGIC) or (data[0] & 0xF0 == 0x50 and data[1:4] == _SKIPPABLE_MAGIC)


def _start(source: Source, count: int, data: bytes = b"") -> bytes:
    """At least `count` bytes, fewer only at the end of the file."""
    while len(data) < count and (more := source.read()):
        data += more
    if not source.offset:
        raise refusal("it is empty", SEND_AGAIN)
    return data


def _more(source: Source) -> bytes:
    data = source.read()
    if not data:
        raise refusal(f"it is cut off: the file ends at byte {source.offset}, before its packed data do", SEND_AGAIN)
    return data


def _not_decoded(source: Source, why: str) -> Exception:
    # The library has no codes for these two.
    if "not enough memory" in why:
        return MemoryError(why)
    if "too much memory" in why:
        return refusal(
            f"its zstd window is larger than {1 << (MAX_WINDOW_LOG - 20)} MiB, at byte {source.offset} of the file",
            f"pack it with --long={MAX_WINDOW_LOG} or less",
        )
    return _damaged(source, why.removeprefix("Unable to decompress Zstandard data: "))


def _damaged(source: Source, why: str) -> Exception:
    return refusal(f"its packed data are damaged at or before byte {source.offset} of the file ({why})", SEND_AGAIN)


def _behind(source: Source) -> Exception:
    return refusal(f"it goes on behind the end of its packed data, before byte {source.offset} of the file")
