"""Where a release is read from: a file, what an http(s) address gives, or the standard input."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from supervisor.core.errors import ExitCode, SupervisorError

_BLOCK = 1024 * 1024
_FETCH_SECONDS = 60.0
_MANIFEST = "manifest.json"
_SIGNATURE = ".minisig"
_MAX_SMALL_BYTES = 1024 * 1024
_MAX_SIGNATURES = 16


class UnusableError(SupervisorError):
    """What was given cannot be read, or is not there."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Opened:
    """Something to read; `size` in bytes where it is known."""

    file: IO[bytes]
    shown: str
    size: int | None = None

    def blocks(self) -> Iterator[bytes]:
        """To its end. Raises UnusableError."""
        came = 0
        try:
            while block := self.file.read(_BLOCK):
                came += len(block)
                yield block
        except (OSError, http.client.HTTPException) as error:
            raise UnusableError(f"cannot read {self.shown}: {_why(error)}; send it again") from error
        if self.size is not None and came < self.size:
            raise UnusableError(
                f"cannot read {self.shown}: it ended after {came:,} of {self.size:,} bytes; send it again"
            )


@contextmanager
def opened(text: str) -> Iterator[Opened]:
    """Raises UnusableError."""
    if text == "-":
        yield Opened(sys.stdin.buffer, "the standard input")
        return
    try:
        file = _open(text)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnusableError(f"cannot read {_shown(text)}: {_why(error)}; check the name") from error
    with file:
        size = getattr(file, "length", None) if _is_address(text) else os.fstat(file.fileno()).st_size
        yield Opened(file, _shown(text), size)


def _open(text: str) -> IO[bytes]:
    if _is_address(text):
        return urllib.request.urlopen(text, timeout=_FETCH_SECONDS)  # type: ignore[no-any-return]  # noqa: S310
    return Path(text).open("rb")


def read(text: str) -> bytes:
    """All of something small. Raises UnusableError."""
    with opened(text) as found:
        data = b""
        for block in found.blocks():
            data += block
            if len(data) > _MAX_SMALL_BYTES:
                raise UnusableError(f"cannot read {found.shown}: it has more than {_MAX_SMALL_BYTES} bytes; check it")
    return data


def manifest_beside(archive: str) -> str:
    """Where the manifest of an archive is looked for."""
    if archive == "-":
        raise UnusableError("cannot apply what comes on the standard input without its manifest; give --manifest FILE")
    if _is_address(archive):
        parts = urlsplit(archive)
        return urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{_MANIFEST}"))
    return str(Path(archive).parent / _MANIFEST)


def signatures_beside(manifest: str) -> list[bytes]:
    """`NAME.minisig`, and in a folder also `NAME.<anything>.minisig` for several signers."""
    if manifest == "-":
        return []
    if _is_address(manifest):
        parts = urlsplit(manifest)
        try:
            return [read(urlunsplit(parts._replace(path=parts.path + _SIGNATURE)))]
        except UnusableError:
            return []
    place = Path(manifest)
    found = sorted(place.parent.glob(f"{place.name}*{_SIGNATURE}"))
    return [read(str(path)) for path in found[:_MAX_SIGNATURES]]


def is_of_older_kind(archive: str, manifest: str) -> bool:
    """A file without a manifest beside it; the supervisor says whether it accepts such."""
    return not _is_address(archive) and Path(archive).is_file() and not Path(manifest).exists()


def name_of(archive: str) -> str:
    """The file's own name."""
    path = urlsplit(archive).path if _is_address(archive) else archive
    return path.rpartition("/")[2]


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _shown(text: str) -> str:
    """An address without what may be secret in it."""
    if not _is_address(text):
        return repr(text)
    parts = urlsplit(text)
    return repr(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")))


def _why(error: Exception) -> str:
    """Never an exception's own text where that may quote the address."""
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None)
    return str(reason or type(error).__name__)
