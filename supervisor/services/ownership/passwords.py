"""Passwords on the engine: set in a running Postgres from inside, carried by Swarm secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.engine import resources
from supervisor.engine.errors import Conflict, EngineRefused, NotFound
from supervisor.engine.labels import INSTALL, STACK
from supervisor.services.swarm.spec import MANAGED, MANAGER, SERVICE, Owner, SecretFile

EXEC_SECONDS = 30.0
_HASH_DIGITS = 12
_ID_DIGITS = 64
_SQL = "SUPERVISOR_SQL"
# The shell prints by itself, so the statements are in no argument of any process.
_RUN_SQL = f'printf %s "${_SQL}" | psql --no-psqlrc --no-password --quiet --set ON_ERROR_STOP=1 --file=- >/dev/null'
_SOCKETS = "/var/run/postgresql"
_NO_CONNECTION = 2  # psql(1), "Exit Status"


class PasswordEngine(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def containers(self) -> resources.Containers: ...

    @property
    def secrets(self) -> resources.Payloads: ...


async def reset_postgres_password(
    engine: PasswordEngine, container: str, *, role: str, database: str, password: Secret
) -> None:
    """Set the password of `role` from inside the container of a Postgres that serves, whatever the old one is.

    Goes over the unix socket, which the official images trust. Raises UnreachableError where that gives no connection,
    ConfigurationError where the statement fails; done twice, it is done once.
    """
    env = {
        _SQL: password_sql(role, password),
        "PGHOST": _SOCKETS,
        "PGUSER": role,
        "PGDATABASE": database,
        "PGAPPNAME": "container-supervisor",
    }
    done = await engine.containers.exec(container, ["/bin/sh", "-c", _RUN_SQL], env=env, timeout_seconds=EXEC_SECONDS)
    if done.exit_code == 0:
        return
    why = _why(done, password)
    by_hand = f"set it by hand: `docker exec -it {_short(container)} psql -U {role} {database}`, then `\\password`"
    if done.exit_code == _NO_CONNECTION:
        raise UnreachableError(
            f"cannot set the password of role {role!r}: its own unix socket does not let us in ({why}); "
            f"let pg_hba.conf trust `local` connections, or {by_hand}"
        )
    raise ConfigurationError(f"cannot set the password of role {role!r}: {why}; {by_hand}")


def password_sql(role: str, password: Secret) -> str:
    """The statements; the server's log does not get them, where the role may say so. Raises ConfigurationError."""
    if "\0" in password.reveal():
        raise ConfigurationError(
            f"cannot set the password of role {role!r}: it has a zero byte, which Postgres cannot store; choose another"
        )
    name = '"' + role.replace('"', '""') + '"'
    quoted = "'" + password.reveal().replace("'", "''") + "'"
    quiet = ("log_statement", "none"), ("log_min_error_statement", "panic"), ("log_min_duration_statement", "-1")
    settings = ", ".join(f"set_config('{setting}', '{value}', false)" for setting, value in quiet)
    return (
        f"SELECT {settings} FROM pg_roles WHERE rolname = current_user AND rolsuper;\n"  # noqa: S608  (constants)
        "SET standard_conforming_strings = on;\n"
        f"ALTER ROLE {name} LOGIN PASSWORD {quoted};\n"
    )


def _short(container: str) -> str:
    """An id by its first digits, a name whole."""
    return container[:12] if len(container) == _ID_DIGITS else container


def _why(done: resources.ExecResult, password: Secret) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return " / ".join(text.replace(password.reveal() or "\0", "***").splitlines()[-3:]) or f"exit code {done.exit_code}"


def secret_name(owner: Owner, role: str, data: bytes) -> str:
    """Secrets never change, so each content has a name of its own; the install in it makes it ours."""
    digest = hashlib.sha256(owner.install.encode() + data).hexdigest()
    return f"{owner.stack}-{role}-{digest[:_HASH_DIGITS]}"


async def ensure_secret(engine: PasswordEngine, owner: Owner, role: str, file: str, data: bytes) -> SecretFile:
    """The secret with this content for the services of `role`, as a file of that name; made where there is none."""
    name = secret_name(owner, role, data)
    with suppress(NotFound):
        return await _read(engine, name, file)
    try:
        return SecretFile(name, await engine.secrets.create(name, data, owner.labels(role)), file)
    except Conflict:  # another made it since: of the same name is of the same content
        return await _read(engine, name, file)


async def _read(engine: PasswordEngine, name: str, file: str) -> SecretFile:
    return SecretFile(name, str((await engine.secrets.inspect(name))["ID"]), file)


async def drop_old_secrets(engine: PasswordEngine, owner: Owner, keep: Collection[str]) -> tuple[str, ...]:
    """Remove secrets of this install and stack that nothing uses, but for the names in `keep`; gives what it removed.

    Call it once the services run with the new ones; a secret that is in use stays.
    """
    wanted = {INSTALL: owner.install, STACK: owner.stack, MANAGED: MANAGER}
    filters = {"label": [f"{label}={value}" for label, value in wanted.items()]}
    dropped: list[str] = []
    for secret in await engine.secrets.find(filters):
        labels, name = secret["Spec"].get("Labels") or {}, str(secret["Spec"]["Name"])
        ours = SERVICE in labels and all(labels.get(label) == value for label, value in wanted.items())
        if not ours or name in keep:
            continue
        with suppress(EngineRefused):  # in use, or gone already
            await engine.secrets.remove(str(secret["ID"]))
            dropped.append(name)
    return tuple(dropped)
