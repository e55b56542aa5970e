"""`supervisor state import`: opens a sealed state, looks at all of it, and only then puts it in place."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from supervisor.commands.state_export import STREAM, left_out
from supervisor.commands.state_passphrase import Passphrase
from supervisor.commands.state_records import check_records
from supervisor.core.errors import ConfigurationError, RejectedError, SupervisorError
from supervisor.store.files import StateLock, make_folder
from supervisor.store.transfer.content import Export
from supervisor.store.transfer.place import finish, place, present


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
            f"cannot import into {str(state)!r}: {(error.strerror or str(error)).lower()}; make room there, or "
            f"run this as the supervisor's user; then run it again"
        ) from error
    finally:
        lock.drop()
    print(f"imported install {export.install} of {export.at} into {str(state)!r} (files: {len(export.files)})")
    print("start a supervisor here only where none of that install runs any more: the two would be taken for one")
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
        check_records(export)
    except ValueError as error:
        raise RejectedError(f"cannot import {place!r}: {error}") from None
    return export


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
