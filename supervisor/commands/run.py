"""`supervisor run`: parse, load the settings, hand over to the daemon. argparse, not typer: this stays in memory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor.commands.arguments import Arguments
from supervisor.core.errors import ExitCode, SupervisorError
from supervisor.core.settings import OPTIONS, TABLES, Settings, did_you_mean


def parser() -> argparse.ArgumentParser:
    """The command line of `run`."""
    made = Arguments(
        prog="supervisor run",
        description="Bring the stack up and keep it up, as PID 1 or as a plain process.",
        epilog="Every setting is also a variable SUPERVISOR_X and a key of supervisor.toml; see CONTAINERIZATION.md.",
        allow_abbrev=False,
    )
    for name in OPTIONS:
        info = Settings.model_fields[name]
        made.add_argument("--" + name.replace("_", "-"), metavar="X", help=info.description)
    made.add_argument("--config", type=Path, metavar="FILE", help="supervisor.toml to read")
    made.add_argument("--no-services", action="store_true", help="the app alone: no Postgres, Redis, Traefik")
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    made.add_argument("command", nargs="*", metavar="-- CMD ARGS", help="the app, instead of APP_COMMAND")
    return made


def arguments_of(argv: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """Settings given on the command line, and the configuration file named there. Raises SystemExit(64)."""
    made = parser()
    options, command = _split(argv)
    parsed = made.parse_args(options)
    given = {name: getattr(parsed, name) for name in OPTIONS if getattr(parsed, name) is not None}
    for pair in parsed.set:
        name, separator, value = pair.partition("=")
        name = name.strip().lower().replace("-", "_").removeprefix("supervisor_")
        if not separator:
            made.error(f"--set {pair!r}: it reads NAME=VALUE")
        if name not in Settings.model_fields or name in TABLES:
            made.error(f"--set {pair!r}: no setting of that name{did_you_mean(name, Settings.model_fields)}")
        given[name] = value
    if parsed.no_services:
        given["mode"] = "none"
    words = [*parsed.command, *command]
    if words:
        given["app_command"] = words
    return given, parsed.config


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Ours, and what stands behind `--`."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def main(
    argv: Sequence[str],
    *,
    latched: list[int] | None = None,
    entry_mask: frozenset[int] = frozenset(),
    entry_ignored: frozenset[int] = frozenset(),
) -> int:
    """Run until stopped; gives the exit code. Errors before the log is up go to standard error."""
    try:
        given, config = arguments_of(argv)
        from supervisor.commands.load_settings import load, load_again

        loaded = load(given, config=config)
        from supervisor.daemon import Entry, run_daemon

        entry = Entry(latched if latched is not None else [], entry_mask, entry_ignored)
        return run_daemon(loaded, entry, lambda reaper: load_again(given, reaper, config=config))
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.USAGE)
