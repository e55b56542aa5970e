"""What goes into a release: the entries of an app's folder, in the archive's order, or all that stands in the way."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.releases.build.ignore import RULES_FILE, Rules, Verdict, default_rules, is_never_taken
from supervisor.releases.build.links import bad_links
from supervisor.releases.build.refusal import refusal
from supervisor.releases.model import Entry, Kind, ReleaseError, why_bad_path
from supervisor.releases.unpack.limits import MAX_ENTRIES

_LEAVE = f"or name it in {RULES_FILE}"


@dataclass(frozen=True)
class Collected:
    """`entries` in the order of their paths' bytes; of files the content is not known yet. `left_out` counts a folder
    once, `secrets` are those of them that were left out by a rule nobody wrote."""

    entries: tuple[Entry, ...]
    left_out: int = 0
    secrets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def collect(
    root: Path, *, output: Path | None = None, private: Mapping[str, Path] | None = None, needed: Iterable[str] = ()
) -> Collected:
    """Look through `root`; no file is read but the rules.

    `output` (the folder the release is written to) is left out, `private` files (what each is, and where) may not be
    among the entries, `needed` paths must be. Raises ReleaseError with all that is wrong.
    """
    _check_folder(root)
    walk = _Walk(output=_below(root, output))
    walk.folder(root, "", default_rules())
    entries = sorted(walk.entries, key=lambda entry: os.fsencode(entry.path))
    mistakes = [*walk.mistakes, *_bad_links(entries), *_exposed(root, entries, private or {})]
    mistakes += _missing(root, entries, needed)
    if len(entries) > MAX_ENTRIES:
        mistakes.append(f"there are {len(entries)} files and folders, more than {MAX_ENTRIES}; leave some out")
    if not entries and not mistakes:
        mistakes.append(f"it has nothing to take; check its {RULES_FILE}, or name another folder")
    if mistakes:
        raise refusal(f"build a release of {str(root)!r}", mistakes)
    return Collected(tuple(entries), walk.left_out, tuple(walk.secrets), tuple(walk.warnings))


def _check_folder(root: Path) -> None:
    if not os.path.lexists(root):
        raise ReleaseError(f"cannot build a release of {str(root)!r}: there is no such folder; name the app's folder")
    if not os.path.isdir(root):
        raise ReleaseError(f"cannot build a release of {str(root)!r}: it is no folder; name the app's folder")


@dataclass
class _Walk:
    output: str | None
    entries: list[Entry] = field(default_factory=list)
    left_out: int = 0
    secrets: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def folder(self, place: Path, above: str, rules: Rules) -> None:
        """Take what is in one folder, and below it."""
        try:
            with os.scandir(place) as found:
                listed = sorted(found, key=lambda item: os.fsencode(item.name))
        except OSError as error:
            self.mistakes.append(
                f"{above.rstrip('/') or '.'!r} cannot be listed ({error.strerror}); make it readable, {_LEAVE}"
            )
            return
        rules = self._with_file(place, above, listed, rules)
        taken = [item for item in listed if self._is_taken(item, above, rules)]
        self.warnings += _twins(above, [item.name for item in taken])
        for item in taken:
            path = above + item.name
            if self._take(item, path) and item.is_dir(follow_symlinks=False):
                self.folder(Path(item.path), f"{path}/", rules)

    def _with_file(self, place: Path, above: str, listed: Sequence[os.DirEntry[str]], rules: Rules) -> Rules:
        if not any(item.name == RULES_FILE for item in listed):
            return rules
        name = above + RULES_FILE
        try:
            if (place / RULES_FILE).is_symlink():
                raise ValueError("it is a link; put a file in its place")
            return rules.joined(os.fsdecode((place / RULES_FILE).read_bytes()), above)
        except OSError as error:
            self.mistakes.append(f"{name!r} cannot be read ({error.strerror}); make it a readable file")
        except ValueError as error:
            self.mistakes.append(f"{name!r} cannot be used: {error}; write it as in .gitignore")
        return rules

    def _is_taken(self, item: os.DirEntry[str], above: str, rules: Rules) -> bool:
        path = above + item.name
        if is_never_taken(path) or path == self.output:
            return False
        verdict = rules.verdict(path, is_folder=item.is_dir(follow_symlinks=False))
        if verdict is Verdict.TAKEN:
            return True
        self.left_out += 1
        if verdict is Verdict.SECRET:
            self.secrets.append(path)
        return False

    def _take(self, item: os.DirEntry[str], path: str) -> bool:
        if why := why_bad_path(path):
            self.mistakes.append(f"{path!r} {why}; rename it, {_LEAVE}")
            return False
        try:
            entry = _entry(item, path)
        except OSError as error:
            self.mistakes.append(f"{path!r} cannot be read ({error.strerror}); make it readable, {_LEAVE}")
        except ReleaseError as error:
            self.mistakes.append(str(error))
        else:
            self.entries.append(entry)
            return True
        return False


def _entry(item: os.DirEntry[str], path: str) -> Entry:
    status = item.stat(follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, Kind.FOLDER)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, Kind.LINK, os.readlink(item.path))
    if not stat.S_ISREG(status.st_mode):
        raise ReleaseError(f"{path!r} is {_kind_of(status.st_mode)}; remove it, {_LEAVE}")
    if not os.access(item.path, os.R_OK):
        raise ReleaseError(f"{path!r} cannot be read; make it readable for uid {os.geteuid()}, {_LEAVE}")
    return Entry(path, Kind.FILE, size=status.st_size, executable=bool(status.st_mode & stat.S_IXUSR))


def _kind_of(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a fifo"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _twins(above: str, names: Iterable[str]) -> list[str]:
    """Names that are one on a filesystem that knows no case; ours does, a developer's may not."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFC", name).casefold()].append(above + name)
    return [f"{' and '.join(map(repr, paths))} differ in case only" for paths in alike.values() if len(paths) > 1]


def _bad_links(entries: Sequence[Entry]) -> list[str]:
    return [f"link {entry.path!r} to {entry.content!r} {why}, {_LEAVE}" for entry, why in bad_links(entries)]


def _exposed(root: Path, entries: Sequence[Entry], private: Mapping[str, Path]) -> list[str]:
    places = {_below(root, place): what for what, place in private.items()}
    return [
        f"{entry.path!r} is {places[entry.path]}; keep it outside of the app's folder, {_LEAVE}"
        for entry in entries
        if entry.path in places
    ]


def _missing(root: Path, entries: Sequence[Entry], needed: Iterable[str]) -> list[str]:
    there = {entry.path for entry in entries}
    return [
        f"{path!r} is to be replaced and is "
        + (f"left out; see {RULES_FILE}" if os.path.lexists(root / path) else "not there; build the app first")
        for path in needed
        if path not in there
    ]


def _below(root: Path, place: Path | None) -> str | None:
    """Where `place` lies below `root`, as an entry's path; None where it lies elsewhere."""
    if place is None:
        return None
    real_root, real = Path(os.path.realpath(root)), Path(os.path.realpath(place))
    return str(real.relative_to(real_root)) if real.is_relative_to(real_root) else None
