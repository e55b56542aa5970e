"""What a release says of its app beside the files: the `[release]` table of `release.toml`, and the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from supervisor.core.errors import ExitCode
from supervisor.core.settings import did_you_mean
from supervisor.releases import manifest
from supervisor.releases.build.refusal import refusal
from supervisor.releases.manifest import Name
from supervisor.releases.model import ReleaseError

FILE = "release.toml"
_TABLE = "release"
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Platform(manifest.Platform):
    model_config = _STRICT


class _Health(manifest.Health):
    model_config = _STRICT


class _FrontHints(manifest.FrontHints):
    model_config = _STRICT


class _Schema(manifest.Schema):
    model_config = _STRICT


class _Migrations(manifest.Migrations):
    model_config = _STRICT


class ReleaseOptions(manifest.Said):
    """As in the manifest, but an unknown key is a mistake here: it is a person's who writes it."""

    model_config = _STRICT

    app: Name | None = None
    platform: _Platform = _Platform()
    health: _Health = _Health()
    front: _FrontHints = _FrontHints()
    schema_: _Schema = Field(_Schema(), alias="schema")
    migrations: _Migrations = _Migrations()

    def as_values(self) -> dict[str, Any]:
        """For a manifest: what was given."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude={"app"})


def read_options(folder: Path, given: Mapping[str, Any]) -> ReleaseOptions:
    """The table of `folder`, overridden by `given`, whose keys have dots (`health.path`).

    Raises ReleaseError with every mistake of both.
    """
    values, mistakes = _read_table(folder / FILE)
    for key, value in given.items():
        _put(values, key.split("."), value)
    options = ReleaseOptions()
    try:
        options = ReleaseOptions.model_validate(values)
    except ValidationError as error:
        mistakes += [_describe(detail, given) for detail in error.errors()]
    mistakes += _cross_check(options)
    if mistakes:
        refused = refusal(f"build a release of {str(folder)!r}", mistakes)
        refused.exit_code = ExitCode.CONFIGURATION
        raise refused
    return options


def _read_table(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}, []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReleaseError(f"cannot read {str(path)!r}: {error}; mend that place") from error
    except OSError as error:
        raise ReleaseError(f"cannot read {str(path)!r}: {error.strerror}; make it a readable file") from error
    table = values.pop(_TABLE, {})
    mistakes = [f"{FILE}: unknown key {key!r}; what a release says stands below [{_TABLE}]" for key in values]
    if not isinstance(table, dict):
        return {}, [*mistakes, f"{FILE}: {_TABLE} is {table!r}; make it a table, [{_TABLE}]"]
    return table, mistakes


def _put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """A value of the command line, over that of the file."""
    for key in keys[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[keys[-1]] = value


def option_of(key: str) -> str:
    """How `key` is named on the command line."""
    return "--" + key.replace(".", "-").replace("_", "-")


def _describe(detail: ErrorDetails, given: Mapping[str, Any]) -> str:
    path = [str(part) for part in detail["loc"]]
    if detail["type"] == "extra_forbidden":
        return f"{FILE}: unknown key {'.'.join(path)!r}{_nearest(path)}"
    key = ".".join(path)
    where = next((option_of(name) for name in given if f"{key}.".startswith(f"{name}.")), f"{FILE}: {key}")
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where} is {_shown(detail['input'])}: {message[0].lower()}{message[1:]}"


def _nearest(path: list[str]) -> str:
    model: Any = ReleaseOptions
    for part in path[:-1]:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = fields[part].annotation
    return did_you_mean(path[-1], [field.alias or name for name, field in model.model_fields.items()])


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, datetime) else repr(value)


def _cross_check(options: ReleaseOptions) -> list[str]:
    """What is seen only by a look at several of them."""
    level, lowest = options.schema_.level, options.schema_.min_supported
    mistakes = [
        f"{path!r} is in both replace and merge: it comes whole from the archive or it does not; take it out of one"
        for path in options.replace
        if path in options.merge
    ]
    if lowest > level:
        mistakes.append(f"schema.min_supported is {lowest}, above schema.level {level}; the code must live on its own")
    return mistakes
