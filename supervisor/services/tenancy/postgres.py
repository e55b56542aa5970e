"""Makes a database as declared, one transaction at a time; changes and locks logins. What to do is `plan`'s."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from supervisor.core.errors import PrivilegeError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.names import Slot, literal, quoted
from supervisor.services.tenancy.observed import Observed
from supervisor.services.tenancy.plan import Plan, Statement, lock_sql, plan_tenancy
from supervisor.services.tenancy.reading import read_observed
from supervisor.services.tenancy.session import Session, can_log_in, open_session, url_for
from supervisor.services.tenancy.tenant import Wish
from supervisor.services.tenancy.verifier import make_verifier

_DOING = "set up the apps' roles and schemas"
_LIMIT_SECONDS = 60.0
# Durable when it returns, whatever the server's own setting: a record is promoted on the strength of it. A table that
# a long transaction holds is not waited for for ever, as the app would queue behind us.
_GUARDS = "SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '10s'"


@dataclass(frozen=True)
class PostgresTenancy:
    """The apps' part of one database. `admin` is the URL of its superuser, or of its owner with CREATEROLE."""

    admin: Secret
    limit_seconds: float = _LIMIT_SECONDS

    async def plan(self, wish: Wish, *, hand_over: bool = False, confirm: bool = False) -> Plan:
        """What `ensure` would do; nothing is changed."""
        async with open_session(self.admin, doing=_DOING, limit_seconds=self.limit_seconds) as session:
            async with session.transaction(readonly=True):
                observed = await self._observe(session, wish)
            return plan_tenancy(wish, observed, hand_over=hand_over, confirm=confirm)

    async def ensure(self, wish: Wish, *, hand_over: bool = False, confirm: bool = False) -> Plan:
        """Make it as declared, all or nothing; gives what was done. Where all is so, only reads are made.

        Two at once wait for each other. Raises ConfigurationError for what is somebody else's, PrivilegeError where
        `admin` may not, TransientError where a lock is held for long, UnreachableError where nobody answers.
        """
        verifiers = {login: make_verifier(password) for login, password in wish.passwords().items()}
        async with (
            open_session(self.admin, doing=_DOING, limit_seconds=self.limit_seconds) as session,
            session.transaction(),
        ):
            await session.execute(_GUARDS)
            await session.execute(f"SELECT pg_advisory_xact_lock({_lock_key(wish.stack)})")
            observed = await self._observe(session, wish)
            done = plan_tenancy(wish, observed, hand_over=hand_over, confirm=confirm)
            if done.statements:
                _require_power(observed)
            for statement in done.statements:
                await session.execute(_sql(statement, verifiers))
        return done

    async def _observe(self, session: Session, wish: Wish) -> Observed:
        """Only a superuser may see verifiers; without one, a password is known by trying it."""
        observed = await read_observed(session, wish)
        if observed.superuser:
            return observed
        roles = dict(observed.roles)
        for login, password in wish.passwords().items():
            if (role := roles.get(login)) is not None and role.can_login:
                fits = await can_log_in(url_for(self.admin, role=login, password=password))
                roles[login] = replace(role, fits=fits)
        return replace(observed, roles=roles)

    def url(self, wish: Wish, app: str, slot: Slot, password: Secret) -> Secret:
        """What the app gets as DATABASE_URL."""
        login = wish.login(wish.tenant(app), slot)
        return url_for(self.admin, role=login, password=password, database=wish.database)

    async def open_login(self, login: str, password: Secret) -> None:
        """Let `login` in with this password; other logins, and sessions that it has, are not touched."""
        await set_password(self.admin, login, password, limit_seconds=self.limit_seconds, unlock=True)

    async def close_login(self, login: str) -> None:
        """Let nobody in as `login`, and end the sessions it still has; call it when nothing uses it any more."""
        doing = f"close login {login!r}"
        async with open_session(self.admin, doing=doing, limit_seconds=self.limit_seconds) as session:
            async with session.transaction():
                await session.execute(_GUARDS)
                await session.execute(lock_sql(login))
            # Each is waited for: what is told to end may still answer once.
            await session.fetch(
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                "WHERE usename = $1 AND pid <> pg_backend_pid()",
                login,
            )


async def set_password(
    dsn: Secret, role: str, password: Secret, *, limit_seconds: float = _LIMIT_SECONDS, unlock: bool = False
) -> None:
    """Change a role's password over a login that may (its own does); durable when it returns.

    The server gets the verifier alone, so no log, view or trace of it can have the password. From then on the old one
    opens no new session, and those that are open live on.
    """
    verifier = make_verifier(password)
    login = "LOGIN " if unlock else ""
    doing = f"set the password of role {role!r}"
    async with open_session(dsn, doing=doing, limit_seconds=limit_seconds) as session, session.transaction():
        await session.execute(_GUARDS)
        if await session.fetchval("SELECT session_user = $1", role):
            # Only as itself may a role change its own password, and an app's login acts as another.
            await session.execute("SET LOCAL ROLE NONE")
        await session.execute(f"ALTER ROLE {quoted(role)} {login}PASSWORD {literal(verifier)}")


def _sql(statement: Statement, verifiers: Mapping[str, str]) -> str:
    if not statement.password_of:
        return statement.sql
    return f"{statement.sql} {literal(verifiers[statement.password_of])}"


def _require_power(observed: Observed) -> None:
    if observed.superuser or (observed.may_create_roles and observed.owns_database):
        return
    lacks = [] if observed.may_create_roles else ["has no CREATEROLE"]
    lacks += [] if observed.owns_database else ["does not own the database"]
    raise PrivilegeError(
        f"cannot {_DOING}: role {observed.admin!r} {' and '.join(lacks)}; give it that, or have an administrator run "
        f"what `supervisor tenancy plan --sql` prints, or set `database = false` for the apps to leave it alone"
    )


def _lock_key(stack: str) -> int:
    digest = hashlib.sha256(f"supervisor tenancy {stack}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
