"""What an archive may hold, decided entry by entry before anything of it is written. Pure."""

from __future__ import annotations

import unicodedata

from supervisor.releases.model import Entry, Kind, why_bad_path
from supervisor.releases.tree import RECORDS
from supervisor.releases.unpack.limits import Limits
from supervisor.releases.unpack.refusal import refusal, shown

TOP = "app"
"""The folder of the archive that holds the tree."""
INFO = "deployment-info.json"
"""May lie beside it: the original's archives say in it what they are."""


ABOVE = "./"
"""The folder above both, as `tar .` names it."""


def bare_name(name: str, *, folder: bool) -> str:
    """A member's name without the `./` that `tar .` puts before it and the `/` behind a folder's."""
    if name in (".", ABOVE):
        return ABOVE
    bare = name.removeprefix(ABOVE)
    return bare[:-1] if folder and bare.endswith("/") else bare


def tree_path(bare: str) -> str:
    """The path within the tree that a bare name stands for; empty for the tree itself. Raises ReleaseError."""
    if bare == TOP:
        return ""
    path = bare.removeprefix(f"{TOP}/")
    if why := why_bad_path(path):
        raise refusal(f"the entry {shown(bare)} {why}", "rename it or leave it out of the release")
    if path == bare:
        raise refusal(f"the entry {shown(bare)} is not below {TOP!r}/")
    return path


class Contents:
    """The entries so far. Each `admit_` either raises ReleaseError or gives the folders to make first, in order.

    A folder may come after what lies in it; any other name comes once.
    """

    def __init__(self, limits: Limits, *, case_insensitive: bool) -> None:
        self._limits = limits
        self._case_insensitive = case_insensitive
        self._implied: set[str] = set()
        self._folded: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        self.bytes = 0

    def admit_folder(self, path: str) -> list[str]:
        """The folder itself is the last of those to make, unless it is there already."""
        if path in self._implied:
            self._implied.discard(path)
            return []
        missing = self._admit(path)
        self.entries[path] = Entry(path, Kind.FOLDER)
        return [*missing, path]

    def admit_link(self, path: str, target: str) -> list[str]:
        """Where it leads is decided when all links are known."""
        missing = self._admit(path)
        self.entries[path] = Entry(path, Kind.LINK, target)
        return missing

    def admit_file(self, path: str, size: int) -> list[str]:
        """To be followed by `add_file` once it is written."""
        if self.bytes + size > self._limits.bytes:
            raise refusal(
                f"its files have more than {self._limits.bytes} bytes, which are all that its manifest or the settings "
                f"allow, at the entry {shown(path)} of {size}"
            )
        return self._admit(path)

    def add_file(self, path: str, digest: str, size: int, *, executable: bool) -> None:
        """A file that was admitted is written."""
        self.entries[path] = Entry(path, Kind.FILE, digest, size, executable)
        self.bytes += size

    def file(self, path: str, *, of: str) -> Entry:
        """The earlier file that the hard link `of` is to be a copy of."""
        found = self.entries.get(path)
        if found is None or found.kind is not Kind.FILE:
            what = "is not an earlier file of it" if found is None else f"is a {found.kind}"
            raise refusal(f"the hard link {shown(of)} leads to {shown(path)}, which {what}")
        return found

    def _admit(self, path: str) -> list[str]:
        missing = self._missing_above(path)
        for folder in missing:
            self._check_new(folder)
            self.entries[folder] = Entry(folder, Kind.FOLDER)
            self._implied.add(folder)
        self._check_new(path)
        return missing

    def _missing_above(self, path: str) -> list[str]:
        missing: list[str] = []
        above = path.rpartition("/")[0]
        while above:
            found = self.entries.get(above)
            if found is None:
                missing.append(above)
                above = above.rpartition("/")[0]
                continue
            if found.kind is not Kind.FOLDER:
                raise refusal(f"the entry {shown(path)} lies below {shown(above)}, which is a {found.kind}")
            break
        missing.reverse()
        return missing

    def _check_new(self, path: str) -> None:
        if path in self.entries:
            raise refusal(f"the entry {shown(path)} is in it twice")
        folded = _fold(path) if self._case_insensitive else path
        if folded == RECORDS:
            raise refusal(f"the entry {shown(path)} has the name of our own records", "leave it out of the release")
        if len(self.entries) >= self._limits.entries:
            raise refusal(
                f"it has more than {self._limits.entries} entries, which are all that its manifest or the settings "
                f"allow, at the entry {shown(path)}"
            )
        if self._case_insensitive:
            twin = self._folded.setdefault(folded, path)
            if twin != path:
                raise refusal(
                    f"the entries {shown(twin)} and {shown(path)} are one on a filesystem without case", "rename one"
                )


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
