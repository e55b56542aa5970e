"""Which files of a state folder are carried to another machine, and the document that has them all."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.store.formats import EXPORT
from supervisor.store.records import INSTALL_BEFORE, INSTALL_FILE

FOLDERS = ("secrets", "release-keys")
"""Carried with all that is in them, and replaced as a whole."""
FILES = (INSTALL_BEFORE, "rescued-acme.json", INSTALL_FILE)
"""The record of the install comes last: where it is in place, all is."""
RELEASES = "releases"
OF_APP = ("state.json", "state.json.1", "history.jsonl", "sequences.json", "image.json")
"""What is carried of each app's releases."""
NOT_CARRIED = ("journal.json",)
"""What goes when an app's records are replaced: it is of an update here."""
MAX_FILES = 10_000
_MAX_PARTS, _MAX_NAME_BYTES = 6, 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Export:
    """A state folder's files by their paths in it; `at` is when they were read, in UTC, `by` the version that did."""

    install: str
    at: str
    by: str
    files: Mapping[str, bytes]

    def render(self) -> bytes:
        """As one JSON document."""
        files = [{"path": path, "base64": base64.b64encode(data).decode()} for path, data in sorted(self.files.items())]
        return EXPORT.text({"install": self.install, "at": self.at, "by": self.by, "files": files}).encode()

    @classmethod
    def parse(cls, document: bytes, place: object) -> Export:
        """Raises NewerFormat naming `place`, and ValueError, saying what is wrong; no path in it leads elsewhere."""
        try:
            values, _ = EXPORT.read(document, place)
            files = [_file(each) for each in values["files"]]
            made = cls(str(values["install"]), str(values["at"]), str(values["by"]), dict(files))
        except (KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise ValueError(f"it lacks or has what it should not: {error}") from None
        if len(made.files) != len(files) or len(files) > MAX_FILES:
            raise ValueError(f"it has a file twice, or more than {MAX_FILES:,}")
        if clash := next((path for path in made.files if _above(path) & made.files.keys()), ""):
            raise ValueError(f"it has {clash!r}, below a file of its own")
        return made


def _file(values: dict[str, Any]) -> tuple[str, bytes]:
    path = str(values["path"])
    if why := why_not_carried(path):
        raise ValueError(f"it has {path[:200]!r}, {why}")
    return path, base64.b64decode(values["base64"], validate=True)


def _above(path: str) -> set[str]:
    parts = path.split("/")
    return {"/".join(parts[:end]) for end in range(1, len(parts))}


def why_not_carried(path: str) -> str:
    """Why `path` is no part of an export, in words that follow its name; empty where it is."""
    parts = path.split("/")
    if len(parts) > _MAX_PARTS or not all(is_name(part) for part in parts):
        return "whose path is none of a state folder"
    match parts:
        case [name] if name in FILES:
            return ""
        case [folder, _, *_] if folder in FOLDERS:
            return ""
        case [folder, _, name] if folder == RELEASES and name in OF_APP:
            return ""
    return "which is no part of a state"


def is_name(part: str) -> bool:
    """Whether it can be carried: half-written files begin with a dot, and so do the ways out of a folder."""
    try:
        return part[:1] not in ("", ".") and len(part.encode()) <= _MAX_NAME_BYTES and not _CONTROL.search(part)
    except UnicodeEncodeError:
        return False
