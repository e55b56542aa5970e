"""Connecting: what a wrong URL or a deaf server gives, and that no password is shown."""

from __future__ import annotations

import socket

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, SupervisorError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.migrations import session as session_module
from supervisor.migrations.session import connect
from supervisor.probe.postgres_login import mask_password

pytestmark = pytest.mark.anyio


async def attempt(dsn: str) -> None:
    async with connect(Secret(dsn)):
        raise AssertionError("connected")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:s3/cret@127.0.0.1:1/d",
        "postgresql://u:12#s3cret@127.0.0.1:1/d",
        "postgresql://u:s3?cret@127.0.0.1:1/d",
        "mysql://u:s3cret@127.0.0.1:1/d",
        "postgresql://u:s3cret@127.0.0.1:port/d",
        "postgresql://u:s3cret@[::1/d",
        "s3cret",
    ],
)
async def test_url_that_is_none_is_a_configuration_error_without_its_password(dsn: str) -> None:
    with pytest.raises(SupervisorError, match="DATABASE_URL") as caught:
        await attempt(dsn)
    assert isinstance(caught.value, ConfigurationError)
    text = str(caught.value)
    assert not any(part in text for part in ("s3cret", "s3", "cret"))
    assert caught.value.__context__ is None or caught.value.__suppress_context__


async def test_closed_port_is_unreachable_with_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it meanwhile
        port = taken.getsockname()[1]
        with pytest.raises(
            UnreachableError, match=rf"database u@127\.0\.0\.1:{port}/d for its migrations: connection ref"
        ):
            await attempt(f"postgresql://u:s3cret@127.0.0.1:{port}/d")


async def test_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_CONNECT_SECONDS", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with anyio.fail_after(10), pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
            await attempt(f"postgresql://u@127.0.0.1:{deaf.getsockname()[1]}/d")


def test_mask_hides_the_password_as_written_and_as_meant() -> None:
    dsn = Secret("postgresql://u:a%2Fb@h/d")
    assert mask_password("a%2Fb, a/b, postgresql://u:a%2Fb@h/d", dsn) == "***, ***, ***"
