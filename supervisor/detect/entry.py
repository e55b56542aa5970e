"""Which program runs an entry, and how: by its form, its name and its first line. Looks at files, runs nothing."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.detect.model import DetectionError

_IMPORT = (
    "import functools, importlib, sys\n"
    "functools.reduce(getattr, sys.argv[2].split('.'), importlib.import_module(sys.argv[1]))"
)
_NODE = {".js", ".cjs", ".mjs"}
_TYPESCRIPT = {".ts", ".mts", ".cts", ".tsx"}
_PYTHONS = re.compile(r"python(3(\.\d+)?)?$")
_REFUSED = {"bun", "bunx", "deno"}
_SHEBANG = re.compile(rb"#!\s*(\S+)(?:[ \t]+(.*))?")


class Runtime(StrEnum):
    """What runs the app."""

    NODE = "node"
    TYPESCRIPT = "typescript"
    PYTHON = "python"
    PROGRAM = "program"
    """Something else, which may start Node or Python in turn."""


@dataclass(frozen=True)
class Entry:
    """How to run it. TypeScript still lacks what makes Node take it, see `typescript`."""

    text: str
    runtime: Runtime
    argv: tuple[str, ...]

    @property
    def program(self) -> str:
        """The path of what is run."""
        return self.argv[0]


def find_entry(text: str, app_dir: Path, path: str) -> Entry:
    """A file of the app, `module:app`, or a command in one word. Raises DetectionError."""
    words = _words(text)
    file = app_dir / words[0]
    if len(words) == 1 and file.is_file():
        return _of_file(text, file, app_dir, path)
    if len(words) == 1 and (found := re.fullmatch(r"([\w.]+):([\w.]+)(\(\))?", text)) is not None:
        argv = (_python(app_dir, path), "-c", _IMPORT, found[1], found[2])
        return Entry(text, Runtime.PYTHON, argv)
    return _of_command(text, words, app_dir, path)


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise DetectionError(f"cannot run {text!r}: {error}; give a file, module:app or a command") from None
    if not words:
        raise DetectionError("cannot run an empty entry; give a file, module:app or a command")
    return words


def _of_file(text: str, file: Path, app_dir: Path, path: str, arguments: tuple[str, ...] = ()) -> Entry:
    if file.suffix in _NODE:
        return Entry(text, Runtime.NODE, (_program("node", path), str(file), *arguments))
    if file.suffix in _TYPESCRIPT:
        return Entry(text, Runtime.TYPESCRIPT, (_program("node", path), str(file), *arguments))
    if file.suffix == ".py":
        return Entry(text, Runtime.PYTHON, (_python(app_dir, path), str(file), *arguments))
    return _of_shebang(text, file, app_dir, path, arguments)


def _of_shebang(text: str, file: Path, app_dir: Path, path: str, arguments: tuple[str, ...]) -> Entry:
    with file.open("rb") as opened:
        begin = opened.readline(512)
    if begin.startswith(b"\x7fELF"):
        return _named(text, [str(file), *arguments], app_dir, path)
    first = _SHEBANG.match(begin)
    if first is None:
        raise DetectionError(
            f"cannot tell what runs {text!r}: neither its name (.js, .ts, .py) nor a first line (#!) says it; give the "
            f"whole command as one word, like 'node {text}'"
        )
    words = [first[1].decode(errors="replace"), *shlex.split((first[2] or b"").decode(errors="replace"))]
    if Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words:
        raise DetectionError(f"cannot tell what runs {text!r}: its first line names no program; mend it")
    return _named(text, [*words, str(file), *arguments], app_dir, path)


def _of_command(text: str, words: list[str], app_dir: Path, path: str) -> Entry:
    file = app_dir / words[0]
    if file.is_file() and not _PYTHONS.match(file.name) and file.name != "node":
        return _of_file(text, file, app_dir, path, tuple(words[1:]))
    if len(words) == 1 and ("/" in text or Path(text).suffix in _NODE | _TYPESCRIPT | {".py"}):
        raise DetectionError(
            f"cannot run {text!r}: there is no such file in {str(app_dir)!r}; give the entry's path from there, or "
            f"another folder with --app-dir"
        )
    return _named(text, words, app_dir, path)


def _named(text: str, words: list[str], app_dir: Path, path: str) -> Entry:
    name = Path(words[0]).name
    if name in _REFUSED:
        raise DetectionError(
            f"cannot detect what {text!r} reads: {name} takes no part in it, only Node and Python can be listened to; "
            f"declare the variables in [apps.NAME.env], or run the entry with node"
        )
    if _PYTHONS.match(name):
        program = _python(app_dir, path) if "/" not in words[0] else _program(words[0], path, str(app_dir))
        return Entry(text, Runtime.PYTHON, (program, *words[1:]))
    program = _program(words[0], path, str(app_dir))
    if name == "node":
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        kind = Runtime.TYPESCRIPT if Path(script).suffix in _TYPESCRIPT else Runtime.NODE
        return Entry(text, kind, (program, *words[1:]))
    return Entry(text, Runtime.PROGRAM, (program, *words[1:]))


def _python(app_dir: Path, path: str) -> str:
    """The app's own: of its virtual environment, else the PATH's."""
    for folder in (".venv", "venv"):
        candidate = app_dir / folder / "bin/python"
        if candidate.exists():
            return str(candidate)
    found = shutil.which("python3", path=path) or shutil.which("python", path=path)
    return found or _program("python3", path)


def _program(name: str, path: str, app_dir: str = "") -> str:
    # npm and virtual environments put the programs of an app there.
    own = (f"{app_dir}/node_modules/.bin", f"{app_dir}/.venv/bin", f"{app_dir}/venv/bin") if app_dir else ()
    found = shutil.which(name, path=":".join((*own, path)))
    if found is None:
        raise DetectionError(
            f"cannot run the entry: there is no program {name!r} on the PATH ({path}); install it, or give its path"
        )
    return found
