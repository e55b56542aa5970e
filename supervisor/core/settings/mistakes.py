"""One mistake as a sentence: where the value was set, the value itself (secrets masked), and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from supervisor.core.settings.app import SETTING_OF, AppDatabase, AppRedis, AppSettings
from supervisor.core.settings.app_env import AppEnv, AppVariable
from supervisor.core.settings.model import secret_fields
from supervisor.core.settings.names import did_you_mean, variable
from supervisor.core.settings.service import UserService
from supervisor.core.settings.sources import Given

# What pydantic says in Python's words, in those of a settings file.
_PLAINER = {
    "tuple_type": "give a string or a list of strings",
    "is_instance_of": "give a string",
    "model_type": "give a table",
    "dict_type": "give a table",
}
_MOST_SHOWN = 200
_REST = re.compile(r"(=|\\n).+", re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/]+@")


def describe(detail: ErrorDetails, given: Mapping[str, Given]) -> str:
    """One mistake that pydantic found."""
    path = [str(part) for part in detail["loc"]]
    message = _PLAINER.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    field = path[0]
    one = given.get(field)
    place = one.place if one is not None else variable(field)
    if field == "user_services":
        return f"{place}: {_in_table('services', 'a service', path[1:], detail, message)}"
    if field == "apps":
        return f"{place.removesuffix(': apps')}: {_in_table('apps', 'an app', path[1:], detail, message)}"
    value = "***" if field in secret_fields() else one.value if one is not None else None
    return f"{place}{shown(value)}: {message[0].lower()}{message[1:]}"


def shown(value: object) -> str:
    """` is VALUE`, short, and without the password of an address; empty for None.

    Behind a `=` or a line's end nothing is shown: where a quote or a line's end was forgotten, what follows in the file
    has become part of the value, and that may be a secret.
    """
    if value is None:
        return ""
    try:
        text = _REST.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", repr(value)))
    except (ValueError, RecursionError):  # a number of thousands of digits has no text
        return " is too big to be shown"
    return f" is {text}" if len(text) <= _MOST_SHOWN else f" is {text[:_MOST_SHOWN]}..."


def _in_table(table: str, kind: str, path: Sequence[str], detail: ErrorDetails, message: str) -> str:
    """The same within `[services.NAME]` or `[apps.NAME]`; `env` may hold secrets, so its values are not shown."""
    if not path:
        return f"[{table}]: {message[0].lower()}{message[1:]}"
    name, *key = path
    if detail["type"] == "extra_forbidden":
        return f"{_place(table, name, key[:-1])}: unknown key {key[-1]!r}{_meant(table, key)}"
    if detail["type"] == "missing":
        return f"{_place(table, name, key[:-1])}: key {key[-1]!r} is missing"
    if key == ["[key]"]:
        return f"[{table}.{name}]: the name of {kind} is 1 to 63 of a-z 0-9 _ . -, not {name!r}"
    if "[key]" in key:
        return f"{_place(table, name, key[:-2])}: the name of a variable is letters, digits and _, not {key[-2]!r}"
    hidden = isinstance(detail["input"], Mapping) or "env" in key or not key
    said = "" if hidden else shown(detail["input"])
    place = f"[{table}.{name}]" + (f": {'.'.join(key)}" if key else "")
    return f"{place}{said}: {message[0].lower()}{message[1:]}"


def _place(table: str, name: str, path: Sequence[str]) -> str:
    return f"[{'.'.join([table, name, *path])}]"


def _meant(table: str, key: Sequence[str]) -> str:
    """The key that was meant, for one that is unknown."""
    if table == "services":
        return did_you_mean(key[-1], UserService.model_fields)
    model = _model_at(key[:-1])
    known = {info.alias or name for name, info in model.model_fields.items()}
    short = {setting: name for name, setting in SETTING_OF.items()}.get(key[-1])
    return f"; did you mean {short!r}?" if short and short in known else did_you_mean(key[-1], known)


def _model_at(path: Sequence[str]) -> type[BaseModel]:
    """Whose keys stand at this place of an app's table."""
    models: dict[str, type[BaseModel]] = {"database": AppDatabase, "redis": AppRedis, "env": AppEnv}
    if len(path) >= 2:
        return AppVariable
    return models[path[0]] if path else AppSettings
