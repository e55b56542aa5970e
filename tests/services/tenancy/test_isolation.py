"""Apps on one real Postgres: each can do what is declared, and Postgres itself refuses it the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from supervisor.services.tenancy.tenant import Tenant
from tests.services.tenancy.rig import DEBIAN_15, Server, open_postgres, run

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

API = Tenant(app="api", public=True)
AUTH = Tenant(app="auth")
ADMIN = Tenant(app="admin-auth", reads=("auth",))
WORKER = Tenant(app="worker", owner=False)
DENIED = asyncpg.InsufficientPrivilegeError


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["newest", "15"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if request.param == "15" and not DEBIAN_15.exists():
        pytest.skip("no Postgres 15 here")
    async with open_postgres(DEBIAN_15 if request.param == "15" else None) as opened:
        yield opened


async def test_second_run_has_nothing_to_do(server: Server) -> None:
    async with server.stack() as stack:
        wish = stack.wish(API, AUTH, ADMIN, WORKER)
        first = await stack.tenancy.ensure(wish)
        assert first.statements
        assert (await stack.tenancy.plan(wish)).statements == ()
        await run(
            stack.url("auth"),
            "CREATE TABLE users (id serial)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT 1",
        )
        again = await stack.tenancy.ensure(wish)
        assert again.statements == ()
        assert again.notes == ()
