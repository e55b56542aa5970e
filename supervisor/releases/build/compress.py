"""How an archive is packed, so that the same input gives the same bytes."""

from __future__ import annotations

import zlib
from typing import Protocol

from supervisor.releases import zstd
from supervisor.releases.model import Compression

SUFFIX = {Compression.ZSTD: ".tar.zst", Compression.GZIP: ".tar.gz"}
_ZSTD_LEVEL = 10
"""Its window is 4 MiB at most, far below the 128 MiB (2^27) above which readers refuse unless told otherwise."""
_GZIP_LEVEL = 6
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Compressor(Protocol):
    """Packs a stream piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """What there is to write by now, often nothing."""

    def flush(self) -> bytes:
        """The rest; nothing may follow."""


def compressor(compression: Compression, total: int) -> Compressor:
    """For a stream of exactly `total` bytes. One thread: with more of them zstd's bytes are others."""
    if compression is Compression.GZIP:
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)  # zlib's own head has no name and no time
    made = zstd.ZstdCompressor(
        options={
            zstd.CompressionParameter.compression_level: _ZSTD_LEVEL,
            zstd.CompressionParameter.checksum_flag: 1,
            zstd.CompressionParameter.content_size_flag: 1,
        }
    )
    made.set_pledged_input_size(total)
    return _Zstd(made)


class _Zstd:
    def __init__(self, made: zstd.ZstdCompressor) -> None:
        self._made = made

    def compress(self, data: bytes, /) -> bytes:
        return self._made.compress(data)

    def flush(self) -> bytes:
        return self._made.flush()
