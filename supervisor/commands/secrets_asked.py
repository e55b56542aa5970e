"""Values for `secrets set`: from the terminal without echo, from standard input, or from the command line."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TextIO

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.store.app_secrets import MAX_BYTES

_REST = "-"


def given_values(app: str, words: Sequence[str], source: TextIO) -> dict[str, Secret]:
    """By name, in the order given. Raises ConfigurationError where standard input has not all of them."""
    if sum(word.endswith(f"={_REST}") for word in words) > 1:
        raise ConfigurationError("cannot read two values to the end of standard input; give one at a time")
    return {name: _value(app, name, equals, text, source) for name, equals, text in map(_parted, words)}


def _parted(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def _value(app: str, name: str, equals: str, text: str, source: TextIO) -> Secret:
    if equals and text != _REST:
        return Secret(text)
    try:
        return Secret(_read(app, name, source, to_end=bool(equals)))
    except (UnicodeDecodeError, EOFError) as error:
        why = "it ended" if isinstance(error, EOFError) else "it is not UTF-8 text"
        raise ConfigurationError(f"cannot read {name} from standard input: {why}; give a line for each") from None


def _read(app: str, name: str, source: TextIO, *, to_end: bool) -> str:
    if to_end:
        return source.read(MAX_BYTES + 1)
    if source.isatty():
        return getpass.getpass(f"{name} of app {app!r}: ")
    line = source.readline(MAX_BYTES + 2)
    if not line:
        raise EOFError
    return line.removesuffix("\n").removesuffix("\r")
