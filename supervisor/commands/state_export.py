"""`supervisor state export`: reads the state folder at one moment, and writes it sealed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from supervisor import __version__
from supervisor.commands.state_passphrase import Passphrase
from supervisor.commands.state_records import check_records
from supervisor.core.errors import ConfigurationError, RejectedError
from supervisor.store.files import write_bytes_atomic
from supervisor.store.records import INSTALL_FILE, parse_install
from supervisor.store.transfer.collect import collect
from supervisor.store.transfer.content import RELEASES, Export
from supervisor.store.transfer.place import is_unfinished

STREAM = "-"


def export_state(state: Path, target: str, passphrase: Passphrase) -> None:
    """Write it to `target` (0600), or to standard output for `-`; then lines for people go to standard error.

    Raises SupervisorError, with nothing written.
    """
    from supervisor.store.transfer.seal import MAX_BYTES, OVERHEAD_BYTES, seal

    _refuse_target(target)
    if is_unfinished(state):
        raise RejectedError(
            f"cannot export {str(state)!r}: an import into it was cut short; "
            f"start the supervisor, which carries it to its end, then run this again"
        )
    files = collect(state, max_bytes=MAX_BYTES)
    export = _export(state, files)
    document = export.render()
    if len(document) + OVERHEAD_BYTES > MAX_BYTES:
        raise ConfigurationError(
            f"cannot export {str(state)!r}: the file would have {len(document):,} bytes, and {MAX_BYTES:,} at most are "
            f"read again; what is that big there?"
        )
    _write(target, seal(document, passphrase.to_seal()))
    for line in (f"exported install {export.install} (files: {len(files)})", *left_out(files)):
        print(line, file=sys.stderr if target == STREAM else sys.stdout)


def left_out(files: Mapping[str, bytes]) -> Iterator[str]:
    """What a reader must move by other means."""
    yield (
        "not in it: the databases (move their volumes or folders, or dump and restore them), Traefik's certificates "
        "(they are asked for anew), settings (supervisor.toml, variables, .env files)"
    )
    for app, release in sorted(active_releases(files).items()):
        yield f"not in it: the files of release {release} of app {app!r}; apply it again where the state is imported"


def active_releases(files: Mapping[str, bytes]) -> dict[str, str]:
    """By app, where it is not the image's own."""
    found: dict[str, str] = {}
    for path, data in files.items():
        match path.split("/"):
            case [folder, app, "state.json"] if folder == RELEASES:
                with suppress(ValueError, KeyError, TypeError):
                    found[app] = str(json.loads(data)["active"])
    return {app: release for app, release in found.items() if release != "baked"}


def _export(state: Path, files: Mapping[str, bytes]) -> Export:
    """One that can be imported again."""
    if INSTALL_FILE not in files:
        raise ConfigurationError(
            f"cannot export {str(state)!r}: there is no install in it; name its folder in SUPERVISOR_STATE_DIR, and "
            f"run this as the supervisor's user, in its container"
        )
    try:
        install = parse_install(files[INSTALL_FILE], state / INSTALL_FILE).uuid
        export = Export(install, _now(), __version__, files)
        check_records(export)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"cannot export {str(state)!r}: {error}; start the supervisor, which mends its records or says what to do"
        ) from error
    return export


def _refuse_target(target: str) -> None:
    """Before a person is asked anything. Only what is an export itself is written over."""
    from supervisor.store.transfer.seal import MAGIC

    if target == STREAM:
        if sys.stdout.isatty():
            raise ConfigurationError("cannot write the sealed state to a terminal; name a file, or send it to one")
        return
    place = Path(target)
    if not os.path.lexists(place):
        return
    with suppress(OSError):
        if place.is_file() and not place.is_symlink():
            with place.open("rb") as file:
                if file.read(len(MAGIC)) == MAGIC:
                    return
    raise ConfigurationError(f"cannot write {target!r}: it is there, and is no exported state; choose another name")


def _write(target: str, data: bytes) -> None:
    try:
        if target == STREAM:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_bytes_atomic(Path(target), data)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {target!r}: {error.strerror}; make room there, or choose another place"
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
