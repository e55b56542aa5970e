"""What a role tries, to prove what it may do and what not; and what its catalogue entries should say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from supervisor.services.tenancy.names import literal, quoted
from supervisor.services.tenancy.plan import CLOSED_TO_ALL
from supervisor.services.tenancy.rights import OWNER_PRIVILEGES, Target, apart
from supervisor.services.tenancy.tenant import Tenant, Wish

TABLE_PRIVILEGES = OWNER_PRIVILEGES[Target.TABLES]
_NAME = "supervisor_check"


@dataclass(frozen=True)
class Attempt:
    """One statement, for a transaction that is rolled back; `what` ends "it may " and "it may not "."""

    what: str
    sql: str
    allowed: bool


@dataclass(frozen=True)
class Sample:
    """A table to try, by a column of it."""

    schema: str
    table: str
    column: str


def allowed_on_tables(wish: Wish, tenant: Tenant, schema: str) -> frozenset[str]:
    """What an app may do with tables of a schema that has an owner among the declared."""
    if schema in tenant.schemas:
        return frozenset(TABLE_PRIVILEGES if tenant.owner else ("SELECT", "INSERT", "UPDATE", "DELETE"))
    read = {name for app in tenant.reads for name in wish.tenant(app).schemas}
    return frozenset({"SELECT"} if schema in read else ())


def attempts(wish: Wish, tenant: Tenant, schemas: Sequence[str], samples: Sequence[Sample]) -> Iterator[Attempt]:
    """All an app tries: in each schema, on a table of each, and against the server as a whole."""
    for schema in schemas:
        may = tenant.owner and schema in tenant.schemas
        yield Attempt(f"CREATE in schema {schema!r}", f"CREATE TABLE {quoted(schema)}.{_NAME} ()", may)
    for sample in samples:
        yield from _on_table(sample, allowed_on_tables(wish, tenant, sample.schema))
    yield Attempt("make a schema", f"CREATE SCHEMA {_NAME}", tenant.owner)
    yield Attempt("make a temporary table", f"CREATE TEMPORARY TABLE {_NAME} ()", True)
    yield from _on_server(wish, tenant)


def _on_table(sample: Sample, allowed: frozenset[str]) -> Iterator[Attempt]:
    """EXPLAIN asks for the same rights as the statement and runs nothing: no trigger, no step of a sequence."""
    name = f"{quoted(sample.schema)}.{quoted(sample.table)}"
    shown = f"{sample.schema}.{sample.table}"
    column = quoted(sample.column)
    statements = {
        "SELECT": f"SELECT {column} FROM {name} LIMIT 0",  # noqa: S608  (quoted)
        "INSERT": f"EXPLAIN INSERT INTO {name} ({column}) VALUES (DEFAULT)",  # noqa: S608  (quoted)
        "UPDATE": f"EXPLAIN UPDATE {name} SET {column} = DEFAULT",  # noqa: S608  (quoted)
        "DELETE": f"EXPLAIN DELETE FROM {name}",  # noqa: S608  (quoted)
    }
    for privilege, sql in statements.items():
        yield Attempt(f"{privilege} on {shown}", sql, privilege in allowed)


def _on_server(wish: Wish, tenant: Tenant) -> Iterator[Attempt]:
    others = [wish.install, *(wish.role(other) for other in apart(wish) if other is not tenant)]
    for role in others:
        yield Attempt(f"become role {role!r}", f"SET LOCAL ROLE {literal(role)}", False)
    yield Attempt("make a role", f"CREATE ROLE {_NAME}", False)
    yield Attempt("make itself a superuser", "ALTER ROLE CURRENT_USER SUPERUSER", False)
    yield Attempt("read files of the server", "SELECT pg_read_file('PG_VERSION')", False)
    yield Attempt("take in files of the server", "SELECT lo_import('PG_VERSION')", False)
    yield Attempt("run programs on the server", "COPY (SELECT 1) TO PROGRAM 'true'", False)
    yield Attempt("see what is kept of passwords", "SELECT rolpassword FROM pg_authid LIMIT 0", False)


def closed_databases(wish: Wish) -> tuple[str, ...]:
    """Other databases that an app must not be able to enter."""
    return CLOSED_TO_ALL if wish.ours and apart(wish) else ()
