"""What git says of the source. Asked by its program: only that knows every kind of repository, and what changed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.process.child import Command, RunProgram

_CHANGED = re.compile(r"[ MTADRCU?!]{2} ")
_MISSING = 127


@dataclass(frozen=True)
class GitFacts:
    """Nothing is known without a commit; `why` says why where that may surprise. `committed_at` is Unix time."""

    commit: str = ""
    branch: str = ""
    dirty: bool = False
    committed_at: int = 0
    described: str = ""
    why: str = ""


async def read_git(folder: Path, run: RunProgram, environ: Mapping[str, str]) -> GitFacts:
    """The commit of `folder`, and whether anything in it differs from that. Never raises for what git says.

    A hook that watches for changes would be run by git from the repository's own settings: not asked.
    """

    async def ask(*words: str) -> tuple[int, list[str]]:
        argv = ("git", "-c", "core.fsmonitor=false", "-C", str(folder), *words)
        status, text = await run(Command("git", argv, {**environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}))
        return status, text.splitlines()

    status, lines = await ask("log", "-1", "--no-show-signature", "--format=%H %ct")
    if status or not lines:
        return GitFacts(why=_why(folder, status, lines))
    commit, _, committed_at = lines[-1].partition(" ")
    status, changes = await ask("status", "--porcelain", "--untracked-files=normal", "--", ".")
    if status or not re.fullmatch("[0-9a-f]{40,64}", commit) or not committed_at.isdigit():
        return GitFacts(why=_why(folder, status or 1, changes or lines))
    dirty = any(_CHANGED.match(line) for line in changes)
    _, branch = await ask("symbolic-ref", "--quiet", "--short", "HEAD")
    status, described = await ask("describe", "--tags", "--always")
    return GitFacts(
        commit=commit,
        branch=branch[-1] if branch else "",
        dirty=dirty,
        committed_at=int(committed_at),
        described=described[-1] if described and not status else "",
    )


def _why(folder: Path, status: int, lines: list[str]) -> str:
    """Empty where the folder is in no repository, or its repository has no commit yet."""
    if not any(os.path.lexists(place / ".git") for place in (folder, *folder.absolute().parents)):
        return ""
    if status == _MISSING:
        return "there is no program 'git' here"
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), " ".join(lines[-1:]))
