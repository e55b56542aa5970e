"""`supervisor state export | import`: all that an install remembers, in one sealed file. Needs no supervisor."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from supervisor.commands.arguments import Arguments
from supervisor.commands.load_settings import load
from supervisor.commands.state_export import export_state
from supervisor.commands.state_import import import_state
from supervisor.commands.state_passphrase import VARIABLE, Passphrase
from supervisor.core.errors import ExitCode, SupervisorError
from supervisor.state import Paths

_FILE = "the sealed file; - for standard %s"
_PASSPHRASE = f"file with the passphrase; default: the one in {VARIABLE}, else it is asked for on the terminal"
_UNKNOWN = "unrecognized arguments"


class _Parser(Arguments):
    """Quotes nothing that may be a passphrase."""

    def error(self, message: str) -> NoReturn:
        unknown = message.startswith(_UNKNOWN)  # what follows may be a passphrase
        super().error(f"{_UNKNOWN}; a passphrase is given in a file" if unknown else message)


def parser() -> argparse.ArgumentParser:
    """The command line of `state`."""
    made = _Parser(
        prog="supervisor state",
        description="Carry what an install remembers to another machine, or keep it safe: install, secrets, ports, "
        "verified facts, the records of releases. Databases and releases themselves are not in it.",
        allow_abbrev=False,
    )
    verbs = made.add_subparsers(dest="verb", required=True, metavar="export | import")
    out = verbs.add_parser("export", help="write it to a sealed file; the supervisor may run", allow_abbrev=False)
    out.add_argument("file", metavar="FILE", help=_FILE % "output")
    out.add_argument("--passphrase-file", type=Path, metavar="F", help=_PASSPHRASE)
    back = verbs.add_parser("import", help="put it in place here; no supervisor may run", allow_abbrev=False)
    back.add_argument("file", metavar="FILE", help=_FILE % "input")
    back.add_argument("--passphrase-file", type=Path, metavar="F", help=_PASSPHRASE)
    back.add_argument("--force", action="store_true", help="replace the install that is here, and keep it beside")
    return made


def main(argv: Sequence[str]) -> int:
    """Do it and say so; gives the exit code."""
    try:
        given = parser().parse_args(list(argv))
        paths = _paths(os.environ)
        passphrase = Passphrase(given.passphrase_file, os.environ)
        if given.verb == "export":
            export_state(paths.state, given.file, passphrase)
        else:
            import_state(paths.state, given.file, passphrase, force=given.force)
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.USAGE)
    return int(ExitCode.OK)


def _paths(environ: Mapping[str, str]) -> Paths:
    """Where a run with this environment keeps its state."""
    settings = load({}, environ={name: text for name, text in environ.items() if name != VARIABLE}).settings
    return Paths.of(settings, dict(environ))
