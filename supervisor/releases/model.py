"""Words that all of the room uses: the error, what an archive holds, and the id of a release."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.core.errors import ExitCode, SupervisorError

BAKED = "baked"
"""The id of release 0: the app of the image itself."""
MAX_PATH_BYTES, MAX_NAME_BYTES, MAX_DEPTH = 1024, 255, 64
_DRIVE = re.compile(r"[A-Za-z]:")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}-[0-9a-f]{12}\Z")


class ReleaseError(SupervisorError):
    """A release was not built, not accepted or not applied; what served before still does. Says what to do."""

    exit_code = ExitCode.REJECTED


class Compression(StrEnum):
    """How an archive is packed."""

    ZSTD = "zstd"
    GZIP = "gzip"


class Kind(StrEnum):
    """What an entry of a tree is; there is nothing else in one."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"


@dataclass(frozen=True, order=True, slots=True)
class Entry:
    """One entry of a tree. `path` is relative, with `/`, without `.` and `..`, in UTF-8 or surrogate escapes.

    `content` is a file's SHA-256 in hex, or a link's target as it is written; empty for a folder. `size` is a file's,
    in bytes. Of modes only whether a file is executable counts: 0755 or 0644 it is, and a folder 0755.
    """

    path: str
    kind: Kind
    content: str = ""
    size: int = 0
    executable: bool = False


def of_disk(error: OSError, place: Path | None = None) -> str:
    """What the system says of a file (or else `place`), and what to do."""
    what = error.filename or place
    where = f" {str(what)!r}" if what else " there"
    return f"cannot use{where}: {(error.strerror or str(error)).lower()}; make room there, or mend that place"


def why_bad_path(path: str) -> str:
    """Why `path` may not name an entry of a tree, in words that follow its name; empty where it may."""
    parts = path.split("/")
    if not path or path.startswith("/"):
        return "is empty or absolute"
    if "" in parts or "." in parts or ".." in parts:
        return "has an empty part, `.` or `..`"
    if "\0" in path:
        return "has a NUL"
    if _DRIVE.match(path) or "\\" in parts[0]:
        return "is a Windows path"
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return f"is longer than {MAX_PATH_BYTES} bytes, or deeper than {MAX_DEPTH} folders"
    # Asked of each entry: no part is longer than the whole.
    if length > MAX_NAME_BYTES and any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        return f"has a part of more than {MAX_NAME_BYTES} bytes"
    return ""


def release_id(version: str, manifest_digest: str) -> str:
    """The name of a release's folder: its version, and the first 12 digits of its manifest's SHA-256 (hex)."""
    made = f"{version}-{manifest_digest[:12]}"
    if not is_release_id(made):
        raise ReleaseError(
            f"cannot name a release of version {version!r}: give it 80 letters, digits and . _ + - at most, "
            f"beginning with a letter or digit"
        )
    return made


def is_release_id(text: str) -> bool:
    """Whether `text` can be the name of a release's folder (`BAKED` has none)."""
    return _ID.match(text) is not None
