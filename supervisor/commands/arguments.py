"""The command line of commands that are parsed by argparse, as they must not cost a daemon its memory."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from supervisor.core.errors import ExitCode


class Arguments(argparse.ArgumentParser):
    """Exits with 64 on a usage error, not with argparse's 2."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))
