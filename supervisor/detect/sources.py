"""What the app's own code says at the places of reads: defaults, and whether it names a variable itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from supervisor.detect.model import Place, Plain, Read

Lines = Callable[[str], tuple[str, ...]]
_MAX_SOURCE_BYTES = 2 * 1024 * 1024
_LITERAL = r"""(?P<value>'[^'\\\n]*'|"[^"\\\n]*"|`[^`$\\\n]*`|-?\d+(?:\.\d+)?\b|true\b|false\b|True\b|False\b)"""
_PATTERNS = (
    r"\benv\??\.{name}\s*(?:\|\||\?\?)\s*{literal}",  # process.env.X ?? 'a'
    r"""\[\s*['"]{name}['"]\s*\]\s*(?:\|\||\?\?)\s*{literal}""",  # process.env['X'] || 'a'
    r"""['"]{name}['"]\s*\)?\s*or\s+{literal}""",  # os.getenv('X') or 'a'
    r"""['"]{name}['"]\s*,\s*(?:cast\s*=\s*\w+\s*,\s*)?(?:default\s*=\s*)?{literal}""",  # config('X', default='a')
)
_TAKEN_APART = r"\b{name}\s*(?::\s*\w+\s*)?=\s*{literal}"  # const {{ X = 'a' }} = process.env


class SourceFiles:
    """Files of the app below one folder, read once; what is elsewhere, too large or no text has no lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[str, ...]] = {}

    def __call__(self, file: str) -> tuple[str, ...]:
        """Its lines."""
        if file not in self._known:
            self._known[file] = self._read(Path(file))
        return self._known[file]

    def _read(self, path: Path) -> tuple[str, ...]:
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self._folder) or not real.is_file():
                return ()
            if real.stat().st_size > _MAX_SOURCE_BYTES:
                return ()
            return tuple(real.read_text(errors="replace").splitlines())
        except (OSError, ValueError, RuntimeError):
            return ()


def default_of(read: Read, lines: Lines) -> Plain | None:
    """The default as the preload saw it, else as the line of the read has it."""
    if read.default is not None or read.place is None:
        return read.default
    text = _line(read.place, lines)
    patterns = [*_PATTERNS, _TAKEN_APART] if re.search(r"=\s*(process\.)?env\b", text) else list(_PATTERNS)
    for pattern in patterns:
        found = re.search(pattern.format(name=re.escape(read.name), literal=_LITERAL), text)
        if found is not None:
            return _value(found["value"])
    return None


def _line(place: Place, lines: Lines) -> str:
    """The line of a read; taken apart over several lines, all from there to the end of the statement."""
    all_lines = lines(place.file)
    if not 0 < place.line <= len(all_lines):
        return ""
    text = all_lines[place.line - 1]
    if "env" not in text:
        text += " " + " ".join(all_lines[place.line : place.line + 30])
        text = text.partition("env")[0] + "env"
    return text


def _value(literal: str) -> Plain:
    if literal[0] in "'\"`":
        return literal[1:-1]
    if literal.lower() in ("true", "false"):
        return literal.lower() == "true"
    return float(literal) if "." in literal else int(literal)


def names_it(read: Read, lines: Lines) -> bool:
    """Whether the app's code at which a library reads names the variable: then it is the app that asks for it."""
    return read.place is not None and _mentions(lines(read.place.file), read.name)


def _mentions(lines: Iterable[str], name: str) -> bool:
    pattern = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])")
    return any(pattern.search(line) for line in lines)
