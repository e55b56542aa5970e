"""The secrets command: run once, what it prints as names and values. Never a word of that in an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio

from supervisor.core.errors import ConfigurationError
from supervisor.core.groups import plain_errors
from supervisor.observe.redact import Redactor
from supervisor.process.capture import Captured, capture
from supervisor.process.child import Command, explain_spawn_error
from supervisor.process.reaper import Reaper
from supervisor.store.text_files import MAX_BYTES, UnreadableError, parse_env

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|_ID$|URL$", re.IGNORECASE)
_MOST_QUOTED = 500


@dataclass(frozen=True)
class SecretsCommand:
    """What to run, where, how long at most. `environ` is all of its environment."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    folder: str | None
    seconds: float


Fetch = Callable[[SecretsCommand], dict[str, str]]


def fetch_now(wanted: SecretsCommand) -> dict[str, str]:
    """Run it before there is a loop; blocks at most `seconds` and a little. Raises ConfigurationError."""
    with plain_errors():
        return anyio.run(_alone, wanted)


async def _alone(wanted: SecretsCommand) -> dict[str, str]:
    reaper = Reaper()
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        try:
            found = await fetch(wanted, reaper)
        finally:
            group.cancel_scope.cancel()
    return found


async def fetch(wanted: SecretsCommand, reaper: Reaper) -> dict[str, str]:
    """Run it as a child of `reaper`; cancelling ends it. Raises ConfigurationError."""
    command = Command(name="secrets", argv=wanted.argv, env=wanted.environ, cwd=wanted.folder)
    try:
        captured = await capture(reaper, command, max_bytes=MAX_BYTES, seconds=wanted.seconds)
    except OSError as error:
        raise ConfigurationError(f"{explain_spawn_error(command, error)} (SECRETS_COMMAND)") from error
    return understood(captured, wanted)


def understood(captured: Captured, wanted: SecretsCommand) -> dict[str, str]:
    """What it printed, by name. Raises ConfigurationError with its standard error, masked."""
    program = wanted.argv[0]
    if captured.too_much:
        raise ConfigurationError(
            f"cannot fetch secrets: {program!r} (SECRETS_COMMAND) printed more than {MAX_BYTES // 1024} KiB; "
            f"have it print only names and values"
        )
    if captured.status is None:
        raise ConfigurationError(
            f"cannot fetch secrets: {program!r} (SECRETS_COMMAND) did not end within {wanted.seconds:g} s"
            f"{_quoted(captured, wanted)}; check that it can reach its server, or raise SUPERVISOR_SECRETS_SECONDS"
        )
    if captured.status:
        raise ConfigurationError(
            f"cannot fetch secrets: {program!r} (SECRETS_COMMAND) ended with status {captured.status}"
            f"{_quoted(captured, wanted)}; run it by hand to see why"
        )
    try:
        return parse_secrets(captured.output)
    except UnreadableError as error:
        raise ConfigurationError(
            f"cannot fetch secrets: {program!r} (SECRETS_COMMAND) printed what is neither KEY=VALUE lines nor JSON "
            f'{{"KEY": "value"}}: {error}'
        ) from None


def _quoted(captured: Captured, wanted: SecretsCommand) -> str:
    """What it said on standard error, without anything that may be secret."""
    redactor = Redactor()
    for name, value in wanted.environ.items():
        if _SECRET_NAMES.search(name):
            redactor.register_secret(value)
    # It may have printed some already, and the same again as an error.
    for word in captured.output.decode(errors="replace").replace('"', " ").replace("=", " ").split():
        redactor.register_secret(word)
    text = redactor.text(" / ".join(line.strip() for line in captured.errors if line.strip()))
    return f" and said: {text[:_MOST_QUOTED]}" if text else ""


def parse_secrets(data: bytes) -> dict[str, str]:
    """Names and values of dotenv or JSON. Raises UnreadableError that quotes nothing."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8 text") from None
    if "\0" in text:
        raise UnreadableError("it has a null byte")
    if text.lstrip().startswith("{"):
        return _from_json(text)
    found = parse_env(text)
    if text.strip() and not found:
        raise UnreadableError("there is no KEY=VALUE line in it")
    return found


def _from_json(text: str) -> dict[str, str]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UnreadableError(f"it is not whole JSON{where}") from None
    found: dict[str, str] = {}
    for at, (name, value) in enumerate(read.items(), 1):
        if not _NAME.fullmatch(name):
            raise UnreadableError(f"the name of entry {at} is not made of letters, digits and _")
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int | float) or "\0" in str(value):
            raise UnreadableError(f"the value of {name} is no text")
        found[name] = str(value)
    return found
