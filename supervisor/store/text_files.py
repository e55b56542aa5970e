"""Small text files of the user's: read whole within a bound, or not at all."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

from dotenv.parser import parse_stream

# Both parsers take time by the square of what they are given; this much is read within a second.
MAX_BYTES = 64 * 1024

# A quote or a `=` that is missing makes a name of what may be a secret.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class UnreadableError(Exception):
    """Why a file cannot be used, and what to do: the end of a sentence that begins with its name."""


def read_text(path: str | Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a regular file. Raises UnreadableError; never waits, as a pipe would make it."""
    try:
        data = _read(path, max_bytes + 1)
    except OSError as error:
        raise UnreadableError(f"{error.strerror}; check its path and mode") from error
    except ValueError as error:
        raise UnreadableError("its name has a null byte; check its path") from error
    if len(data) > max_bytes:
        raise UnreadableError(f"it has more than {max_bytes // 1024} KiB; check that it is the right file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        # Without a cause: the error's own text would quote the bytes.
        raise UnreadableError("it is not UTF-8 text; save it as such") from None
    if "\0" in text:
        raise UnreadableError("it has a null byte; save it as text")
    return text


def _read(path: str | Path, most_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableError("it is no regular file; give the name of one")
        data = b""
        while len(data) < most_bytes and (block := os.read(descriptor, most_bytes - len(data))):
            data += block
        return data
    finally:
        os.close(descriptor)


def parse_env(text: str) -> dict[str, str]:
    """KEY=VALUE lines, quoted as in a shell, without substitution; the last of a key counts, and one without `=` not.

    Raises UnreadableError naming the first line that is none.
    """
    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and not _NAME.fullmatch(binding.key)):
            original = binding.original
            number = original.line + original.string.count("\n", 0, len(original.string) - 1)
            raise UnreadableError(f"line {number} is not KEY=VALUE; mend that line")
        if binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found
