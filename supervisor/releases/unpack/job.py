"""What the child is told, and what it answers once it is through; both as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from supervisor.releases.model import Compression
from supervisor.releases.unpack.limits import Limits


@dataclass(frozen=True)
class Job:
    """`destination` must not be there yet, its parent must. `size` and `sha256` (hex) are those of the archive file.

    `parent` is the process to die with. With `case_insensitive` names that differ by case or composition only are
    duplicates too. `mtime` is the time that all files are given (seconds since the epoch), None: as the archive says.
    """

    archive: str
    size: int
    sha256: str
    compression: Compression
    destination: str
    limits: Limits
    parent: int
    case_insensitive: bool = False
    mtime: int | None = None

    def as_json(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, data: bytes) -> Job:
        """The inverse; what comes from nobody but the parent is not doubted."""
        values = json.loads(data)
        values["compression"] = Compression(values["compression"])
        values["limits"] = Limits(**values["limits"])
        return cls(**values)


@dataclass(frozen=True)
class Extracted:
    """A tree that was made whole: its entries, the bytes of its files, its `tree_digest`.

    `sha256` is that of the archive file as it was read. `info` is the text of `deployment-info.json`, a JSON object in
    ASCII, or empty.
    """

    entries: int
    bytes: int
    digest: str
    sha256: str
    info: str = ""
