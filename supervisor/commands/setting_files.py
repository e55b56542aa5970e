"""Reads the files that settings are made of: supervisor.toml, `.env`, single values. Decides nothing."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings.sources import Named, file_variables
from supervisor.store.text_files import UnreadableError, parse_env, read_text


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; a mistake in it is an error with its line and column. Raises ConfigurationError."""
    try:
        read = tomllib.loads(read_text(path))
        if _has_null(read):
            raise UnreadableError("a text in it has a null byte, which no path and no command can have; take it out")
        return read
    except UnreadableError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error}; mend that place") from error
    except RecursionError:
        raise ConfigurationError(f"cannot read {str(path)!r}: it is nested too deep; make it flat") from None
    except ValueError:  # an impossible date, or a number of thousands of digits; its text may quote the value
        raise ConfigurationError(f"cannot read {str(path)!r}: a number or a date in it is impossible") from None


def _has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(_has_null(item) for pair in value.items() for item in pair)
    return any(map(_has_null, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def resolve_folders(toml: dict[str, Any], folder: Path) -> None:
    """`app_dir` in the file, and an app's `dir`, are meant from the file's own folder."""
    apps = toml.get("apps")
    tables = [table for table in apps.values() if isinstance(table, dict)] if isinstance(apps, dict) else []
    for table, key in ((toml, "app_dir"), *((table, "dir") for table in tables)):
        value = table.get(key)
        if isinstance(value, str):
            table[key] = os.path.realpath(folder / value)


def read_env_files(paths: Iterable[Path], *, build: bool, mistakes: list[str]) -> list[Named]:
    """Those that are there; what is wrong with one goes to `mistakes`."""
    found = []
    for path in paths:
        try:
            values = parse_env(read_text(path))
        except UnreadableError as error:
            # A folder of that name is nobody's settings.
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError) and not os.path.isdir(path):
                mistakes.append(f"{path}: {error}")
        else:
            found.append(named(values, str(path), build=build, mistakes=mistakes))
    return found


def named(values: Mapping[str, str], shown: str, *, build: bool, mistakes: list[str]) -> Named:
    """The values, with the texts of the files they name; in an image build these are not there yet."""
    files: dict[str, tuple[str, str]] = {}
    for setting, (name, path) in ({} if build else file_variables(values)).items():
        try:
            text = read_secret(path)
        except UnreadableError as error:
            mistakes.append(f"{shown + ': ' if shown else ''}{name} names {path!r}: {error}")
        else:
            files[setting] = name, text
    return Named(values=values, shown=shown, files=files)


def read_secret(path: str | Path) -> str:
    """The text of a file with one value. Raises UnreadableError."""
    text = read_text(path)
    if not text.strip():
        raise UnreadableError("it is empty; write the value into it")
    return text


def read_folder(folder: Path, names: Iterable[str], mistakes: list[str]) -> dict[str, tuple[str, str]]:
    """Path and text of each file in a folder of secrets that is called as one of `names`."""
    found: dict[str, tuple[str, str]] = {}
    try:
        there = set(os.listdir(folder))
    except (OSError, ValueError):  # most containers have none
        return found
    for name in names:
        path = folder / name
        if name in there and os.path.isfile(path):
            try:
                found[name] = str(path), read_secret(path)
            except UnreadableError as error:
                mistakes.append(f"{path}: {error}")
    return found
