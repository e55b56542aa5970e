"""The settings reference in CONTAINERIZATION.md, from the settings model: `python -m supervisor.commands.reference`.

Without an argument it is printed; with `--write` it is put between its marks in the checkout's file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from supervisor.commands.reference_groups import GROUPS
from supervisor.core import settings as model
from supervisor.core.errors import ExitCode
from supervisor.core.settings import AppDatabase, AppEnv, AppRedis, AppSettings, AppVariable, Settings, UserService
from supervisor.core.settings.app import SETTING_OF
from supervisor.core.settings.app_env import VariableNames
from supervisor.store.files import write_atomic

GUIDE = Path(__file__).resolve().parents[2] / "CONTAINERIZATION.md"
BEGIN = "<!-- settings: made by scripts/docs from supervisor/core/settings; changes here are overwritten -->"
END = "<!-- end of settings -->"
_USAGE = "usage: python -m supervisor.commands.reference [--write]\n"

_APP_TABLES: dict[str, type[BaseModel]] = {
    "`database`": AppDatabase,
    "`redis`": AppRedis,
    "`[apps.NAME.env]`": AppEnv,
    "`[apps.NAME.env.vars.VARIABLE]`": AppVariable,
}
_KINDS: tuple[tuple[object, str], ...] = (
    (model.SecretStr, "text, secret"),
    (model.Argv, "command"),
    (model.Words, "list of words"),
    (VariableNames, "list of variables"),
    (model.ServiceWords, "list of words"),
    (model.Lines, "list of lines"),
    (model.Port, "port, 1 to 65535"),
    (model.FreePort, "port, 0 to 65535"),
    (model.Seconds, "seconds, above 0 to 86400"),
    (model.Name, "name: 1 to 63 of a-z 0-9 _ . -"),
    (bool, "`true` or `false`"),
    (Path, "path"),
    (IPv4Address, "IPv4 address"),
    (IPv4Network, "IPv4 network"),
    (str, "text"),
    (dict[str, str], "table of texts"),
)


def section() -> str:
    """The whole section: a table a group, then the one of `[services.NAME]`."""
    parts = [_group(title, fields) for title, fields in GROUPS.items()]
    parts += [_service_table(), *_app_tables()]
    return "\n".join(parts)


def _group(title: str, fields: Sequence[str]) -> str:
    hints = get_type_hints(Settings, include_extras=True)
    rows = [_row(name, hints[name]) for name in fields]
    head = ["| Variable | Also | `supervisor.toml` | What it takes | Default | Meaning |", "|---|---|---|---|---|---|"]
    return "\n".join([f"### {title}", "", *head, *rows, ""])


def _row(name: str, hint: Any) -> str:
    info = Settings.model_fields[name]
    kind = kind_of(hint)
    others = [f"`{alias}`" for alias in model.aliases(name)]
    if "secret" in kind:
        others += [f"`{variable}_FILE`" for variable in (model.variable(name), *model.aliases(name))]
    if name in model.OPTIONS:
        others.append(f"`--{name.replace('_', '-')}`")
    return _cells(f"`{model.variable(name)}`", ", ".join(others), f"`{name}`", kind, _default(info), info.description)


def _service_table() -> str:
    hints = get_type_hints(UserService, include_extras=True)
    rows = [
        _cells(f"`{name}`", kind_of(hints[name]), _default(info), info.description)
        for name, info in UserService.model_fields.items()
    ]
    head = ["| Key | What it takes | Default | Meaning |", "|---|---|---|---|"]
    return "\n".join(["### `[services.NAME]`, services of your own, in `supervisor.toml` only", "", *head, *rows, ""])


def _app_tables() -> list[str]:
    """The tables of `[apps.NAME]`: the keys of its own, then those that are settings."""
    own = {key: info for key, info in AppSettings.model_fields.items() if key not in SETTING_OF}
    parts = ["### `[apps.NAME]`, one of several apps, in `supervisor.toml` only", "", _keys(AppSettings, own)]
    rows = [_cells(f"`{key}`", f"`{setting}`") for key, setting in SETTING_OF.items()]
    head = [
        "Said of one app; what is not said holds as in general. `command` must be given, and stands for itself.",
        "",
    ]
    head += ["| Key | As the setting |", "|---|---|"]
    parts.append("\n".join([*head, *rows, ""]))
    for title, table in _APP_TABLES.items():
        parts.append("\n".join([f"#### {title}", "", _keys(table, table.model_fields)]))
    return parts


def _keys(table: type[BaseModel], fields: Mapping[str, FieldInfo]) -> str:
    hints = get_type_hints(table, include_extras=True)
    rows = [
        _cells(f"`{info.alias or name}`", _kind_in_table(hints[name]), _default(info), info.description)
        for name, info in fields.items()
    ]
    return "\n".join(["| Key | What it takes | Default | Meaning |", "|---|---|---|---|", *rows, ""])


def _kind_in_table(hint: Any) -> str:
    text = str(hint)
    if "dict[" in text or "AppEnv" in text:
        return "table"
    return "table, or `false`" if "AppDatabase" in text or "AppRedis" in text else kind_of(hint)


def _cells(*cells: str | None) -> str:
    return "| " + " | ".join((cell or "").replace("|", "\\|") for cell in cells) + " |"


def kind_of(hint: Any) -> str:
    """What a setting of this type takes, in words."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not NoneType)
    for known, words in _KINDS:
        if hint == known:
            return words
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is Annotated:
        return _constrained(hint)
    raise TypeError(f"no words for {hint!r}; add them to _KINDS")


def _constrained(hint: Any) -> str:
    base, *extras = get_args(hint)
    limits = [limit for extra in extras for limit in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
    upper = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    for limit in limits:
        if isinstance(limit, Ge) and upper is not None:
            return f"number, {limit.ge} to {upper}"
        if isinstance(limit, Ge):
            return f"number from {limit.ge}"
        if getattr(limit, "pattern", None):
            return f"{kind_of(base)}, like `{limit.pattern}`"
    return kind_of(base)


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "(must be given)"
    if value is None or value == () or value == {} or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(list(value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def put_into(text: str) -> str:
    """`text` with the section between its marks made anew; raises ValueError where the marks are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are not in it")
    return f"{before}{BEGIN}\n\n{section()}\n{END}{after}"


def main(argv: Sequence[str]) -> int:
    """Print the section, or write it."""
    if list(argv) == ["--write"]:
        write_atomic(GUIDE, put_into(GUIDE.read_text(encoding="utf-8")), mode=0o644)
    elif not argv:
        print(section())
    else:
        sys.stderr.write(_USAGE)
        return int(ExitCode.USAGE)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
