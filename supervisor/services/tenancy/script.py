"""A plan as text: for people to read, and for an administrator to run where we may not. Pure, and without passwords."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.services.tenancy.names import quoted
from supervisor.services.tenancy.plan import Plan, Statement


def describe(plan: Plan) -> tuple[str, ...]:
    """A line for each step and each thing that is left as it is; empty where all is as declared."""
    return (*(_shown(statement) for statement in plan.statements), *plan.notes)


def _shown(statement: Statement) -> str:
    return f"{statement.sql} ***" if statement.password_of else statement.sql


def psql_script(plan: Plan, *, database: str) -> str:
    """What `psql -d DATABASE -f FILE` runs, all or nothing. psql itself asks for the passwords.

    They are those that `supervisor secrets get --reveal` shows; psql sends their verifiers only.
    """
    return "".join(f"{line}\n" for line in _lines(plan, database))


def _lines(plan: Plan, database: str) -> Iterator[str]:
    yield f"-- Run it as a superuser: psql -d {quoted(database)} -f THIS_FILE"
    yield "\\set ON_ERROR_STOP on"
    yield "BEGIN;"
    for statement in plan.statements:
        if statement.password_of:
            yield f"\\password {quoted(statement.password_of)}"
            yield f"{statement.sql.removesuffix(' PASSWORD')};"
        else:
            yield f"{statement.sql};"
    yield "COMMIT;"
    yield from (f"-- {note}" for note in plan.notes)
