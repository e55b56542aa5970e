"""Where each variable of an app gets its value from, in a fixed order; what is missing or wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.core.secret import Secret
from supervisor.core.settings import SECRET, AppEnv, AppVariable
from supervisor.environment.bindings import Facts, filled
from supervisor.environment.rules import why_wrong

_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@")


class Origin(StrEnum):
    """Where a value came from; the first that has one wins, in this order."""

    EXTERNAL = "given to us"
    COMPUTED = "computed"
    GIVEN = "set by `supervisor secrets set`"
    GENERATED = "generated"
    DEFAULT = "the declared default"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is known of one app before anything is looked up.

    `external` is what we were given ourselves, `given` what the user has set for this app, `bindings` the table of
    names with templates.
    """

    app: str
    declared: AppEnv
    facts: Facts
    bindings: Mapping[str, str]
    external: Mapping[str, str] = field(repr=False)
    given: Mapping[str, Secret]


@dataclass(frozen=True)
class Value:
    """One variable's value, and where it came from."""

    secret: Secret
    origin: Origin
    as_file: bool = False

    @property
    def is_secret(self) -> bool:
        """Whether it must not be printed."""
        made = self.as_file or self.origin in (Origin.GIVEN, Origin.GENERATED)
        return made or _WITH_PASSWORD.match(self.secret.reveal()) is not None


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """An app's variables by name. `missing` are names; `wrong` says why, by name, without the value."""

    app: str
    values: Mapping[str, Value]
    missing: tuple[str, ...] = ()
    wrong: Mapping[str, str] = field(default_factory=dict)


def resolve(wanted: Wanted, generate: Callable[[str], Secret]) -> Resolved:
    """Look up all that is declared, set or bound. `generate` gives the app's kept random value of a name."""
    values: dict[str, Value] = {}
    missing: list[str] = []
    wrong: dict[str, str] = {}
    declared = wanted.declared
    for name in dict.fromkeys([*declared.needed, *declared.optional, *wanted.given, *wanted.bindings]):
        value = _look_up(name, wanted, generate)
        rule = declared.vars.get(name, AppVariable())
        if value is not None:
            values[name] = value
            if why := why_wrong(value.secret.reveal(), rule):
                wrong[name] = why
        elif name in declared.needed:
            missing.append(name)
    return Resolved(app=wanted.app, values=values, missing=tuple(missing), wrong=wrong)


def _look_up(name: str, wanted: Wanted, generate: Callable[[str], Secret]) -> Value | None:
    rule = wanted.declared.vars.get(name, AppVariable())
    as_file = rule.give == "file"
    if wanted.external.get(name):
        return Value(Secret(wanted.external[name]), Origin.EXTERNAL, as_file)
    template = wanted.bindings.get(name, "")
    if template and template != SECRET and (made := filled(template, wanted.facts)) is not None:
        return Value(Secret(made), Origin.COMPUTED, as_file)
    if name in wanted.given:
        return Value(wanted.given[name], Origin.GIVEN, as_file)
    if rule.generate or template == SECRET:
        return Value(generate(name), Origin.GENERATED, as_file)
    default = wanted.declared.optional.get(name)
    return Value(Secret(default), Origin.DEFAULT, as_file) if default is not None else None


def complaint(apps: list[Resolved]) -> str:
    """One message for all apps, with the commands that mend it; empty where nothing is missing or wrong."""
    lines: list[str] = []
    commands: list[str] = []
    for found in apps:
        lines += [f"  - app {found.app!r}: {name} is missing" for name in found.missing]
        lines += [f"  - app {found.app!r}: {name} {why}" for name, why in found.wrong.items()]
        if names := [*found.missing, *found.wrong]:
            commands.append(f"    supervisor secrets set {found.app} {' '.join(names)}")
    if not lines:
        return ""
    head = "cannot start the apps: variables that they need are missing or wrong"
    mend = "set them (each value is asked for), or give them in the container's environment, then start again:"
    return "\n".join([f"{head}", *lines, f"  {mend}", *commands])
