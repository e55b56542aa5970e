"""`supervisor config show | check | example`: what the settings are, what is wrong with them, what there is to set."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor.commands.arguments import Arguments
from supervisor.commands.config_example import NAME, example
from supervisor.commands.config_values import Row, as_document, rows, tables, text_of
from supervisor.commands.load_settings import load
from supervisor.commands.reference import put_into
from supervisor.commands.run import arguments_of
from supervisor.core.errors import ConfigurationError, ExitCode, SupervisorError
from supervisor.core.settings import AppSettings, Loaded, did_you_mean
from supervisor.store.files import write_atomic

_GUIDE = Path("CONTAINERIZATION.md")


def parser() -> argparse.ArgumentParser:
    """The command line of `config`; what it does not know are options of `run`, which are settings too."""
    made = Arguments(prog="supervisor config", description="What the settings are.", allow_abbrev=False)
    verbs = made.add_subparsers(dest="verb", required=True, parser_class=Arguments)
    more = "Takes the options of `supervisor run` too, to see them at work."
    show = verbs.add_parser("show", help="each value, secrets masked", epilog=more, allow_abbrev=False)
    show.add_argument("--origin", action="store_true", help="and where each came from")
    show.add_argument("--app", metavar="NAME", help="as they hold for one of several apps")
    check = verbs.add_parser("check", help="all mistakes in one report; exits with 78", epilog=more, allow_abbrev=False)
    check.add_argument("--build", action="store_true", help="ask for nothing that an image build does not have")
    for verb in (show, check):
        verb.add_argument("--json", action="store_true", help="print JSON")
    written = verbs.add_parser("example", help=f"write {NAME} here, and the reference in {_GUIDE} where that is")
    written.add_argument("--stdout", action="store_true", help="print it instead")
    return made


def main(argv: Sequence[str]) -> int:
    """Gives the exit code; the errors are printed."""
    try:
        parsed, rest = parser().parse_known_args(argv)
        if parsed.verb == "example":
            return _example(rest, to_stdout=parsed.stdout)
        given, config = arguments_of(rest)
        if parsed.verb == "check":
            return _check(given, config, build=parsed.build, as_json=parsed.json)
        return _show(load(given, config=config), parsed.app, with_origin=parsed.origin, as_json=parsed.json)
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.OK)


def _check(given: dict[str, Any], config: Path | None, *, build: bool, as_json: bool) -> int:
    mistakes: list[str] = []
    warnings: tuple[str, ...] = ()
    error: ConfigurationError | None = None
    try:
        warnings = load(given, config=config, build=build).warnings
    except ConfigurationError as raised:
        error = raised
        head, *mistakes = str(error).split("\n  - ")
        mistakes = mistakes or [head]
    if as_json:
        print(json.dumps({"ok": error is None, "mistakes": mistakes, "warnings": list(warnings)}, indent=2))
    elif error is not None:
        raise error
    else:
        print("\n".join(["the settings are good", *(f"warning: {warning}" for warning in warnings)]))
    return int(ExitCode.OK if error is None else error.exit_code)


def _show(loaded: Loaded, app: str | None, *, with_origin: bool, as_json: bool) -> int:
    known = loaded.settings.app_names
    if app is not None and app not in known:
        text = f"cannot show the settings of {app!r}: no such app{did_you_mean(app, known)}; known: {', '.join(known)}"
        print(f"supervisor: {text}", file=sys.stderr)
        return int(ExitCode.USAGE)
    if as_json:
        print(json.dumps(as_document(loaded, app), indent=2))
        return int(ExitCode.OK)
    lines = [_line(loaded, row, with_origin=with_origin) for row in rows(loaded, app)]
    for place, table in tables(loaded.settings).items():
        lines += ["", f"[{place}]", *(f"{key} = {text_of(value)}" for key, value in table.items())]
    print("\n".join(lines))
    for warning in loaded.warnings:
        print(f"supervisor: warning: {warning}", file=sys.stderr)
    return int(ExitCode.OK)


def _line(loaded: Loaded, row: Row, *, with_origin: bool) -> str:
    # One file has either the list or the tables.
    comment = "# " if row.setting == "services" and loaded.settings.user_services else ""
    return f"{comment}{row.as_toml()}" + (f"  # {row.origin}" if with_origin else "")


def _example(rest: Sequence[str], *, to_stdout: bool) -> int:
    given, config = arguments_of(rest)
    if config is None and Path("supervisor.toml").is_file():
        config = Path("supervisor.toml")
    apps: dict[str, AppSettings] = load(given, config=config, build=True).settings.apps
    text = example(apps)
    if to_stdout:
        print(text, end="")
        return int(ExitCode.OK)
    try:
        write_atomic(Path(NAME), text, mode=0o644)
        if _GUIDE.is_file():
            _refresh(_GUIDE)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {error.filename or NAME!r}: {error.strerror}; go to a folder of your own, or use --stdout"
        ) from error
    print(NAME)
    return int(ExitCode.OK)


def _refresh(guide: Path) -> None:
    """The reference between its marks; a guide of somebody else has none."""
    text = guide.read_text(encoding="utf-8")
    try:
        fresh = put_into(text)
    except ValueError:
        return
    if fresh != text:
        write_atomic(guide, fresh, mode=0o644)
        print(guide)
