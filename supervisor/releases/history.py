"""What was done: one line an update, never changed, each with the hash of the line before it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supervisor.releases.model import ReleaseError
from supervisor.store.files import sync_folder

FIRST = "0" * 64
"""What the first line has for the hash of the one before."""
_LAST_BYTES = 64 * 1024
_REASON_CHARS = 4000


@dataclass(frozen=True, kw_only=True)
class Line:
    """One update. `at` is in UTC, `outcome` one word (`ok`, `rejected`, `rolled_back`, `aborted`), `phases` are seconds
    by name; `digest` is the manifest's SHA-256 in hex, `key` the id of the key that signed it.
    """

    at: str
    actor: str
    action: str
    before: str
    release: str
    outcome: str
    reason: str = ""
    digest: str = ""
    key: str = ""
    transaction: str = ""
    phases: dict[str, float] = field(default_factory=dict)


class History:
    """`history.jsonl`. Methods block for some milliseconds (fsync); one writer at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: Line) -> None:
        """Durable once it returns. Raises OSError, with the file as it was; a part that a kill left is for `repair`."""
        new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            values = {**asdict(line), "reason": line.reason[:_REASON_CHARS]}
            record = {**values, "before_hash": _hash(_last_line(descriptor))}
            _append(descriptor, json.dumps(record, sort_keys=True).encode() + b"\n")
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self._path.parent)

    def repair(self) -> str:
        """Cut off a last line that a kill left torn; gives it, for whoever tells."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            size = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, _LAST_BYTES, max(0, size - _LAST_BYTES))
            torn = tail[tail.rfind(b"\n") + 1 :]
            if torn:
                os.ftruncate(descriptor, size - len(torn))
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return torn.decode(errors="replace")

    def read(self) -> list[Line]:
        """All lines, the oldest first; those that cannot be read are left out (`verify` tells of them)."""
        return [Line(**values) for values in self._values() if values is not None]

    def has(self, transaction: str) -> bool:
        """Whether this transaction's line is there."""
        return any(line.transaction == transaction for line in self.read())

    def verify(self) -> int:
        """How many lines there are. Raises ReleaseError naming the first that was changed, lost or added."""
        before = b""
        number = 0
        for number, line in enumerate(self._lines(), 1):
            if _parsed(line, keep_hash=True).get("before_hash") != _hash(before):
                raise ReleaseError(
                    f"cannot trust {str(self._path)!r}: line {number} does not follow the one before it; "
                    f"lines were changed or removed"
                )
            before = line
        return number

    def _values(self) -> Iterator[dict[str, Any] | None]:
        for line in self._lines():
            values = _parsed(line)
            yield values if set(values) >= _REQUIRED else None

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []


def _append(descriptor: int, data: bytes) -> None:
    """All of it, or nothing: the next line would be written into a part of this one."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


_FIELDS = frozenset(Line.__dataclass_fields__)
_REQUIRED = {"at", "actor", "action", "before", "release", "outcome"}


def _parsed(line: bytes, *, keep_hash: bool = False) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if name in _FIELDS or keep_hash}


def _last_line(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _LAST_BYTES, max(0, size - _LAST_BYTES))
    return tail.rstrip(b"\n").rpartition(b"\n")[2]


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest() if line else FIRST
