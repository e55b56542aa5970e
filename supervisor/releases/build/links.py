"""Which links may not be in a release. By their words alone, as a supervisor judges them before it unpacks them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from supervisor.releases.model import MAX_PATH_BYTES, Entry, Kind
from supervisor.releases.unpack.links import MAX_CHAIN


def bad_links(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Each link that may not be, with why and what to do in words that follow its name.

    A target is relative, stays inside of the tree, and passes through no other link: then none leads out of it,
    whatever the others say. It may end at a link, and where nothing is (an image may have something there).
    """
    kinds = {entry.path: entry.kind for entry in entries}
    leads: dict[str, str] = {}
    for entry in entries:
        if entry.kind is Kind.LINK:
            leads[entry.path], why = _follow(entry, kinds)
            if why:
                yield entry, why
    for entry in entries:
        if entry.kind is Kind.LINK and _is_endless(entry.path, leads):
            yield entry, f"goes in a circle, or over more than {MAX_CHAIN} links; let it point to the file itself"


def _follow(link: Entry, kinds: Mapping[str, Kind]) -> tuple[str, str]:
    """The path a link leads to, and why it may not be."""
    if why := _why_bad_target(link.content):
        return "", why
    reached = link.path.split("/")[:-1]
    words = [word for word in link.content.split("/") if word not in ("", ".")]
    for word, after in zip_longest(words, words[1:]):
        if word == ".." and not reached:
            return "", "points outside of the folder; copy what it points to into the folder"
        if word == "..":
            reached.pop()
            continue
        reached.append(word)
        kind = kinds.get("/".join(reached))
        if after is not None and kind is Kind.LINK:
            return "", f"passes through the link {'/'.join(reached)!r}; let it point to where that leads"
        if after == ".." and kind is not Kind.FOLDER:
            return "", f"turns back at {'/'.join(reached)!r}, which is no folder of the release; write it without `..`"
    return "/".join(reached), ""


def _why_bad_target(target: str) -> str:
    if target.startswith("/"):
        return "is absolute; make it relative"
    if len(os.fsencode(target)) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes; make it shorter"
    return ""


def _is_endless(path: str, leads: Mapping[str, str]) -> bool:
    for _ in range(MAX_CHAIN):
        path = leads[path]
        if path not in leads:
            return False
    return True
