"""What needs a look at the tables of several apps at once. Each check gives sentences of the report."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.core.settings.app import AppDatabase
from supervisor.core.settings.model import Settings
from supervisor.core.settings.names import BUILT_IN, PREFIX, did_you_mean
from supervisor.core.settings.order import start_order


def check_command(settings: Settings) -> Iterator[str]:
    """A command for all of several apps can only be a mistake."""
    if settings.apps and settings.app_command is not None:
        first = next(iter(settings.apps))
        yield (
            f"APP_COMMAND (or a command behind --) and [apps.{first}] are both given: with [apps.NAME] tables each app "
            f"has a `command` of its own there; unset APP_COMMAND, or remove the tables to run one app"
        )


def check_app_names(settings: Settings) -> Iterator[str]:
    """An app and a service of one name could not be told apart in `supervisor status`."""
    for name in settings.apps:
        if name in BUILT_IN or name in settings.user_services:
            yield f"[apps.{name}] is the name of a service; choose another"


def check_requires(settings: Settings) -> Iterator[str]:
    """What an app requires is there, and no circle."""
    known = {*settings.apps, *settings.services, *settings.user_services}
    for name, app in settings.apps.items():
        for other in app.requires:
            if other not in known:
                yield f"[apps.{name}]: requires: no app or service {other!r}{did_you_mean(other, known)}"
    _, circle = start_order({name: app.requires for name, app in settings.apps.items()})
    if circle:
        yield f"[apps.{circle[0]}]: requires: {' -> '.join(circle)} is a circle; none of them could start first"


def check_app_addresses(settings: Settings) -> Iterator[str]:
    """A port and a host name lead to one app."""
    for name in settings.apps:
        if name not in settings.ports_of_apps:
            first = next(other for other, app in settings.apps.items() if app.port is None)
            yield (
                f"[apps.{name}]: key 'port' is missing: {settings.port}, the general port, is that of "
                f"[apps.{first}]; give each further app a port of its own"
            )
    taken: dict[object, str] = {}
    for name, port in settings.ports_of_apps.items():
        if taken.setdefault(port, name) != name:
            yield f"[apps.{taken[port]}] and [apps.{name}] have both port {port}; give each a port of its own"
    for name, app in settings.apps.items():
        host = app.host or settings.app_host
        if host and taken.setdefault(host, name) != name:
            yield f"[apps.{taken[host]}] and [apps.{name}] have both host {host!r}; give each a host of its own"


def check_schemas(settings: Settings) -> Iterator[str]:
    """Each schema has one owner, and what may be read is there."""
    databases = {name: app.database for name, app in settings.apps.items() if app.database is not None}
    owners: dict[str, str] = {}
    for name, database in databases.items():
        yield from _check_schema(name, database)
        for schema in _owned(database):
            if owners.setdefault(schema, name) != name:
                yield (
                    f"[apps.{owners[schema]}] and [apps.{name}] both own the schema {schema!r}; "
                    f"give each a schema of its own, or one of them owner = false"
                )
        for other in database.reads:
            if other not in databases:
                why = "it has no database" if other in settings.apps else f"no such app{did_you_mean(other, databases)}"
                yield f"[apps.{name}]: database.reads: {other!r}: {why}"


def _owned(database: AppDatabase) -> set[str]:
    owned = {database.schema_name} if database.owner else set()
    return owned | {"public"} if database.public else owned


def _check_schema(name: str, database: AppDatabase) -> Iterator[str]:
    schema = database.schema_name
    if schema == "public" and not database.public:
        yield f"[apps.{name}]: database.schema is 'public': say public = true too, or choose another name"
    if schema.startswith("pg_") or schema == "information_schema":
        yield f"[apps.{name}]: database.schema is {schema!r}: Postgres keeps that name for itself; choose another"


def check_prefixes(settings: Settings) -> Iterator[str]:
    """No app's keys are among another's."""
    found = [(name, app.redis.prefix) for name, app in settings.apps.items() if app.redis is not None]
    for at, (name, prefix) in enumerate(found):
        for other, longer in found[at + 1 :]:
            if prefix.startswith(longer) or longer.startswith(prefix):
                yield (
                    f"[apps.{name}] and [apps.{other}] would share keys: redis.prefix is {prefix!r} and {longer!r}; "
                    f"none may begin with another"
                )


def check_variables(settings: Settings) -> Iterator[str]:
    """Names of ours are not given to apps."""
    for name, app in settings.apps.items():
        for word in dict.fromkeys([*app.env.required, *app.env.optional, *app.env.vars]):
            if word.startswith(PREFIX):
                yield f"[apps.{name}.env]: {word} is a name of ours, which no app is given; choose another"


APP_CHECKS = tuple(
    (("apps", *fields), check)
    for fields, check in (
        (("app_command",), check_command),
        (("user_services",), check_app_names),
        (("services", "user_services"), check_requires),
        (("port", "app_host"), check_app_addresses),
        ((), check_schemas),
        ((), check_prefixes),
        ((), check_variables),
    )
)
