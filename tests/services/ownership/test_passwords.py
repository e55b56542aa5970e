"""Passwords on the engine: set in a Postgres that has forgotten ours, and kept in Swarm secrets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.engine.client import Engine
from supervisor.engine.labels import INSTALL, STACK
from supervisor.engine.resources import ExecResult
from supervisor.services.ownership.passwords import (
    PasswordEngine,
    drop_old_secrets,
    ensure_secret,
    password_sql,
    reset_postgres_password,
    secret_name,
)
from supervisor.services.swarm.spec import Owner
from tests.contracts.engine_made import engine_of, ready_swarm
from tests.engine_rig.engine import Share

pytestmark = pytest.mark.anyio
OWNER = Owner("install-1", "notes")
ODD = "a'b\"c\\d$(e);\n-- \\q %s ü"


# --- decisions ----------------------------------------------------------------------------------------------------


def test_name_and_password_are_quoted_in_the_statement() -> None:
    sql = password_sql('we"ird', Secret("it's; DROP"))
    assert sql.endswith("ALTER ROLE \"we\"\"ird\" LOGIN PASSWORD 'it''s; DROP';\n")


def test_password_that_postgres_cannot_store_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="zero byte"):
        password_sql("notes", Secret("a\0b"))


def test_secret_is_named_after_its_content_and_its_install() -> None:
    name = secret_name(OWNER, "postgres", b"one")
    assert name.startswith("notes-postgres-")
    assert len(name) == len("notes-postgres-") + 12
    assert name == secret_name(OWNER, "postgres", b"one")
    assert name != secret_name(OWNER, "postgres", b"two")
    assert name != secret_name(Owner("install-2", "notes"), "postgres", b"one")


class _Containers:
    """Ends every program with `result`, and keeps what was asked."""

    def __init__(self, result: ExecResult) -> None:
        self.result = result
        self.argv: Sequence[str] = ()
        self.env: Mapping[str, str] = {}

    async def exec(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], **_: Any) -> ExecResult:
        self.argv, self.env = argv, env
        return self.result


class _Engine:
    def __init__(self, result: ExecResult) -> None:
        self.containers = _Containers(result)


async def test_password_is_in_no_argument() -> None:
    engine = _Engine(ExecResult(0, b"", b""))
    await reset_postgres_password(
        cast(PasswordEngine, engine), "box", role="notes", database="notes", password=Secret("swordfish")
    )
    assert "swordfish" not in " ".join(engine.containers.argv)
    assert "swordfish" in str(engine.containers.env)


@pytest.mark.parametrize(("code", "kind"), [(2, UnreachableError), (3, ConfigurationError), (127, ConfigurationError)])
async def test_failure_says_why_and_how_to_do_it_by_hand_and_hides_the_password(code: int, kind: type) -> None:
    engine = _Engine(ExecResult(code, b"", b"ERROR: near 'swordfish'\n"))
    with pytest.raises(kind) as caught:
        await reset_postgres_password(
            cast(PasswordEngine, engine), "b" * 64, role="notes", database="notes", password=Secret("swordfish")
        )
    assert "ERROR: near '***'" in str(caught.value)
    assert "docker exec -it bbbbbbbbbbbb psql -U notes notes" in str(caught.value)
    assert "swordfish" not in str(caught.value)


# --- a real Postgres ------------------------------------------------------------------------------------------------


@pytest.fixture
async def client(docker: Share) -> AsyncIterator[Engine]:
    async with engine_of(docker) as made:
        yield made


@pytest.fixture
def box(docker: Share) -> str:
    """A container of Postgres that serves, with role, database and password `notes`; it logs every statement."""
    options = tuple(f"--env=POSTGRES_{name}=notes" for name in ("USER", "DB", "PASSWORD"))
    name = docker.start(
        docker.engine.image("postgres"), "postgres", "-c", "log_statement=all", word="pg", options=options
    )
    limit = time.monotonic() + 60
    while not logs_in(docker, name, "notes"):
        assert time.monotonic() < limit, docker.log(name)
        time.sleep(0.1)
    return name


def logs_in(docker: Share, container: str, password: str) -> bool:
    """Over TCP, where the password counts."""
    argv = ("psql", "-w", "-h", docker.address(container), "-U", "notes", "-d", "notes", "-c", "SELECT 1")
    done = docker.engine.run("exec", "--env", f"PGPASSWORD={password}", container, *argv, check=False)
    return done.returncode == 0


@pytest.mark.engine
@pytest.mark.servers
async def test_new_password_lets_in_and_the_old_one_does_not(docker: Share, client: Engine, box: str) -> None:
    for _ in range(2):
        await reset_postgres_password(client, box, role="notes", database="notes", password=Secret(ODD))
    assert logs_in(docker, box, ODD)
    assert not logs_in(docker, box, "notes")
    log = docker.log(box)
    assert "SELECT 1" in log  # statements are logged
    assert "ALTER ROLE" not in log


@pytest.mark.engine
@pytest.mark.servers
async def test_role_that_is_not_there_is_an_error_with_the_way_out(docker: Share, client: Engine, box: str) -> None:
    with pytest.raises(UnreachableError, match=r'role "nobody" does not exist.*docker exec'):
        await reset_postgres_password(client, box, role="nobody", database="notes", password=Secret("swordfish"))


@pytest.mark.engine
async def test_container_without_postgres_is_an_error_of_ours(docker: Share, client: Engine) -> None:
    bare = docker.start(docker.engine.image("base"), "sleep", "600")
    with pytest.raises(ConfigurationError, match="psql"):
        await reset_postgres_password(client, bare, role="notes", database="notes", password=Secret("swordfish"))


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.engine
async def test_secret_of_the_same_content_is_made_once(docker: Share, client: Engine) -> None:
    await anyio.to_thread.run_sync(ready_swarm, docker)
    owner = Owner("install-1", docker.prefix)
    made = []

    async def ensure() -> None:
        made.append(await ensure_secret(client, owner, "postgres", "postgres_password", b"swordfish"))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(ensure)
    assert len(set(made)) == 1
    labels = (await client.secrets.inspect(made[0].name))["Spec"]["Labels"]
    assert (labels[INSTALL], labels[STACK]) == ("install-1", docker.prefix)
    other = await ensure_secret(client, owner, "postgres", "postgres_password", b"other")
    assert other.id != made[0].id


@pytest.mark.engine
async def test_old_secrets_go_and_those_in_use_or_of_others_stay(docker: Share, client: Engine) -> None:
    await anyio.to_thread.run_sync(ready_swarm, docker)
    owner, stranger = Owner("install-1", docker.prefix), Owner("install-2", docker.prefix)
    old, used, kept = [
        (await ensure_secret(client, owner, "postgres", "file", data)).name for data in (b"old", b"used", b"kept")
    ]
    theirs = (await ensure_secret(client, stranger, "postgres", "file", b"theirs")).name
    image = docker.engine.image("base")
    await anyio.to_thread.run_sync(
        lambda: docker.engine.run(
            "service", "create", "--detach", "--name", docker.name("user"), "--secret", used, image, "sleep", "600"
        )
    )
    assert await drop_old_secrets(client, owner, {kept}) == (old,)
    names = {secret["Spec"]["Name"] for secret in await client.secrets.find({"name": [f"{docker.prefix}-"]})}
    assert names == {used, kept, theirs}
