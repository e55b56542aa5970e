"""One value of several sources: command line, environment, secret files, supervisor.toml, default.

The reading of files and of the environment is the caller's (`commands/load_settings`); this module only decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings.checks import check_all
from supervisor.core.settings.mistakes import describe
from supervisor.core.settings.model import Loaded, Settings, aliases, plain_fields, secret_fields
from supervisor.core.settings.names import NOT_SETTINGS, PREFIX, argument_name, did_you_mean, variable


def secret_file_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """`{setting: (variable, path)}` for the `X_FILE` forms of secret settings in `environ`.

    As without a file, the variable itself comes before its aliases. Where X and X_FILE are set, `build` says so.
    """
    found: dict[str, tuple[str, str]] = {}
    for field in secret_fields():
        for name in (variable(field), *aliases(field)):
            if environ.get(name):
                break
            path = environ.get(f"{name}_FILE")
            if path:
                found[field] = f"{name}_FILE", path
                break
    return found


def _both_set(environ: Mapping[str, str]) -> Iterator[str]:
    for field in secret_fields():
        for name in (variable(field), *aliases(field)):
            if environ.get(name) and environ.get(f"{name}_FILE"):
                yield f"{name} and {name}_FILE are both set: it is not known which is meant; unset one of them"


def build(
    *,
    arguments: Mapping[str, Any],
    environ: Mapping[str, str],
    secret_files: Mapping[str, str],
    toml: Mapping[str, Any],
    toml_name: str,
    defaults: Mapping[str, Any] | None = None,
    earlier: Sequence[str] = (),
) -> Loaded:
    """Merge the sources and validate. Raises ConfigurationError that lists every mistake, not only the first.

    `arguments` and `toml` map setting to value, `secret_files` setting to the text of its file. `defaults` are what
    stands in for the model's own, and `earlier` the mistakes that were found while the sources were read.
    """
    mistakes = [*earlier, *_both_set(environ)]
    given = [*_from_toml(toml, toml_name, mistakes), *_from_environment(environ)]
    given += [(name, text.strip(), f"{variable(name)}_FILE") for name, text in secret_files.items()]
    given += [(name, value, argument_name(name)) for name, value in arguments.items()]
    merged = {**(defaults or {}), **{name: value for name, value, _ in given}}
    origins = {name: origin for name, _, origin in given}
    bad: set[str] = set()
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        mistakes.extend(describe(detail, merged, origins) for detail in error.errors())
        bad = {str(detail["loc"][0]) for detail in error.errors()}
        settings = Settings(**{name: value for name, value in merged.items() if name not in bad})
    # What needs a look at several settings, where all of those are good by themselves.
    mistakes.extend(check_all(settings, bad))
    if mistakes:
        raise ConfigurationError("cannot use the settings:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))
    return Loaded(settings=settings, origins=origins, warnings=tuple(_unknown_variables(environ)))


def _from_toml(toml: Mapping[str, Any], toml_name: str, mistakes: list[str]) -> Iterator[tuple[str, Any, str]]:
    for key, value in toml.items():
        name = "user_services" if key == "services" and isinstance(value, Mapping) else key
        if name not in Settings.model_fields or key == "user_services":
            mistakes.append(f"{toml_name}: unknown key {key!r}{did_you_mean(key, Settings.model_fields)}")
        else:
            yield name, value, toml_name


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    for name in plain_fields():
        for candidate in (variable(name), *aliases(name)):
            if environ.get(candidate):
                yield name, environ[candidate], candidate
                break


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {variable(name) for name in plain_fields()} | NOT_SETTINGS
    files = {f"{variable(name)}_FILE" for name in secret_fields()}
    return [
        f"unknown setting {name}{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known | files
    ]
