"""`supervisor env check`: which variables each app would get, from where, and what is missing or wrong. Needs no
supervisor, changes nothing, and prints no value.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from supervisor.commands.arguments import Arguments
from supervisor.commands.load_settings import load
from supervisor.commands.run import arguments_of
from supervisor.core.errors import ExitCode, SupervisorError
from supervisor.core.mode import Mode
from supervisor.core.secret import Secret
from supervisor.core.settings import AppEnv, Loaded, Settings
from supervisor.detect.detect import detect
from supervisor.detect.launch import Order
from supervisor.environment.bindings import WELL_KNOWN
from supervisor.environment.resolve import Origin, Resolved, complaint
from supervisor.planning.variables import AppVariables, declared
from supervisor.stack.placement import built_in_services
from supervisor.state import Paths

_TOLD = frozenset({"HOST", "HOSTNAME"})
"""What every app is told besides, where it is to listen."""
# As long and of the form that the start makes them, so that what an app declares of them can be judged.
_URLS = {"postgres": "postgresql://{0}:" + "-" * 43 + "@127.0.0.1:5432/{0}", "redis": "redis://{0}:-@127.0.0.1:6379/0"}


@dataclass(frozen=True)
class Compared:
    """What an app reads beside what it declares. `why`: where not all of it was seen; empty where it was."""

    undeclared: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    why: str = ""


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know are options of `run`."""
    made = Arguments(
        prog="supervisor env check",
        description="Which variables each app would get, and from where.",
        epilog="Takes the options of `supervisor run` too, such as --config. Exits with 0; 78 where variables are "
        "missing or wrong, as the start would; 1 where --detect finds a difference.",
        allow_abbrev=False,
    )
    made.add_argument("--detect", action="store_true", help="run each app apart and compare what it reads")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def main(argv: Sequence[str]) -> int:
    """Look, print; gives the exit code."""
    try:
        parsed, rest = parser().parse_known_args(argv)
        given, config = arguments_of(rest)
        loaded = load(given, config=config)
        found = _look_up(loaded)
        compared = {one.app: _compare(one.app, loaded.settings) for one in found} if parsed.detect else {}
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.USAGE)
    text = complaint(found)
    tables = {one.app: declared(loaded.settings, one.app) for one in found}
    as_json = parsed.json
    print(json.dumps(_as_dict(found, compared, text), indent=2) if as_json else _as_text(found, tables, compared))
    if text:
        print(f"supervisor: {text}", file=sys.stderr)
        return int(ExitCode.CONFIGURATION)
    differs = any(one.undeclared or one.unread for one in compared.values())
    return int(ExitCode.REJECTED if differs else ExitCode.OK)


def _look_up(loaded: Loaded) -> list[Resolved]:
    settings = loaded.settings
    variables = AppVariables(
        environ=os.environ,
        secrets_folder=Paths.of(settings, dict(os.environ)).state / "secrets",
        database_url=partial(_url, settings, "postgres"),
        redis_url=partial(_url, settings, "redis"),
        make=False,
    )
    return [variables.of(name, loaded.for_app(name)) for name in settings.app_names]


def _url(settings: Settings, service: str, app: str) -> Secret | None:
    """A text in the place of the URL that the start makes; None where there will be none."""
    table = settings.apps.get(app)
    place = getattr(table, "database" if service == "postgres" else "redis") if table is not None else True
    external = settings.database_url if service == "postgres" else settings.redis_url
    if place is None or external is not None:
        return external if place is not None else None
    mode = Mode(settings.mode) if settings.mode in list(Mode) else Mode.EMBEDDED
    return Secret(_URLS[service].format(app)) if service in built_in_services(settings, mode) else None


def _compare(app: str, settings: Settings) -> Compared:
    """Runs the app as `supervisor env detect` does; blocks for some seconds."""
    own = settings.for_app(app)
    order = Order(
        entry=shlex.join(own.app_command) if isinstance(own.app_command, tuple) else str(own.app_command or ""),
        app_dir=own.app_dir.resolve(),
        path=os.environ.get("PATH", os.defpath),
        language=os.environ.get("LANG", "C.UTF-8"),
        given={},
    )
    try:
        found = anyio.run(detect, order)
    except SupervisorError as error:
        return Compared(why=str(error))
    read = {variable.name for variable in (*found.required, *found.optional)}
    return compare(read, declared(settings, app), {*WELL_KNOWN, *settings.bindings}, found.why)


def compare(read: set[str], env: AppEnv, bound: set[str], why: str = "") -> Compared:
    """What is read but neither declared nor `bound`, and what is declared and not read. Of what was seen only in part
    nothing is known of the latter.
    """
    names = {*env.needed, *env.optional}
    meant = {
        name: {name, f"{name}_FILE"} if env.vars.get(name) and env.vars[name].give == "file" else {name}
        for name in names
    }
    undeclared = read.difference(bound, _TOLD, *meant.values())
    unread = () if why else tuple(sorted(name for name in names if not meant[name] & read))
    return Compared(tuple(sorted(undeclared)), unread, why)


def _as_dict(found: Sequence[Resolved], compared: dict[str, Compared], text: str) -> dict[str, Any]:
    """The form is documented under "Variables of the apps" and stays."""
    apps = []
    for one in found:
        variables = [
            {"name": name, "from": value.origin.name.lower(), "give": "file" if value.as_file else "env"}
            for name, value in one.values.items()
        ]
        app: dict[str, Any] = {"app": one.app, "variables": variables, "missing": list(one.missing)}
        app["wrong"] = dict(one.wrong)
        if seen := compared.get(one.app):
            app["detected"] = {
                "complete": not seen.why,
                "why": seen.why or None,
                "not_declared": list(seen.undeclared),
                "never_read": list(seen.unread),
            }
        apps.append(app)
    return {"ok": not text, "message": text or None, "apps": apps}


def _as_text(found: Sequence[Resolved], tables: dict[str, AppEnv], compared: dict[str, Compared]) -> str:
    width = max((len(name) for one in found for name in (*one.values, *one.missing)), default=0)
    lines: list[str] = []
    for one in found:
        lines.append(f"app {one.app}")
        lines += [f"  {name:<{width}}  missing" for name in one.missing]
        names = {*tables[one.app].needed, *tables[one.app].optional}
        lines += [f"  {name:<{width}}  {_about(one, name)}" for name in one.values if name in names]
        if bound := [name for name in one.values if name not in names]:
            lines.append(f"  by its name alone: {', '.join(bound)}")
        lines += [f"  {text}" for text in _told(compared.get(one.app, Compared()))]
    return "\n".join(lines)


def _about(one: Resolved, name: str) -> str:
    value = one.values[name]
    text = "computed at the start" if value.origin is Origin.COMPUTED else str(value.origin)
    if value.as_file:
        text += f", in the file that {name}_FILE names"
    return f"{text}; wrong: it {one.wrong[name]}" if name in one.wrong else text


def _told(seen: Compared) -> list[str]:
    told = [f"read, but not declared: {', '.join(seen.undeclared)}"] if seen.undeclared else []
    told += [f"declared, but never read: {', '.join(seen.unread)}"] if seen.unread else []
    return [*told, f"not all that it reads was seen: {seen.why}"] if seen.why else told
