"""What an app's things are called in Postgres and Redis, and how a name stands in SQL. Pure."""

from __future__ import annotations

from enum import StrEnum

from supervisor.core.errors import ConfigurationError

LONGEST = 63
"""Bytes of a name in Postgres; what is longer would be cut off without an error (NAMEDATALEN - 1)."""
PUBLIC_SCHEMA = "public"


class Slot(StrEnum):
    """Which of an app's two logins; while one is in use, the other is free for the next password."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The one that is not in use."""
        return Slot.B if self is Slot.A else Slot.A


def role_name(stack: str, app: str) -> str:
    """The role that owns what is the app's; nobody logs in as it. Raises ConfigurationError for a name too long.

    The stack's name stands first: roles are the whole server's, so an app called `postgres`, or one of another stack on
    the same server, takes no one else's, and a name that Postgres reserves (`pg_...`, `public`) is never made.
    """
    name = f"{stack}_{app}"
    if len(login_name(name, Slot.A).encode()) > LONGEST:
        raise ConfigurationError(
            f"cannot make a role for app {app!r}: {name!r} is longer than the {LONGEST - 2} bytes Postgres has for it; "
            f"give the app or the stack (SUPERVISOR_STACK) a shorter name"
        )
    return name


def login_name(role: str, slot: Slot) -> str:
    """The role an app logs in as: it acts as `role` from its first statement on."""
    return f"{role}_{slot}"


def schema_name(app: str) -> str:
    """The schema an app has where it declares none: its name, dashes as underscores."""
    return app.replace("-", "_")


def quoted(name: str) -> str:
    """A name as SQL has it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL has it, with standard_conforming_strings on."""
    return "'" + text.replace("'", "''") + "'"
