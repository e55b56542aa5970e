"""What a build is called and when it was: app, version, sequence and time, from what the source and git say."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.releases.build.git import GitFacts
from supervisor.releases.model import ReleaseError

EPOCH = "SOURCE_DATE_EPOCH"
"""The time of a build, by agreement of many tools (reproducible-builds.org)."""
_SHORT = 7
_MAX_VERSION = 80
_MAX_EPOCH = 8**11 - 1
"""The largest time that a tar header has room for."""


@dataclass(frozen=True)
class Source:
    """Name and version as the app's own files have them, empty where they say nothing."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class Moment:
    """When a release was made, whole seconds; `why` says by which clock. `mtime` is what its entries get."""

    at: datetime
    why: str
    mtime: int = 0

    @property
    def sequence(self) -> int:
        """The default: later builds are higher."""
        return max(1, int(self.at.timestamp()))


def read_source(folder: Path) -> Source:
    """From package.json, else pyproject.toml. Raises ReleaseError where one is broken."""
    for name, parse, find in _SOURCES:
        try:
            values = parse((folder / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise ReleaseError(
                f"cannot read {str(folder / name)!r}: {error}; mend it, or give --app and --version"
            ) from error
        return find(values if isinstance(values, dict) else {})
    return Source()


def _of_package(values: Mapping[str, Any]) -> Source:
    return Source(_text(values, "name").rpartition("/")[2], _text(values, "version"))


def _of_pyproject(values: Mapping[str, Any]) -> Source:
    project = values.get("project")
    return Source(_text(project, "name"), _text(project, "version"))


def _text(values: Any, key: str) -> str:
    value = values.get(key) if isinstance(values, Mapping) else None
    return value if isinstance(value, str) else ""


_SOURCES: tuple[tuple[str, Callable[[str], Any], Callable[[Mapping[str, Any]], Source]], ...] = (
    ("package.json", json.loads, _of_package),
    ("pyproject.toml", tomllib.loads, _of_pyproject),
)


def choose_app(given: str | None, source: Source, folder: Path) -> str:
    """What was given, else the source's own name, else the folder's, in signs that a manifest takes."""
    return given or _plain(source.name)[:63] or _plain(folder.resolve().name)[:63] or "app"


def choose_version(given: str | None, source: Source, git: GitFacts, moment: Moment) -> str:
    """What was given, else the source's with the commit, else what `git describe` says, else the time."""
    if given is not None:
        return given
    mark = [git.commit[:_SHORT]] if git.commit else []
    if not source.version and git.described:
        base, mark = git.described, []
    else:
        base = source.version or moment.at.strftime("%Y%m%d-%H%M%S")
    mark += ["dirty"] if git.dirty else []
    joint = "." if "+" in base else "+"
    end = joint + ".".join(mark) if mark else ""
    return _plain(base)[: _MAX_VERSION - len(end)] + end


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text).lstrip("._+-")


def choose_moment(epoch: str | None, git: GitFacts, now: datetime) -> Moment:
    """SOURCE_DATE_EPOCH, else the commit's time where nothing was changed since, else now."""
    if epoch:
        if not re.fullmatch(r"[0-9]{1,10}", epoch) or int(epoch) > _MAX_EPOCH:
            raise ReleaseError(f"cannot use {EPOCH}={epoch!r}: give whole seconds of Unix time, {_MAX_EPOCH} at most")
        return Moment(datetime.fromtimestamp(int(epoch), UTC), EPOCH, int(epoch))
    if git.commit and not git.dirty and git.committed_at:
        return Moment(datetime.fromtimestamp(git.committed_at, UTC), "the commit's time")
    return Moment(now.replace(microsecond=0), "the time of the build")
