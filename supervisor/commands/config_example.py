"""`.env.production.example`: every setting as a comment, with what it takes; and what apps declare they need."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from supervisor.commands.reference import kind_of
from supervisor.commands.reference_groups import GROUPS
from supervisor.core.settings import AppSettings, Settings, aliases, secret_fields, variable
from supervisor.core.settings.placeholder import PLACEHOLDER

NAME = ".env.production.example"
_HEAD = """\
# Settings of the supervisor, and values for the app. Made by `supervisor config example`; changes here are overwritten.
#
# Copy it to .env.production in the app's folder and take the # off what you need: nothing is needed by default. Lines
# without our prefix go to the app too. The environment comes first, and a missing file is no mistake, so an image
# can be built without it. `supervisor config check` looks it over.
"""
_WIDTH = 118
# What no file of this kind can say, as it is found by it.
_LEFT_OUT = frozenset({"app_dir", "stage"})


def example(apps: Mapping[str, AppSettings]) -> str:
    """The whole file."""
    parts = [_HEAD]
    if needed := list(_needed(apps)):
        parts.append("\n".join(["# == What the apps need ==", "", *needed, ""]))
    hints = get_type_hints(Settings, include_extras=True)
    for title, names in GROUPS.items():
        lines = [line for name in names if name not in _LEFT_OUT for line in _setting(name, hints[name])]
        parts.append("\n".join([f"# == {title} ==", "", *lines]))
    return "\n".join(parts)


def _setting(name: str, hint: Any) -> Iterator[str]:
    info = Settings.model_fields[name]
    kind = kind_of(hint).partition(", like ")[0].replace("`", "")
    others = f"; also {', '.join(aliases(name))}" if aliases(name) else ""
    yield from _comment(f"{(info.description or '').replace('`', '')} ({kind}{others})")
    yield f"# {variable(name)}={PLACEHOLDER if name in secret_fields() else _default(info)}"
    yield ""


def _comment(text: str) -> Iterator[str]:
    yield from (f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False))


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value) if all(isinstance(word, str) for word in value) else json.dumps(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _needed(apps: Mapping[str, AppSettings]) -> Iterator[str]:
    """What must be given for the apps; what is made by ourselves is not."""
    seen: set[str] = set()
    for app, table in apps.items():
        for name in table.env.needed:
            declared = table.env.vars.get(name)
            if name in seen or (declared is not None and declared.generate):
                continue
            seen.add(name)
            kind = f" ({declared.kind})" if declared is not None and declared.kind != "text" else ""
            yield f"# Needed by {app}{kind}."
            yield f"{name}={PLACEHOLDER}"
