"""What a database holds of what is declared: plain values, read elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.services.tenancy.rights import Right

_MARK = "container-supervisor: stack {stack}, app "


def mark(stack: str, app: str) -> str:
    """The comment by which what we made is known as ours, and whose it is."""
    return _MARK.format(stack=stack) + app


def marked_app(stack: str, comment: str | None) -> str:
    """The app that a comment says a thing was made for; empty where it is not ours."""
    found = re.fullmatch(re.escape(_MARK.format(stack=stack)) + r"(\S+)", comment or "")
    return found[1] if found else ""


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role as it is. `power` are the attributes an app must not have, by their SQL names.

    `used_by`: of the install's role and ours now, those that have its rights. `fits`: whether its password is the one
    it shall have; None where it shall have none.
    """

    comment: str = ""
    can_login: bool = False
    inherits: bool = True
    power: tuple[str, ...] = ()
    member_of: frozenset[str] = frozenset()
    used_by: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    fits: bool | None = None


@dataclass(frozen=True)
class Schema:
    """A schema as it is."""

    owner: str
    comment: str = ""


@dataclass(frozen=True, order=True)
class Owned:
    """A thing in a schema that is not of the owner it shall have; `kind` and `name` as ALTER ... OWNER TO has them."""

    schema: str
    kind: str
    name: str
    owner: str


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All of it. `admin` is the role we are logged in as, `powers` the attributes it has.

    Of a right on all of a schema, `full` has it where it is held on every thing there, `some` where on any.
    `open_routines`: functions that everybody may run (`name(arguments)`, quoted), by schema. `strays`: logins that own
    something themselves. `open_databases`: other databases that every role may enter.
    """

    admin: str
    superuser: bool
    may_create_roles: bool
    owns_database: bool
    version: int
    install_is_superuser: bool = False
    roles: Mapping[str, Role] = field(default_factory=dict)
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    full: frozenset[Right] = frozenset()
    some: frozenset[Right] = frozenset()
    owned: tuple[Owned, ...] = ()
    open_routines: tuple[tuple[str, str], ...] = ()
    strays: tuple[str, ...] = ()
    open_databases: tuple[str, ...] = ()
