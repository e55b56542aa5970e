"""Where the passphrase of a sealed state comes from: a file, or a person; no argument, as every user reads those."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret

VARIABLE = "SUPERVISOR_STATE_PASSPHRASE_FILE"
LEAST_CHARACTERS = 12
_MAX_BYTES = 1024


class Passphrase:
    """From `file`, else the file that the environment names, else the terminal. Raises ConfigurationError."""

    def __init__(self, file: Path | None, environ: Mapping[str, str]) -> None:
        named = environ.get(VARIABLE, "")
        self._file = file if file is not None else Path(named) if named else None

    def to_seal(self) -> Secret:
        """A person gives it twice. A short one is refused: whoever gets the file may guess for ever."""
        if self._file is not None:
            given = _read(self._file)
        else:
            given = _ask("Passphrase to seal the state with: ")
            if given != _ask("The same again: "):
                raise ConfigurationError("cannot seal the state: the two passphrases differ; try again")
        if len(given.reveal()) < LEAST_CHARACTERS:
            raise ConfigurationError(
                f"cannot seal the state: the passphrase has less than {LEAST_CHARACTERS} characters; take a longer one "
                f"(`openssl rand -base64 24`)"
            )
        return given

    def to_open(self) -> Secret:
        """As it was given to seal."""
        return _read(self._file) if self._file is not None else _ask("Passphrase of the sealed state: ")


def _read(file: Path) -> Secret:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"cannot read the passphrase in {str(file)!r}: {why}; check --passphrase-file or {VARIABLE}"
        ) from error
    text = text.rstrip("\r\n")
    if not text or len(text.encode()) > _MAX_BYTES:
        raise ConfigurationError(
            f"cannot use the passphrase in {str(file)!r}: it is empty, or has more than {_MAX_BYTES:,} bytes; "
            f"write one line into it"
        )
    return Secret(text)


def _ask(prompt: str) -> Secret:
    """On the terminal itself: standard input may be the sealed file."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        raise ConfigurationError(
            f"cannot ask for the passphrase: there is no terminal; give it with --passphrase-file or {VARIABLE}"
        ) from error
    try:
        return Secret(getpass.getpass(prompt))
    except (EOFError, KeyboardInterrupt) as error:
        raise ConfigurationError("cannot go on without a passphrase; give it once more") from error
