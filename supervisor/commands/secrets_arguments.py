"""The command line of `supervisor secrets`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from supervisor.core.errors import ExitCode

_SET = """Each VAR is one of:
  VAR         asked for on the terminal without echo, or one line of standard input each
  VAR=-       standard input to its end (a key, a certificate)
  VAR=VALUE   as it is; other users of the machine see it in the list of processes for a moment
"""


class _Parser(argparse.ArgumentParser):
    """Exits with 64 on a usage error, not with argparse's 2; says nothing of the arguments, which may be secret."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: cannot read the command line; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(prog="supervisor secrets", description="What is secret in this install.", allow_abbrev=False)
    made.add_argument("--config", metavar="FILE", type=Path, help="supervisor.toml, where it is not found by itself")
    verbs = made.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    listed = verbs.add_parser("list", help="names, kinds and times; never a value", allow_abbrev=False)
    listed.add_argument("app", nargs="?", metavar="APP")
    listed.add_argument("--json", action="store_true", help="print JSON")
    put = verbs.add_parser(
        "set",
        help="keep variables for an app",
        epilog=_SET,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    put.add_argument("app", metavar="APP")
    put.add_argument("vars", nargs="+", metavar="VAR")
    unset = verbs.add_parser("unset", help="forget what was set", allow_abbrev=False)
    unset.add_argument("app", metavar="APP")
    unset.add_argument("vars", nargs="+", metavar="VAR")
    for verb in (put, unset):
        verb.add_argument("--reload", action="store_true", help="and have the running supervisor reload the app")
    get = verbs.add_parser("get", help="print one value", allow_abbrev=False)
    get.add_argument("name", metavar="NAME")
    get.add_argument("--reveal", action="store_true", help="yes, print it")
    rotate = verbs.add_parser("rotate", help="change one, without a failed request", allow_abbrev=False)
    rotate.add_argument("name", metavar="NAME", help="postgres, redis, APP/database, APP/redis, APP/VAR")
    rotate.add_argument("--json", action="store_true", help="print JSON")
    for verb in (put, unset, rotate):
        verb.add_argument("--socket", metavar="PATH", help="control socket, where it is not found by itself")
    return made
