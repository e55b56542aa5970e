"""The settings as people are shown them: each value with its origin, secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from supervisor.commands.reference_groups import GROUPS
from supervisor.core.secret import Secret
from supervisor.core.settings import Loaded, Settings, variable

DEFAULT = "default"
_MASK = "***"
_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/]+@")


@dataclass(frozen=True)
class Row:
    """One setting: its value as JSON has it, masked, and where it came from."""

    setting: str
    value: Any
    origin: str

    def as_toml(self) -> str:
        """A line of supervisor.toml; what is not set stands there as a comment."""
        if self.value is None:
            return f"# {self.setting} is not set"
        return f"{self.setting} = {text_of(self.value)}"


def rows(loaded: Loaded, app: str | None = None) -> Iterator[Row]:
    """Every setting in the order of the reference; as it holds for `app`, where one is named. Raises KeyError."""
    settings, said = loaded.settings, set[str]()
    if app is not None:
        settings = settings.for_app(app)
        said = set(loaded.settings.apps[app].said()) if loaded.settings.apps else set()
    for name in (name for names in GROUPS.values() for name in names):
        origin = loaded.origins.get(name, DEFAULT)
        if name in said:
            origin = f"{loaded.origins['apps']}: [apps.{app}]"
        yield Row(name, masked(getattr(settings, name)), origin)


def tables(settings: Settings) -> dict[str, dict[str, Any]]:
    """The tables of services and apps, without what is not set in them."""
    found: dict[str, dict[str, Any]] = {}
    for kind, named in (("services", settings.user_services), ("apps", settings.apps)):
        for name, table in named.items():
            found[f"{kind}.{name}"] = masked(table)
    return found


def masked(value: Any, name: str = "") -> Any:
    """As JSON has it, without secrets; in tables without what is not set."""
    if isinstance(value, Secret):
        return _MASK
    if isinstance(value, BaseModel):
        return {
            info.alias or key: masked(getattr(value, key), key)
            for key, info in type(value).model_fields.items()
            if getattr(value, key) is not None or key in ("database", "redis")
        }
    if isinstance(value, Mapping):
        # A service's `env` is what it is given: nobody knows what of it is secret.
        return {key: _MASK if name == "env" else masked(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, name) for item in value]
    if isinstance(value, bool | int | float):
        return value
    if value is None:
        return False if name in ("database", "redis") else None
    return _MASK if _SECRET_NAMES.search(name) and not isinstance(value, Path) else _text(str(value))


def _text(value: str) -> str:
    """Printable whatever bytes the environment has, and without the password of an address."""
    return _URL_PASSWORD.sub(rf"\1{_MASK}@", value.encode("utf-8", "backslashreplace").decode())


def text_of(value: Any) -> str:
    """As supervisor.toml has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {text_of(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(text_of(item) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def as_document(loaded: Loaded, app: str | None) -> dict[str, Any]:
    """For `--json`."""
    return {
        "settings": {
            row.setting: {"value": row.value, "origin": row.origin, "variable": variable(row.setting)}
            for row in rows(loaded, app)
        },
        "tables": tables(loaded.settings),
        "apps": list(loaded.settings.app_names),
        "warnings": list(loaded.warnings),
    }
