"""`supervisor env detect ENTRY`: what an app reads of its environment, found by running it. Needs no supervisor."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from supervisor.commands.arguments import Arguments
from supervisor.core.errors import ExitCode, SupervisorError
from supervisor.detect.detect import detect
from supervisor.detect.launch import Order
from supervisor.detect.model import Detected, DetectionError, Kind, Place, Variable
from supervisor.detect.names import is_secret
from supervisor.process.jail import PARTS, Contained

_PROGRAM = "supervisor env detect"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
_BARE = re.compile(r"[A-Za-z0-9_-]+$")
_MIN_SECRET_LENGTH = 32
_SHOWN_PLACES, _SHOWN_LIBRARIES = 3, 12


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Arguments(
        prog=_PROGRAM,
        description="Run ENTRY, apart from the system, and say which environment variables the app reads. Without "
        "ENTRY: which mode a run would choose here.",
        epilog="Exits with 0 where the app was seen to come as far as it can, 1 where what was read is not all, 78 "
        "where it cannot be run.",
        allow_abbrev=False,
    )
    made.add_argument("entry", metavar="ENTRY", help="a file, module:app, or a command as one word ('node server.js')")
    made.add_argument("--app-dir", type=Path, default=Path(), metavar="DIR", help="where it runs; default: here")
    made.add_argument("--app", default="app", metavar="NAME", help="the app's name in the printed table")
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a value that the app gets")
    made.add_argument("--seconds", type=float, default=10.0, metavar="N", help="for all runs together; default: 10")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def main(argv: Sequence[str]) -> int:
    """Run, print; gives the exit code."""
    try:
        parsed = parser().parse_args(list(argv))
        order = _order(parsed, os.environ)
    except ValueError as error:
        print(f"{_PROGRAM}: {error}; see {_PROGRAM} --help", file=sys.stderr)
        return int(ExitCode.USAGE)
    except DetectionError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.USAGE)
    try:
        detected = anyio.run(detect, order)
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(as_dict(detected, parsed.app), indent=2) if parsed.json else as_text(detected, parsed.app))
    return int(ExitCode.OK if detected.complete else ExitCode.REJECTED)


def _order(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Order:
    """Raises ValueError for a wrong command line, DetectionError where there is no such folder."""
    given: dict[str, str] = {}
    for pair in parsed.set:
        name, separator, value = pair.partition("=")
        if not separator or not _NAME.match(name):
            raise ValueError(f"--set {name!r}: it reads NAME=VALUE")
        given[name] = value
    if not 0 < parsed.seconds <= 3600:
        raise ValueError(f"--seconds {parsed.seconds:g}: more than 0, 3600 at most")
    app_dir = parsed.app_dir.resolve()
    if not app_dir.is_dir():
        raise DetectionError(f"cannot run in {str(app_dir)!r}: there is no such folder; check --app-dir")
    language = environ.get("LANG", "C.UTF-8")
    return Order(parsed.entry, app_dir, environ.get("PATH", os.defpath), language, given, parsed.seconds)


def as_dict(detected: Detected, app: str) -> dict[str, Any]:
    """JSON-ready; the form is documented under "What an app reads" and stays."""
    return {
        "entry": detected.entry,
        "app_dir": detected.app_dir,
        "runtime": detected.runtime,
        "complete": detected.complete,
        "why": detected.why or None,
        "required": [_as_entry(each, detected) for each in detected.required],
        "optional": [_as_entry(each, detected) for each in detected.optional],
        "by_libraries": [_as_entry(each, detected) for each in detected.by_libraries],
        "contained": _as_contained(detected.contained),
        "hidden": [_relative(file, detected) for file in detected.hidden],
        "runs": detected.runs,
        "seconds": detected.seconds,
        "toml": as_toml(detected, app),
    }


def _as_entry(variable: Variable, detected: Detected) -> dict[str, Any]:
    secret = is_secret(variable.name)
    return {
        "name": variable.name,
        "kind": str(variable.kind),
        "required": variable.required,
        "default": None if secret else variable.default,
        "has_default": variable.default is not None,
        "read_at": [_where(place, detected) for place in variable.places],
        "reader": str(variable.reader),
        "library": _relative(variable.library, detected) if variable.library else None,
    }


def _as_contained(contained: Contained) -> dict[str, Any]:
    return {**{part: contained.holds(part) for part in PARTS}, "why": dict(contained.why)}


def _where(place: Place, detected: Detected) -> str:
    return f"{_relative(place.file, detected)}:{place.line}"


def _relative(file: str, detected: Detected) -> str:
    path = Path(file)
    return str(path.relative_to(detected.app_dir)) if path.is_relative_to(detected.app_dir) else file


def as_text(detected: Detected, app: str) -> str:
    """For people; the table to paste comes last."""
    lines = [f"entry      {detected.entry} ({detected.runtime}, {detected.runs} runs, {detected.seconds:g} s)"]
    lines += _rows("required", detected.required, detected)
    lines += _rows("optional", detected.optional, detected)
    if detected.by_libraries:
        shown = [variable.name for variable in detected.by_libraries[:_SHOWN_LIBRARIES]]
        more = len(detected.by_libraries) - len(shown)
        lines.append(f"libraries  {', '.join(shown)}{f' and {more} more (--json has all)' if more else ''}")
    if detected.hidden:
        lines.append(f"hidden     {', '.join(_relative(file, detected) for file in detected.hidden)}: read as empty")
    lines += [f"warning    {text}" for text in _warnings(detected)]
    return "\n".join([*lines, "", as_toml(detected, app)])


def _rows(label: str, variables: Sequence[Variable], detected: Detected) -> list[str]:
    if not variables:
        return [f"{label:<10} none"]
    width = max(len(variable.name) for variable in variables)
    return [
        f"{label if number == 0 else '':<10} {variable.name:<{width}}  {variable.kind:<5}  {_about(variable, detected)}"
        for number, variable in enumerate(variables)
    ]


def _about(variable: Variable, detected: Detected) -> str:
    places = [_where(place, detected) for place in variable.places[:_SHOWN_PLACES]]
    more = len(variable.places) - len(places)
    text = ", ".join(places) + (f" and {more} more" if more > 0 else "") or "place unknown"
    if variable.library:
        text += f" (by {_relative(variable.library, detected)})"
    if variable.default is not None:
        text += f", default {'***' if is_secret(variable.name) else repr(variable.default)}"
    return text


def _warnings(detected: Detected) -> Iterable[str]:
    if not detected.complete:
        yield f"not all: {detected.why}"
    what = {
        "network": "it could reach the network",
        "files": "it could write files and read .env files",
        "processes": "it could see other processes",
        "ipc": "it shared memory segments with others",
        "user": "it ran with the same rights as this command",
    }
    for part, why in detected.contained.why.items():
        yield f"not contained: {what[part]} ({why})"


def as_toml(detected: Detected, app: str) -> str:
    """The app's table in supervisor.toml. Optional ones without a known default stand in a comment."""
    name = app if _BARE.match(app) else json.dumps(app)
    known = {v.name: v.default for v in detected.optional if v.default is not None and not is_secret(v.name)}
    unknown = [variable.name for variable in detected.optional if variable.name not in known]
    lines = [f"[apps.{name}.env]", f"required = [{', '.join(_text(each.name) for each in detected.required)}]"]
    if known:
        pairs = ", ".join(f"{key} = {_text(_as_value(value))}" for key, value in known.items())
        lines.append(f"optional = {{ {pairs} }}")
    if unknown:
        lines.append(f"# read too, without a default that is known: {', '.join(unknown)}")
    for variable in (*detected.required, *(each for each in detected.optional if each.name in known)):
        lines += _table(name, variable)
    return "\n".join(lines)


def _table(app: str, variable: Variable) -> list[str]:
    head = ["", f"[apps.{app}.env.vars.{variable.name}]"]
    if variable.kind is not Kind.TEXT:
        return [*head, f'kind = "{variable.kind}"']
    if variable.required and variable.name.upper().endswith("SECRET"):
        return [*head, "generate = true", f"min_length = {_MIN_SECRET_LENGTH}"]
    return []


def _as_value(value: object) -> str:
    """As the environment would have it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: str) -> str:
    """A basic string of TOML; the escapes of JSON are a part of its own."""
    return json.dumps(value, ensure_ascii=False)
