"""What of an app's folder stays out of a release: rules in gitignore syntax, and what is never taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from supervisor.releases.tree import RECORDS

RULES_FILE = ".releaseignore"
OUTPUT = "dist-tarball"
_NEVER_ANYWHERE = frozenset({".git", RULES_FILE})
_NEVER_AT_TOP = frozenset({OUTPUT, RECORDS})
_CLUTTER = "**/node_modules/.cache\n.DS_Store\n__pycache__\n"
_SECRETS = """
.env
.env.*
!.env.example
!.env.sample
!.env.template
!.env.*.example
!.env.*.sample
!.env.*.template
*.pem
*.key
"""
# A last `*` or `**`, which pathspec turns into "anything below too". Git asks it of the name itself.
_LAST_STARS = re.compile(r"(?P<before>^!?|/)(?P<stars>\*\*?)(?P<folder>/?)\s*$")


class Verdict(StrEnum):
    """What becomes of one path; nothing below a folder that is left out is looked at."""

    TAKEN = "taken"
    LEFT_OUT = "left out"
    SECRET = "left out as a secret"  # noqa: S105


@dataclass(frozen=True)
class _Rule:
    folder: str
    """Where the rule is written, empty or with `/` at its end."""
    regex: re.Pattern[str]
    verdict: Verdict


@dataclass(frozen=True)
class Rules:
    """The rules that hold in one folder. The last that fits decides; a deeper file's stand behind a higher one's."""

    _rules: tuple[_Rule, ...]

    def verdict(self, path: str, *, is_folder: bool) -> Verdict:
        """On a path below the top folder, whose own folder was taken."""
        for rule in reversed(self._rules):
            relative = path.removeprefix(rule.folder)
            if rule.regex.fullmatch(f"{relative}/" if is_folder else relative):
                return rule.verdict
        return Verdict.TAKEN

    def joined(self, text: str, folder: str = "") -> Rules:
        """With those of a file in `folder` behind. Raises ValueError that names each line which is no rule."""
        return Rules((*self._rules, *_parse(text, folder, Verdict.LEFT_OUT)))


def default_rules() -> Rules:
    """What is left out unless a rule of the user's takes it in: clutter, and what is likely a secret."""
    return Rules((*_parse(_CLUTTER, "", Verdict.LEFT_OUT), *_parse(_SECRETS, "", Verdict.SECRET)))


def is_never_taken(path: str) -> bool:
    """Whether no rule can take it in."""
    return path in _NEVER_AT_TOP or path.rpartition("/")[2] in _NEVER_ANYWHERE


def _parse(text: str, folder: str, verdict: Verdict) -> list[_Rule]:
    bad: list[str] = []
    rules: list[_Rule] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        try:
            rules.extend(_rule(line, folder, verdict))
        except (ValueError, re.error) as error:
            bad.append(f"line {number} {line.strip()!r} ({error})")
    if bad:
        raise ValueError(", ".join(bad))
    return rules


def _rule(line: str, folder: str, verdict: Verdict) -> Iterator[_Rule]:
    regex, leaves_out = GitIgnoreSpecPattern.pattern_to_regex(_LAST_STARS.sub(_of_the_name_itself, line))
    if regex is not None and leaves_out is not None:
        yield _Rule(folder, re.compile(regex, re.DOTALL), verdict if leaves_out else Verdict.TAKEN)


def _of_the_name_itself(found: re.Match[str]) -> str:
    deep = "**/" if found["stars"] == "**" else ""
    return f"{found['before']}{deep}?*{found['folder']}"
