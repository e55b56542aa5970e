"""The sources of settings as plain values, and what each of them says of which setting. Nothing is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.settings.model import Settings, aliases, plain_fields, secret_fields
from supervisor.core.settings.names import NOT_SETTINGS, PREFIX, unknown_names, variable
from supervisor.core.settings.placeholder import is_placeholder, refusal

FETCHED = "SECRETS_COMMAND"
# What is known only from these settings cannot say them anew.
_FINDS_FILES = frozenset({"app_dir", "stage"})
_FINDS_SECRETS = frozenset({"secrets_command", "secrets_seconds", "secrets_dir"})


@dataclass(frozen=True)
class Given:
    """A value before it is understood: of which setting, where it was said, and how a report names that place."""

    setting: str
    value: Any
    origin: str
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Named:
    """Values by the names of variables: the environment, a `.env` file, what the secrets command printed.

    `shown` is empty for the environment. `files` are the texts of the files that `X_FILE` variables name, by setting.
    """

    values: Mapping[str, str]
    shown: str = ""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def given(self) -> Iterator[Given]:
        """What it says, the variable itself before its aliases, either before their files."""
        for setting in plain_fields():
            if setting in self.files:
                name, text = self.files[setting]
                yield Given(setting, text.strip(), self._place(name), self._place(name))
                continue
            for name in (variable(setting), *aliases(setting)):
                if self.values.get(name):
                    yield Given(setting, self.values[name], self._place(name), self._place(name))
                    break

    def _place(self, name: str) -> str:
        return f"{self.shown}: {name}" if self.shown else name

    def mistakes(self) -> Iterator[str]:
        """What is wrong with the names alone."""
        for name in _file_pairs():
            if self.values.get(name) and self.values.get(f"{name}_FILE"):
                place = self._place(name)
                yield f"{place} and {name}_FILE are both set: it is not known which is meant; unset one of them"
        if self.shown:
            yield from self._mistakes_in_file()

    def _mistakes_in_file(self) -> Iterator[str]:
        yield from (self._place(f"unknown setting {text}") for text in unknown_variables(self.values))
        early = _FINDS_FILES | (_FINDS_SECRETS if self.shown == FETCHED else frozenset())
        if self.shown.endswith("/.env"):
            early -= {"stage"}
        for name in ["SUPERVISOR_CONFIG", *(name for one in sorted(early) for name in (variable(one), *aliases(one)))]:
            if self.values.get(name):
                yield f"{self._place(name)} comes too late: it says where this is read; set it in the environment"
        ours = {name for setting in plain_fields() for name in (variable(setting), *aliases(setting))}
        for name, value in self.values.items():
            if name not in ours and is_placeholder(value):  # those that are settings are looked at with all others
                yield refusal(self._place(name))

    def for_app(self) -> dict[str, str]:
        """What of it the app is given too: all but the names of ours."""
        return {name: value for name, value in self.values.items() if not name.startswith(PREFIX)}


def _file_pairs() -> list[str]:
    """The variables that may be given by a file: of secrets also the aliases, which others set for themselves else."""
    secret = set(secret_fields())
    return [
        name
        for setting in plain_fields()
        if setting not in _FINDS_FILES
        for name in (variable(setting), *(aliases(setting) if setting in secret else ()))
    ]


def file_variables(values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """`{setting: (variable, path)}` for the `X_FILE` variables there are.

    As without a file, the variable itself comes before its aliases. Where X and X_FILE are set, `Named` says so.
    """
    found: dict[str, tuple[str, str]] = {}
    allowed = set(_file_pairs())
    for setting in plain_fields():
        for name in (variable(setting), *aliases(setting)):
            if values.get(name):
                break
            path = values.get(f"{name}_FILE") if name in allowed else None
            if path:
                found[setting] = f"{name}_FILE", path
                break
    return found


def unknown_variables(values: Mapping[str, str]) -> list[str]:
    """Names under our prefix that are no settings, each with the one that was meant."""
    known = {variable(name) for name in plain_fields()} | NOT_SETTINGS
    files = {f"{name}_FILE" for name in _file_pairs()}
    unknown = (name for name in sorted(values) if name.startswith(PREFIX) and name not in known and name not in files)
    return unknown_names(unknown, known, quoted=False)


def mountable() -> list[str]:
    """The settings that may lie as a file in the folder of secrets."""
    return [name for name in plain_fields() if name not in _FINDS_FILES | _FINDS_SECRETS]


def from_toml(toml: Mapping[str, Any], shown: str, mistakes: list[str]) -> Iterator[Given]:
    """What supervisor.toml says; `[services.NAME]` tables are a setting of their own."""
    unknown: list[str] = []
    for key, value in toml.items():
        name = "user_services" if key == "services" and isinstance(value, Mapping) else key
        if name not in Settings.model_fields or key == "user_services":
            unknown.append(key)
        else:
            yield Given(name, value, shown, shown if isinstance(value, Mapping) else f"{shown}: {name}")
    mistakes.extend(f"{shown}: unknown key {text}" for text in unknown_names(unknown, list(Settings.model_fields)))
