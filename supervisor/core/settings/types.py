"""The types settings are made of: what a text may look like, and how it is read."""

from __future__ import annotations

import json
import re
import shlex
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from supervisor.core.secret import Secret

FIELDS = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=True)
"""How every part of the settings is made."""
TABLE = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
"""The same for a table of supervisor.toml."""
_SHELL = re.compile(r"[|&;<>()$`*?~#\n]")


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


def words(value: object) -> object:
    """A comma- or line-separated string, or a JSON list, as a tuple of strings."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                return tuple(json.loads(text))
            except ValueError as error:
                raise ValueError(f"not a JSON list: {error}") from None
        return tuple(item.strip() for item in re.split(r"[,\n]", text) if item.strip())
    return tuple(value) if isinstance(value, list) else value


def _service_words(value: object) -> object:
    """As `words`; an empty variable counts as not set, so there is a word for no service."""
    return () if value == "none" else words(value)


def _lines(value: object) -> object:
    """One item a line, or a JSON list, as a tuple of strings (commas are part of a command)."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return tuple(line.strip() for line in value.splitlines() if line.strip())
    return words(value)


def parse_command(value: object) -> object:
    """A command as argv: a list as it is, a string split as a shell would; with shell signs in it, `sh -c` runs it."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if _SHELL.search(text):
            return ("/bin/sh", "-c", text)
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise ValueError(f"unbalanced quotes: {error}") from None
    if isinstance(value, list | tuple):
        return tuple(str(word) for word in value) or None
    return value


def _command(value: object) -> object:
    argv = parse_command(value)
    if argv is None and value is not None:
        raise ValueError("it is empty; give a command, or leave the setting out")
    return argv


SecretStr = Annotated[Secret, BeforeValidator(_secret)]
Argv = Annotated[tuple[str, ...], BeforeValidator(_command)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
ServiceWords = Annotated[tuple[str, ...], BeforeValidator(_service_words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
Port = Annotated[int, Field(ge=1, le=65535)]
FreePort = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")]
UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")]
HealthPath = Annotated[str, Field(pattern=r"^/\S*$")]
SecondsOrZero = Annotated[float, Field(ge=0, le=86400)]
AtLeastZero = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Stage = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
StopSignal = Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"]
Restart = Literal["no", "on-failure", "always"]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
