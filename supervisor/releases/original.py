"""Archives of the older kind: a tar.gz with `app/...` and `deployment-info.json`, no manifest, no signature.

What is known of one is known only after unpacking, so its manifest is made then, from the unpacked tree's figures. Such
a release is unsigned; `admission.why_unsigned` is to be asked before anything of it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from supervisor.releases.manifest import Archive, Git, Manifest, Tree
from supervisor.releases.model import Compression, ReleaseError

ROOT, INFO = "app", "deployment-info.json"
"""The folder within the archive that is the release's tree, and the file beside it that tells of the build."""
MAX_INFO_BYTES = 64 * 1024
_MAX_TEXT, _MAX_VERSION, _MAX_FILE = 200, 80, 200
_NAMES = {
    "version": ("version", "tag", "release"),
    "commit": ("commit", "gitCommit", "git_commit", "commitHash", "sha"),
    "branch": ("branch", "gitBranch", "git_branch"),
    "built": ("buildDate", "build_date", "buildTime", "timestamp", "date"),
    "builder": ("builder", "builtBy", "user"),
}
_MAGIC = {b"\x1f\x8b\x08": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
_OTHERS = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}
_SUFFIX = re.compile(r"\.(tar(\.(gz|zst))?|tgz|tzst|gz|zst)\Z", re.IGNORECASE)
_STAMPS = ("%Y%m%d%H%M%S", "%Y%m%d-%H%M%S", "%Y%m%d_%H%M%S", "%a %b %d %H:%M:%S %Z %Y", "%a, %d %b %Y %H:%M:%S %Z")
_EARLIEST = datetime(1980, 1, 1, tzinfo=UTC)
# Fewer digits are a date, more a date and a time in one number.
_EPOCH = re.compile(r"\d{9,13}(\.\d+)?", re.ASCII)
# Epoch times above this are in milliseconds, as JavaScript's are: as seconds they lie beyond the year 5000.
_SECONDS_UP_TO = 1e11


@dataclass(frozen=True)
class DeploymentInfo:
    """What the archive says of itself; nobody vouches for it, and all of it may be empty."""

    version: str = ""
    commit: str = ""
    branch: str = ""
    built: str = ""
    builder: str = ""


@dataclass(frozen=True)
class Received:
    """The archive as it came: its file's name, the figures of our copy, and when (aware)."""

    name: str
    size: int
    sha256: str
    compression: Compression
    at: datetime


def compression_of(head: bytes) -> Compression:
    """How an archive is packed, by its first 8 bytes. Raises ReleaseError, naming what it is instead."""
    for magic, compression in _MAGIC.items():
        if head.startswith(magic):
            return compression
    other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), "")
    what = f"it is packed with {other}" if other else "it is not compressed, or no archive at all"
    raise ReleaseError(f"cannot read the archive: {what}; pack it as .tar.gz or .tar.zst")


def parse_info(data: bytes) -> DeploymentInfo:
    """Text and numbers of known names count, in the file or in its `git` part; all else is left out.

    Raises ReleaseError where it is no JSON object.
    """
    if len(data) > MAX_INFO_BYTES:
        raise ReleaseError(f"cannot read {INFO}: it has more than {MAX_INFO_BYTES} bytes; leave out what is not needed")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"cannot read {INFO}: it is no JSON ({error}); mend it, or leave it out") from None
    if not isinstance(values, dict):
        raise ReleaseError(f"cannot read {INFO}: it is no JSON object; mend it, or leave it out")
    git = values.get("git")
    values = {**git, **values} if isinstance(git, dict) else values
    return DeploymentInfo(**{field: _first(values, names) for field, names in _NAMES.items()})


def _first(values: Mapping[str, object], names: tuple[str, ...]) -> str:
    for name in names:
        found = values.get(name)
        if isinstance(found, str | int | float) and not isinstance(found, bool) and (text := _plain(found)):
            return text
    return ""


def _plain(found: str | int | float) -> str:
    # A surrogate is legal in JSON and not in UTF-8; what does not print has no place in a listing.
    return "".join(each for each in str(found)[:_MAX_TEXT] if each.isprintable()).strip()


def original_manifest(app: str, received: Received, info: DeploymentInfo, tree: Tree) -> Manifest:
    """The manifest that the archive lacks; `tree` are the figures of what was unpacked below `app/`.

    The sequence is the build's time in seconds, as far as it is told and not in the future, else that of the receipt:
    an older build counts as one. `replace` and `merge` are the caller's to add. Raises ReleaseError.
    """
    built = min(_moment(info.built) or received.at, received.at)
    try:
        return Manifest(
            format=1,
            app=app,
            version=_version(info, received),
            sequence=max(1, int(built.timestamp())),
            created=built,
            git=Git(commit=info.commit, branch=info.branch),
            archive=Archive(
                file=_named(received.name, _MAX_FILE) or "archive",
                sha256=received.sha256,
                size=received.size,
                compression=received.compression,
            ),
            tree=tree,
        )
    except ValueError as error:
        raise ReleaseError(f"cannot describe the archive {received.name[:_MAX_FILE]!r}: {error}") from None


def _version(info: DeploymentInfo, received: Received) -> str:
    from_name = _SUFFIX.sub("", received.name)
    found = (_named(text, _MAX_VERSION) for text in (info.version, from_name))
    return next(filter(None, found), f"{received.at.astimezone(UTC):%Y%m%d-%H%M%S}")


def _named(text: str, limit: int) -> str:
    """With only the signs that a manifest's names may have."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip("-._+")[:limit].rstrip("-")


def _moment(text: str) -> datetime | None:
    """ISO 8601, seconds or milliseconds of the epoch, or what `date` prints; without a zone it is UTC."""
    readers: tuple[Callable[[str], datetime], ...] = (
        _epoch,
        datetime.fromisoformat,
        *(partial(_stamp, form) for form in _STAMPS),
    )
    for read in readers:
        try:
            found = read(text)
            aware = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            continue
        if aware >= _EARLIEST:
            return aware
    return None


def _epoch(text: str) -> datetime:
    if not _EPOCH.fullmatch(text):
        raise ValueError(f"no time of the epoch: {text!r}")
    seconds = float(text)
    return datetime.fromtimestamp(seconds if seconds < _SECONDS_UP_TO else seconds / 1000, UTC)


def _stamp(form: str, text: str) -> datetime:
    return datetime.strptime(text, form)
