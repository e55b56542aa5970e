"""Cuts SQL text into statements, as psql does, and finds what a migration cannot hold. Pure; no database here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# One token of Postgres' lexer (manual, 4.1). An identifier is tried before a dollar quote: `a$b$` is a name. The sign
# runs stop before anything that could start a comment, as the server's operators do.
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<string>[eE]'(?:[^'\\]++|\\.|'')*+(?:'|\Z) | '[^']*+(?:'|\Z) | "[^"]*+(?:"|\Z))
    | (?P<word>[^\W\d][\w$]*)
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<sign>[;()\\])
    | (?P<other>[^\s\w'"$;()\\/-]+ | \d+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_FIRST_WORDS = 5


class ScriptError(Exception):
    """The text cannot be a migration: `line` and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its text, where it starts in the file (`offset` in characters, `line` from 1), its first words."""

    text: str
    offset: int
    line: int
    words: tuple[str, ...]
    reads_stdin: bool = False

    @property
    def ends_transaction(self) -> bool:
        """Whether it begins or ends a transaction (a savepoint does neither)."""
        match self.words:
            case ("rollback", "to", *_) | ("rollback", "work" | "transaction", "to", *_):
                return False
            case ("begin" | "commit" | "end" | "rollback" | "abort", *_):
                return True
            case ("start" | "prepare", "transaction", *_):
                return True
        return False


@dataclass
class _Draft:
    """What is known of the statement being read."""

    start: int = -1
    words: list[str] = field(default_factory=list)
    last_word: str = ""
    parentheses: int = 0
    blocks: int = 0
    reads_stdin: bool = False

    def saw_word(self, word: str) -> None:
        """Follow what decides where the statement ends: the body of `BEGIN ATOMIC ... END` holds semicolons."""
        if len(self.words) < _FIRST_WORDS:
            self.words.append(word)
        if self.blocks:
            self.blocks += {"case": 1, "end": -1}.get(word, 0)
        elif word == "atomic" and self.last_word == "begin" and self._makes_routine():
            self.blocks = 1
        elif word == "stdin" and self.last_word == "from" and self.words[0] == "copy":
            self.reads_stdin = True
        self.last_word = word

    def saw_sign(self, sign: str) -> bool:
        """Follow parentheses (rules and their like hold semicolons there); True when the statement ends here."""
        if sign == "(":
            self.parentheses += 1
        elif sign == ")":
            self.parentheses = max(0, self.parentheses - 1)
        return sign == ";" and not self.parentheses and not self.blocks

    def _makes_routine(self) -> bool:
        return self.words[0] == "create" and not {"function", "procedure"}.isdisjoint(self.words)


def split(text: str) -> Iterator[Statement]:
    """The statements of `text`, in order, without the comments and blanks before them.

    Knows quotes, dollar quotes, nested comments, parentheses and `BEGIN ATOMIC` bodies; assumes the server's default
    `standard_conforming_strings = on`. An unfinished quote runs to the end, for the server to complain about. Raises
    ScriptError at a psql command (`\\copy`), as no backslash outside quotes is SQL.
    """
    draft = _Draft()
    lines = _Lines(text)
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        assert found is not None, "the last alternative takes any sign"
        kind, begin, position = found.lastgroup, position, _end_of(text, found)
        if kind in ("space", "comment", "block"):
            continue
        piece = found.group()
        if piece == "\\":
            command = text[begin:].split("\n", 1)[0].strip()
            raise ScriptError(lines.at(begin), f"`{shorten(command)}` is a command of psql, not SQL; write it as SQL")
        if piece == ";" and draft.start < 0:
            continue
        if draft.start < 0:
            draft.start = begin
        if kind == "word":
            draft.saw_word(piece.lower())
        elif kind == "sign" and draft.saw_sign(piece):
            yield _finish(draft, text, position, lines)
            draft = _Draft()
    if draft.start >= 0:
        yield _finish(draft, text, len(text.rstrip()), lines)


def checked(text: str, *, own_transaction: bool) -> tuple[Statement, ...]:
    """The statements of `text`; raises ScriptError for one that a migration cannot hold.

    `own_transaction`: the text may begin and end transactions itself, because nobody puts one around it.
    """
    statements: list[Statement] = []
    for statement in split(text):
        why = _unfit(statement, own_transaction)
        if why is not None:
            raise ScriptError(statement.line, why)
        statements.append(statement)
    return tuple(statements)


def _unfit(statement: Statement, own_transaction: bool) -> str | None:
    if statement.reads_stdin:
        return "COPY ... FROM STDIN needs data from psql, which a migration has not; write the rows as INSERT"
    if statement.words[:2] == ("discard", "all"):
        return "DISCARD ALL would release the migration lock; leave it out, every file starts with a fresh session"
    if statement.ends_transaction and not own_transaction:
        return (
            f"`{shorten(statement.text)}` would break up the one transaction the file runs in; leave it out, or write "
            f"`-- supervisor: no-transaction` in the first line to handle transactions in the file"
        )
    return None


def line_at(text: str, offset: int) -> tuple[int, str]:
    """The number of the line that holds character `offset`, and that line."""
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    return text.count("\n", 0, start) + 1, text[start : end if end >= 0 else len(text)].strip()


def shorten(text: str, limit: int = 120) -> str:
    """`text` on one line of at most `limit` characters."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


class _Lines:
    """Line numbers of rising offsets, each stretch counted once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._line = 1

    def at(self, offset: int) -> int:
        self._line += self._text.count("\n", self._offset, offset)
        self._offset = offset
        return self._line


def _finish(draft: _Draft, text: str, end: int, lines: _Lines) -> Statement:
    return Statement(text[draft.start : end], draft.start, lines.at(draft.start), tuple(draft.words), draft.reads_stdin)


def _end_of(text: str, found: re.Match[str]) -> int:
    """Where a token ends; comments that nest and dollar quotes are beyond a regular expression."""
    if found.lastgroup == "block":
        return _end_of_block(text, found.start())
    if found.lastgroup == "dollar":
        close = text.find(found.group(), found.end())
        return len(text) if close < 0 else close + len(found.group())
    return found.end()


def _end_of_block(text: str, start: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)
