"""`supervisor state import`: opens a sealed state, looks at all of it, and only then puts it in place."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from supervisor.commands.state_export import STREAM, left_out
from supervisor.commands.state_passphrase import Passphrase
from supervisor.core.errors import ConfigurationError, RejectedError, SupervisorError
from supervisor.releases.state import parse as parse_releases
from supervisor.store.files import StateLock, make_folder
from supervisor.store.formats import SEQUENCES
from supervisor.store.records import INSTALL_FILE, parse_install
from supervisor.store.transfer.content import Export
from supervisor.store.transfer.place import finish, place, present

_CHECKS: tuple[tuple[re.Pattern[str], Callable[[bytes, str], object]], ...] = (
    (re.compile(re.escape(INSTALL_FILE)), parse_install),
    (re.compile(r"releases/[^/]+/state\.json"), parse_releases),
    (re.compile(r"releases/[^/]+/sequences\.json"), SEQUENCES.read),
)


def import_state(state: Path, source: str, passphrase: Passphrase, *, force: bool = False) -> None:
    """Make `state` what the sealed file `source` (`-`: standard input) holds. Raises SupervisorError, nothing changed.

    A folder that holds an install is refused without `force`, and kept within itself with it.
    """
    export = open_export(_read(source), "standard input" if source == STREAM else source, passphrase)
    make_folder(state, mode=0o711)
    lock = StateLock(state / "lock")
    try:
        lock.take()
        _give_to_owner(state)
        kept = _place(state, export, force=force)
    except OSError as error:
        raise SupervisorError(
            f"cannot import into {str(state)!r}: {(error.strerror or str(error)).lower()}; run this as the "
            f"supervisor's user, with room on the disk; nothing was changed unless a start says so"
        ) from error
    finally:
        lock.drop()
    print(f"imported install {export.install}, as it was at {export.at}: {len(export.files)} files in {str(state)!r}")
    if kept is not None:
        print(f"what was there is kept in {str(kept)!r}; delete it once all is well, as its secrets are in it")
    for line in left_out(export.files):
        print(line)


def open_export(sealed: bytes, place: str, passphrase: Passphrase) -> Export:
    """What is in a sealed file, looked at throughout; `place` is where it is from. Raises SupervisorError."""
    from supervisor.store.transfer.seal import check, unseal

    try:
        check(sealed)
        export = Export.parse(unseal(sealed, passphrase.to_open()), place)
        _check_records(export.files, export.install)
    except ValueError as error:
        raise RejectedError(f"cannot import {place!r}: {error}") from None
    return export


def _check_records(files: Mapping[str, bytes], install: str) -> None:
    """Records that the next start could not read are refused now. Raises NewerFormat, and ValueError saying why."""
    if INSTALL_FILE not in files:
        raise ValueError("there is no install in it")
    for path, data in files.items():
        for pattern, read in _CHECKS:
            if pattern.fullmatch(path) is None:
                continue
            try:
                read(data, path)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path!r} in it cannot be read: {error}") from None
    if parse_install(files[INSTALL_FILE], INSTALL_FILE).uuid != install:
        raise ValueError("its record of the install is not that of the install it names")


def _place(state: Path, export: Export, *, force: bool) -> Path | None:
    finish(state)
    if (there := present(state)) and not force:
        raise RejectedError(
            f"cannot import into {str(state)!r}: there is a state in it ({', '.join(there)}); choose another folder "
            f"with SUPERVISOR_STATE_DIR, or replace it with --force, which keeps it beside"
        )
    return place(state, export.files, at=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


def _give_to_owner(state: Path) -> None:
    """The lock that root has made must open for the supervisor's user."""
    if os.geteuid() == 0:
        owner = state.stat()
        os.chown(state / "lock", owner.st_uid, owner.st_gid, follow_symlinks=False)


def _read(source: str) -> bytes:
    from supervisor.store.transfer.seal import MAX_BYTES

    def bounded(file: BinaryIO) -> bytes:
        return file.read(MAX_BYTES + 1)

    try:
        if source == STREAM:
            return bounded(sys.stdin.buffer)
        with Path(source).open("rb") as file:
            return bounded(file)
    except OSError as error:
        raise ConfigurationError(f"cannot read {source!r}: {error.strerror}; check its name and mode") from error
