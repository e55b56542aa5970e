"""Looks at the records within an export, so that none is made, or put in place, that the next start could not read."""

from __future__ import annotations

import re
from collections.abc import Callable

from supervisor.releases.state import parse as parse_releases
from supervisor.store.formats import SEQUENCES
from supervisor.store.records import INSTALL_FILE, parse_install
from supervisor.store.transfer.content import Export

_READERS: tuple[tuple[re.Pattern[str], Callable[[bytes, str], object]], ...] = (
    (re.compile(re.escape(INSTALL_FILE)), parse_install),
    (re.compile(r"releases/[^/]+/state\.json"), parse_releases),
    (re.compile(r"releases/[^/]+/sequences\.json"), SEQUENCES.read),
)


def check_records(export: Export) -> None:
    """Raises NewerFormat naming the record, and ValueError, saying why it is no state to go on with."""
    if INSTALL_FILE not in export.files:
        raise ValueError("there is no install in it")
    for path, data in export.files.items():
        for pattern, read in _READERS:
            if pattern.fullmatch(path) is None:
                continue
            try:
                read(data, path)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path!r} in it cannot be read: {error}") from None
    if parse_install(export.files[INSTALL_FILE], INSTALL_FILE).uuid != export.install:
        raise ValueError("its record of the install is not that of the install it names")
