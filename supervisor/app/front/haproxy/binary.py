"""Finding HAProxy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from supervisor.core.errors import ConfigurationError

_SYSTEM = "/usr/local/sbin:/usr/sbin"
"""Where packages put it; not on every user's PATH."""


def find_haproxy(wanted: Path | None, search: str) -> str | None:
    """The program that was asked for, else the first on `search` (as PATH is written); None where there is none.

    Raises ConfigurationError for one that was asked for and is not there.
    """
    if wanted is None:
        return shutil.which("haproxy", path=f"{search}:{_SYSTEM}")
    if not os.access(wanted, os.X_OK) or wanted.is_dir():
        raise ConfigurationError(
            f"cannot use SUPERVISOR_HAPROXY_BINARY={str(wanted)!r}: there is no such program; "
            "correct it, or unset it to have haproxy found"
        )
    return str(wanted)
