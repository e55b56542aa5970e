"""Apps on one real Postgres: each can do what is declared, and Postgres itself refuses it the rest."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.secret import Secret
from supervisor.process.child import Child
from supervisor.services.tenancy.names import Slot
from supervisor.services.tenancy.postgres import PostgresTenancy, set_password
from supervisor.services.tenancy.script import psql_script
from supervisor.services.tenancy.session import can_log_in, url_for
from supervisor.services.tenancy.tenant import Tenant
from supervisor.services.tenancy.verify import verify_postgres
from tests.services.embedded_rig import Rig, open_rig, text_of
from tests.services.tenancy.rig import DEBIAN_15, Server, connected, execute, refused, room, start_postgres, value

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

API = Tenant(app="api", public=True)
AUTH = Tenant(app="auth")
ADMIN = Tenant(app="admin-auth", reads=("auth",))
WORKER = Tenant(app="worker", owner=False)
ALONE = Tenant(app="app", whole=True)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with open_rig(limit_seconds=540.0) as opened:
        yield opened


@pytest.fixture(scope="module")
async def server(rig: Rig) -> Server:
    return await start_postgres(room(rig, "newest"))


@pytest.fixture(scope="module")
async def fifteen(rig: Rig) -> Server:
    """Of the older kind: membership without INHERIT and SET of its own; CREATEROLE rules over every role."""
    if not DEBIAN_15.exists():
        pytest.skip("no Postgres 15 here")
    return await start_postgres(room(rig, "fifteen"), DEBIAN_15)


@pytest.fixture(params=["server", "fifteen"])
def each(request: pytest.FixtureRequest) -> Server:
    """The newest, and 15."""
    found: Server = request.getfixturevalue(request.param)
    return found


def statements_of(child: Child) -> list[str]:
    """What the server was asked to run, of what its log still has."""
    return re.findall(r"(?:statement|execute [^:]*): (.*)", text_of(child))


async def test_second_run_only_reads(each: Server) -> None:
    async with each.stack() as stack:
        wish = stack.wish(API, AUTH, ADMIN, WORKER)
        assert (await stack.tenancy.ensure(wish)).statements
        await execute(
            stack.url("auth"),
            "CREATE TABLE users (id serial)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        )
        await execute(stack.install, "CREATE TABLE worker.jobs (id serial)")
        await execute(stack.admin, "SELECT 'from here on'")
        again = await stack.tenancy.ensure(wish)
        assert (again.statements, again.notes) == ((), ())
        said = statements_of(each.child)
        said = said[max(number for number, line in enumerate(said) if "from here on" in line) :]
        assert "pg_advisory_xact_lock" in "".join(said)
        writes = [line for line in said if re.match(r"(CREATE|ALTER|GRANT|REVOKE|COMMENT|DROP|REASSIGN)", line)]
        assert writes == []


async def test_every_read_and_write_of_another_s_is_refused_by_the_server(each: Server) -> None:
    async with each.stack() as stack:
        wish = stack.wish(API, AUTH, ADMIN, WORKER)
        await stack.tenancy.ensure(wish)
        homes = {"api": "api", "auth": "auth", "admin-auth": "admin_auth"}
        for app in homes:
            await execute(
                stack.url(app),
                "CREATE TABLE kept (id serial, note text)",
                "INSERT INTO kept (note) VALUES ('x')",
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            )
        await execute(stack.url("api"), "CREATE TABLE public.old (id int)")
        for app in ("worker", *homes):
            for other in homes.keys() - {app}:
                await refused(stack.url(app), *forbidden(homes[other], may_read=(app, other) == ("admin-auth", "auth")))
            if app != "api":
                await refused(stack.url(app), "SELECT * FROM public.old", "CREATE TABLE public.new ()")
        assert await value(stack.url("admin-auth"), "SELECT note FROM auth.kept") == "x"
        await verify_postgres(stack.admin, wish)


def forbidden(schema: str, *, may_read: bool) -> list[str]:
    reads = [f"SELECT note FROM {schema}.kept", f"COPY {schema}.kept TO STDOUT"]
    return [
        f"INSERT INTO {schema}.kept (note) VALUES ('y')",
        f"UPDATE {schema}.kept SET note = 'y'",
        f"DELETE FROM {schema}.kept",
        f"TRUNCATE {schema}.kept",
        f"DROP TABLE {schema}.kept",
        f"ALTER TABLE {schema}.kept ADD more int",
        f"SELECT nextval('{schema}.kept_id_seq')",
        f"SELECT {schema}.f()",
        f"CREATE TABLE {schema}.new ()",
        f"DROP SCHEMA {schema} CASCADE",
        f"ALTER TABLE {schema}.kept OWNER TO CURRENT_USER",
        *([] if may_read else reads),
    ]


async def test_server_itself_is_out_of_reach(server: Server) -> None:
    async with server.stack() as stack:
        wish = stack.wish(API, AUTH)
        await stack.tenancy.ensure(wish)
        large = await value(stack.url("api"), "SELECT lo_from_bytea(0, 'secret')")
        await refused(
            stack.url("auth"),
            f"SELECT lo_get({large})",
            "SELECT pg_read_file('PG_VERSION')",
            "SELECT lo_import('/etc/hostname')",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "COPY pg_class TO '/tmp/never'",
            "SELECT * FROM pg_authid",
            "CREATE ROLE other",
            "CREATE DATABASE other",
            "ALTER ROLE CURRENT_USER CREATEROLE",
            f'SET ROLE "{stack.name}_api"',
            f'SET ROLE "{stack.name}"',
            "SET SESSION AUTHORIZATION postgres",
            f"ALTER ROLE \"{stack.name}_api_a\" PASSWORD 'mine'",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        )
        for database in ("postgres", "template1"):
            login, password = f"{stack.name}_auth_a", Secret("pass-of-auth")
            assert await can_log_in(url_for(stack.admin, role=login, password=password))
            assert not await can_log_in(url_for(stack.admin, role=login, password=password, database=database))


async def test_app_is_at_home_in_its_own_schema(server: Server) -> None:
    async with server.stack() as stack:
        await stack.tenancy.ensure(stack.wish(API, Tenant(app="admin-auth")))
        await execute(stack.url("admin-auth"), "CREATE TABLE users ()")
        where = "SELECT schemaname || ' ' || tableowner FROM pg_tables WHERE tablename = 'users'"
        assert await value(stack.admin, where) == f"admin_auth {stack.name}_admin-auth"
        assert await value(stack.url("admin-auth"), "SHOW search_path") == "admin_auth"
        assert await value(stack.url("api"), "SHOW search_path") == "api, public"
        await execute(stack.url("api"), *["CREATE SCHEMA IF NOT EXISTS drizzle"] * 2)  # what drizzle does first
        await refused(stack.url("admin-auth"), "CREATE TABLE drizzle.x ()")


async def test_app_that_owns_nothing_uses_tables_of_the_install(server: Server) -> None:
    async with server.stack() as stack:
        wish = stack.wish(API, WORKER)
        await stack.tenancy.ensure(wish)
        await execute(
            stack.install,
            "CREATE TABLE worker.jobs (id serial, what text)",
            "CREATE FUNCTION worker.f() RETURNS int LANGUAGE sql AS 'SELECT 7'",
        )
        worker = stack.url("worker")
        await execute(worker, "INSERT INTO jobs (what) VALUES ('a')", "UPDATE jobs SET what = 'b'")
        assert await value(worker, "SELECT what FROM jobs") == "b"
        assert await value(worker, "SELECT f()") == 7
        await refused(
            worker,
            "CREATE TABLE x ()",
            "DROP TABLE jobs",
            "TRUNCATE jobs",
            "ALTER TABLE jobs ADD y int",
            "CREATE SCHEMA z",
        )
        await verify_postgres(stack.admin, wish)


async def test_install_s_own_role_can_still_save_everything(server: Server) -> None:
    async with server.stack() as stack:
        await stack.tenancy.ensure(stack.wish(AUTH))
        await execute(stack.url("auth"), "CREATE TABLE users AS SELECT 1 AS id")
        assert await value(stack.install, "SELECT id FROM auth.users") == 1


async def test_right_given_by_hand_is_found_and_taken_back(server: Server) -> None:
    async with server.stack() as stack:
        wish = stack.wish(API, AUTH, ADMIN)
        await stack.tenancy.ensure(wish)
        await execute(stack.url("auth"), "CREATE TABLE users (id int, mail text)")
        api, auth = f'"{stack.name}_api"', f'"{stack.name}_auth"'
        reader = f'"{stack.name}_admin-auth"'
        by_hand = {
            f"GRANT USAGE ON SCHEMA auth TO {api}; GRANT SELECT (mail) ON auth.users TO {api}": "SELECT on auth.users",
            f"GRANT CREATE ON SCHEMA auth TO {api}": "CREATE in schema 'auth'",
            "GRANT CREATE ON SCHEMA public TO PUBLIC": "CREATE in schema 'public'",
            f'GRANT {auth} TO "{stack.name}_api_a"': "become role",
            f"GRANT pg_read_server_files TO {api}": "member of role 'pg_read_server_files'",
            f'ALTER ROLE "{stack.name}_api_a" IN DATABASE "{stack.name}" SET search_path TO public': "search_path",
            f"REVOKE SELECT ON auth.users FROM {reader}": "may not SELECT on auth.users",
            "GRANT CONNECT ON DATABASE postgres TO PUBLIC": "enter database 'postgres'",
            f"ALTER ROLE {api} CREATEROLE": "make a role",
        }
        for sql, found in by_hand.items():
            await execute(stack.admin, sql)
            with pytest.raises(ConfigurationError, match=re.escape(found)):
                await verify_postgres(stack.admin, wish)
            assert (await stack.tenancy.ensure(wish)).statements
        await verify_postgres(stack.admin, wish)
        assert not (await stack.tenancy.ensure(wish)).statements


async def test_change_of_what_is_declared_is_applied(server: Server) -> None:
    async with server.stack() as stack:
        await stack.tenancy.ensure(stack.wish(AUTH, ADMIN, API))
        await execute(stack.url("auth"), "CREATE TABLE users (id serial)", "CREATE TYPE mood AS ENUM ('a')")
        changed = stack.wish(
            Tenant(app="auth", owner=False), Tenant(app="admin-auth"), Tenant(app="api", reads=("auth",))
        )
        await stack.tenancy.ensure(changed)
        await verify_postgres(stack.admin, changed)
        await refused(stack.url("auth"), "DROP TABLE users")
        await refused(stack.url("admin-auth"), "SELECT * FROM auth.users")
        assert not (await stack.tenancy.ensure(changed)).statements
        back = stack.wish(AUTH, ADMIN, API)
        await stack.tenancy.ensure(back)
        await verify_postgres(stack.admin, back)
        await execute(stack.url("auth"), "DROP TABLE users", "DROP TYPE mood")


async def test_app_no_longer_declared_is_locked_out_and_its_data_kept_until_confirmed(server: Server) -> None:
    async with server.stack() as stack:
        await stack.tenancy.ensure(stack.wish(API, AUTH))
        await execute(stack.url("auth"), "CREATE TABLE users ()", "CREATE SCHEMA drizzle", "CREATE TABLE drizzle.x ()")
        without = stack.wish(API)
        done = await stack.tenancy.ensure(without)
        assert [note for note in done.notes if "app 'auth' is no longer declared" in note]
        assert not await can_log_in(stack.url("auth"))
        assert await value(stack.admin, "SELECT to_regclass('auth.users')::text") == "auth.users"
        assert not (await stack.tenancy.ensure(without)).statements

        await stack.tenancy.ensure(stack.wish(API, AUTH))
        assert await can_log_in(stack.url("auth"))

        await stack.tenancy.ensure(without, confirm=True)
        assert await value(stack.admin, "SELECT to_regnamespace('auth') IS NULL")
        assert await value(stack.admin, "SELECT tableowner FROM pg_tables WHERE tablename = 'x'") == stack.name
        left = f"SELECT count(*) FROM pg_roles WHERE rolname LIKE '{stack.name}_auth%'"
        assert await value(stack.admin, left) == 0


async def test_schema_no_longer_declared_is_kept_until_confirmed(server: Server) -> None:
    async with server.stack() as stack:
        await stack.tenancy.ensure(stack.wish(AUTH))
        await execute(stack.url("auth"), "CREATE TABLE users ()")
        moved = stack.wish(Tenant(app="auth", schema="accounts"))
        done = await stack.tenancy.ensure(moved)
        assert [note for note in done.notes if "schema 'auth' of app 'auth' is no longer declared" in note]
        assert await value(stack.url("auth"), "SHOW search_path") == "accounts"
        await execute(stack.url("auth"), "SELECT * FROM auth.users")
        await stack.tenancy.ensure(moved, confirm=True)
        assert await value(stack.admin, "SELECT to_regnamespace('auth') IS NULL")


async def test_what_one_app_had_alone_is_handed_over_on_request_only(each: Server) -> None:
    async with each.stack() as stack:
        await execute(
            stack.install,
            "CREATE TABLE public.notes (id serial, at int GENERATED ALWAYS AS IDENTITY)",
            "CREATE VIEW public.seen AS SELECT * FROM public.notes",
            "CREATE FUNCTION public.f(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'",
            "CREATE PROCEDURE public.p() LANGUAGE sql AS 'SELECT 1'",
            "CREATE AGGREGATE public.total (int) (sfunc = int4pl, stype = int)",
            "CREATE TYPE public.mood AS ENUM ('a')",
            "CREATE TYPE public.span AS RANGE (subtype = int)",
            "CREATE TYPE public.pair AS (a int, b int)",
            "CREATE DOMAIN public.small AS int",
            "CREATE SEQUENCE public.loose",
            "CREATE STATISTICS public.s ON id, at FROM public.notes",
            'CREATE COLLATION public."c-x" FROM "C"',
        )
        await execute(stack.admin, "CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public")
        wish = stack.wish(Tenant(app="api", schema="public", public=True), AUTH)
        done = await stack.tenancy.ensure(wish)
        assert [note for note in done.notes if "hand them over with --hand-over" in note]
        await refused(stack.url("api"), "SELECT * FROM notes")
        with pytest.raises(ConfigurationError, match=r"may not SELECT on public\.notes"):
            await verify_postgres(stack.admin, wish)

        handed = await stack.tenancy.ensure(wish, hand_over=True)
        assert handed.notes == ()
        await verify_postgres(stack.admin, wish)
        await execute(
            stack.url("api"),
            "INSERT INTO notes DEFAULT VALUES",
            "SELECT similarity('a', 'b')",
            "DROP VIEW seen",
            "DROP TABLE notes",
            "DROP FUNCTION f",
            "DROP PROCEDURE p",
            "DROP AGGREGATE total (int)",
            "DROP TYPE mood, span, pair",
            "DROP DOMAIN small",
            "DROP SEQUENCE loose",
            'DROP COLLATION "c-x"',
        )
        assert not (await stack.tenancy.ensure(wish)).statements


async def test_role_or_schema_of_somebody_else_is_not_taken(server: Server) -> None:
    async with server.stack() as stack:
        await execute(stack.admin, f'CREATE ROLE "{stack.name}_auth"', f'CREATE ROLE "{stack.name}-x"')
        with pytest.raises(ConfigurationError, match=f"cannot use role '{stack.name}_auth'.*COMMENT ON ROLE"):
            await stack.tenancy.ensure(stack.wish(AUTH))
        await execute(stack.admin, f'CREATE SCHEMA api AUTHORIZATION "{stack.name}-x"')
        with pytest.raises(ConfigurationError, match="cannot give schema 'api' to app 'api'"):
            await stack.tenancy.ensure(stack.wish(API))
        assert await value(stack.admin, f"SELECT to_regrole('\"{stack.name}_api\"') IS NULL")


async def test_failing_statement_leaves_nothing_behind(server: Server) -> None:
    async with server.stack() as stack:
        await execute(stack.admin, "CREATE TABLE public.notes ()")
        wish = stack.wish(Tenant(app="api", schema="public", public=True))
        async with connected(stack.admin) as other:
            await other.execute("BEGIN; LOCK TABLE public.notes")
            async with connected(stack.admin) as us:
                await us.execute(f'ALTER DATABASE "{stack.name}" SET lock_timeout = 0')
            tenancy = type(stack.tenancy)(stack.admin, limit_seconds=1.0)
            with pytest.raises(Exception, match="cannot set up the apps' roles and schemas: not done within 1 s"):
                await tenancy.ensure(wish, hand_over=True)
            await other.execute("ROLLBACK")
        assert await value(stack.admin, f"SELECT to_regrole('\"{stack.name}_api\"') IS NULL")


async def test_no_password_is_in_the_server_s_log_or_its_views(server: Server) -> None:
    async with server.stack() as stack:
        secret = Secret("very-secret-password-of-auth")
        stack.passwords["auth", Slot.A] = secret
        await stack.tenancy.ensure(stack.wish(AUTH))
        login = f"{stack.name}_auth_a"
        await set_password(stack.url("auth"), login, Secret("very-secret-second"))  # as itself
        assert not await can_log_in(stack.url("auth"))
        await stack.tenancy.open_login(login, Secret("very-secret-third"))
        assert await can_log_in(url_for(stack.admin, role=login, password=Secret("very-secret-third")))
        log = text_of(server.child)
        assert f'ALTER ROLE "{login}" PASSWORD' in log
        assert "very-secret" not in log
        seen = "SELECT string_agg(query, ' ') FROM pg_stat_activity"
        assert "very-secret" not in await value(stack.admin, seen)


async def test_owner_with_createrole_can_do_it_without_a_superuser(each: Server) -> None:
    async with each.stack() as stack:
        external = PostgresTenancy(stack.install)
        wish = replace(stack.wish(API, AUTH, ADMIN, WORKER), ours=False)
        with pytest.raises(PrivilegeError, match="has no CREATEROLE; give it that, or have an administrator run"):
            await external.ensure(wish)
        await execute(stack.admin, f'ALTER ROLE "{stack.name}" CREATEROLE')
        await external.ensure(wish)
        await verify_postgres(stack.admin, wish)
        await execute(stack.url("auth"), "CREATE TABLE users (id serial)")
        assert not (await external.ensure(wish)).statements
        await verify_postgres(stack.admin, wish)
        changed = replace(stack.wish(API, Tenant(app="auth", owner=False)), ours=False)
        await external.ensure(changed)
        await verify_postgres(stack.admin, changed)
        await external.ensure(replace(stack.wish(API), ours=False), confirm=True)
        assert await value(stack.admin, "SELECT to_regnamespace('auth') IS NULL")


async def test_script_for_an_administrator_has_all_but_the_passwords(server: Server) -> None:
    async with server.stack() as stack:
        wish = stack.wish(API, AUTH)
        script = psql_script(await stack.tenancy.plan(wish), database=stack.name)
        assert f'\\password "{stack.name}_auth_a"\nALTER ROLE "{stack.name}_auth_a" LOGIN;' in script
        assert "pass-of" not in script
        assert "SCRAM" not in script
        # psql has the one command that is not SQL; what it asks for is given by hand here.
        sql = re.sub(r"^\\.*\n", "", script, flags=re.M)
        await execute(stack.admin, sql)
        for app in ("api", "auth"):
            await set_password(stack.admin, f"{stack.name}_{app}_a", stack.passwords[app, Slot.A])
        assert not (await stack.tenancy.plan(wish)).statements


async def test_one_app_alone_has_all_the_install_s_rights_with_a_login_of_its_own(server: Server) -> None:
    async with server.stack() as stack:
        wish = stack.wish(ALONE)
        await stack.tenancy.ensure(wish)
        app = stack.url("app")
        assert await value(app, "SELECT current_user || ' ' || session_user") == f"{stack.name} {stack.name}_app_a"
        await execute(app, "CREATE TABLE public.notes ()", "CREATE SCHEMA more")
        assert await value(stack.admin, "SELECT tableowner FROM pg_tables WHERE tablename = 'notes'") == stack.name
        assert not (await stack.tenancy.ensure(wish)).statements
        await verify_postgres(stack.admin, wish)


async def test_session_that_drops_its_role_does_no_harm(each: Server) -> None:
    """What a login makes as itself is used by both logins all the same, and becomes the app's."""
    async with each.stack() as stack:
        stack.passwords["auth", Slot.A] = Secret("a")
        stack.passwords["auth", Slot.B] = Secret("b")
        wish = stack.wish(AUTH, ADMIN)
        await stack.tenancy.ensure(wish)
        async with connected(stack.url("auth")) as session:
            for reset in ("RESET ALL", "RESET ROLE"):  # poolers' words: they change nothing of it
                await session.execute(reset)
                assert await session.fetchval("SELECT current_user::text") == f"{stack.name}_auth"
            # Before the minors of November 2024 (15.9, 16.5) this one leaves the login as itself.
            await session.execute("DISCARD ALL")
            assert await session.fetchval("SELECT current_user::text") in (f"{stack.name}_auth", f"{stack.name}_auth_a")
        await execute(stack.url("auth"), "SET ROLE NONE", "CREATE TABLE users AS SELECT 1 AS id")
        assert await value(stack.url("auth", Slot.B), "SELECT id FROM users") == 1
        assert await value(stack.url("admin-auth"), "SELECT id FROM auth.users") == 1
        await stack.tenancy.ensure(wish)
        await execute(stack.url("auth", Slot.B), "ALTER TABLE users ADD more int")


async def test_closed_login_is_out_with_its_sessions_and_the_other_is_not(server: Server) -> None:
    async with server.stack() as stack:
        stack.passwords["auth", Slot.A] = Secret("a")
        stack.passwords["auth", Slot.B] = Secret("b")
        await stack.tenancy.ensure(stack.wish(AUTH))
        async with connected(stack.url("auth")) as old, connected(stack.url("auth", Slot.B)) as new:
            await stack.tenancy.close_login(f"{stack.name}_auth_a")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await old.execute("SELECT 1")
            await new.execute("SELECT 1")
        assert not await can_log_in(stack.url("auth"))
