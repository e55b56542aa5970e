"""Whether the symbolic links of a tree stay in it, by their words alone. Pure; nothing is looked up on disk."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.releases.model import MAX_PATH_BYTES, Entry, Kind, why_bad_path
from supervisor.releases.unpack.refusal import refusal, shown

MAX_CHAIN = 8
"""Links from one to the next, as `libx.so` to `libx.so.1` to `libx.so.1.2`; the kernel ends at 40."""
_ADVICE = "put the file itself there, or leave the link out of the release"


def check_links(entries: Mapping[str, Entry]) -> None:
    """Raises ReleaseError for the first link that may not be made.

    A target is relative and stays within the tree at each of its steps; the steps go through folders, never through
    another link. It may be a link itself, or not be there at all (what an image adds is not known here), but then it
    does not come back from there by `..`.
    """
    leads = {path: _destination(entry, entries) for path, entry in entries.items() if entry.kind is Kind.LINK}
    for path in leads:
        _check_chain(path, leads)


def _destination(link: Entry, entries: Mapping[str, Entry]) -> str:
    """The path in the tree that a link leads to; empty for the tree itself."""
    target = link.content
    if why := _why_bad_target(target):
        raise _refused(link, why)
    parts = [part for part in target.split("/") if part not in ("", ".")]
    reached = link.path.split("/")[:-1]
    for number, part in enumerate(parts):
        if part == "..":
            if not reached:
                raise _refused(link, "leads out of the release")
            reached.pop()
            continue
        reached.append(part)
        if number + 1 < len(parts):
            _check_step(link, "/".join(reached), entries, comes_back=parts[number + 1] == "..")
    path = "/".join(reached)
    if path and (why := why_bad_path(path)):
        raise _refused(link, f"leads to a path that {why}")
    return path


def _why_bad_target(target: str) -> str:
    if not target or target.startswith("/"):
        return "leads nowhere" if not target else "is absolute"
    if "\0" in target:
        return "has a NUL in its target"
    if len(target.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES:
        return f"has a target of more than {MAX_PATH_BYTES} bytes"
    return ""


def _check_step(link: Entry, path: str, entries: Mapping[str, Entry], *, comes_back: bool) -> None:
    found = entries.get(path)
    if found is not None and found.kind is Kind.LINK:
        raise _refused(link, f"leads through another link, {shown(path)}")
    if comes_back and (found is None or found.kind is not Kind.FOLDER):
        raise _refused(link, f"comes back by `..` from {shown(path)}, which is no folder of the archive")


def _check_chain(path: str, leads: Mapping[str, str]) -> None:
    at = path
    for _ in range(MAX_CHAIN):
        at = leads[at]
        if at not in leads:
            return
    raise refusal(f"the link {shown(path)} goes in a circle, or over more than {MAX_CHAIN} links", _ADVICE)


def _refused(link: Entry, why: str) -> Exception:
    return refusal(f"the link {shown(link.path)} to {shown(link.content)} {why}", _ADVICE)
