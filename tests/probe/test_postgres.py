"""What the Postgres probe makes of refusals, and of servers that are none. The real one: test_embedded_postgres."""

from __future__ import annotations

import struct

import anyio
import asyncpg
import pytest
from anyio.abc import SocketStream

from supervisor.core.secret import Secret
from supervisor.probe.postgres import _Facts, decide_facts, decide_refusal, probe_postgres
from supervisor.probe.postgres_login import is_loopback
from supervisor.probe.verdict import Answer
from tests.probe.listeners import Handler, answer, closed_port, hang_up, serve, silence

pytestmark = pytest.mark.anyio
PASSWORD = "s3cret-word"


def dsn(port: int, host: str = "127.0.0.1", query: str = "") -> Secret:
    return Secret(f"postgresql://app:{PASSWORD}@{host}:{port}/app{query}")


def error_of(code: str, message: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError.new({"S": "FATAL", "C": code, "M": message})
    assert isinstance(error, asyncpg.PostgresError)
    return error


@pytest.mark.parametrize(
    ("code", "message", "wanted", "recovering"),
    [
        ("57P03", "the database system is starting up", Answer.WAITING, True),
        ("57P03", "the database system is not yet accepting connections", Answer.WAITING, True),
        ("57P03", "the database system is shutting down", Answer.WAITING, False),
        ("57P01", "terminating connection due to administrator command", Answer.WAITING, False),
        ("53300", "sorry, too many clients already", Answer.WAITING, False),
        ("28P01", 'password authentication failed for user "app"', Answer.FATAL, False),
        ("28000", "no pg_hba.conf entry", Answer.FATAL, False),
        ("3D000", 'database "app" does not exist', Answer.FATAL, False),
        ("42501", 'permission denied for database "app"', Answer.FATAL, False),
        ("53100", "No space left on device", Answer.FATAL, False),
    ],
)
def test_refusal_is_decided_by_its_sqlstate(code: str, message: str, wanted: Answer, recovering: bool) -> None:
    verdict = decide_refusal(error_of(code, message), "user 'app'")
    assert (verdict.answer, verdict.recovering) == (wanted, recovering)
    assert message in verdict.detail


def test_refused_password_carries_the_hint() -> None:
    error = error_of("28P01", "password authentication failed")
    assert decide_refusal(error, "user 'app'", "do this").detail.endswith("; do this")
    assert "DATABASE_URL" in decide_refusal(error, "user 'app'").detail


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (_Facts(7, standby=False, read_only=False, version=180006), Answer.GOOD),
        (_Facts(7, standby=False, read_only=False, version=140000), Answer.GOOD),
        (_Facts(7, standby=False, read_only=False, version=130023), Answer.FATAL),
        (_Facts(7, standby=True, read_only=True, version=160000), Answer.WAITING),
        (_Facts(7, standby=False, read_only=True, version=160000), Answer.WAITING),
    ],
)
def test_only_a_primary_of_a_known_version_that_takes_writes_is_good(facts: _Facts, wanted: Answer) -> None:
    verdict = decide_facts(facts)
    assert verdict.answer is wanted
    assert verdict.peer_pid == (7 if wanted is Answer.GOOD else 0)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://a@127.0.0.1/b", True),
        ("postgresql://a@localhost/b", True),
        ("postgresql://a@[::1]:5/b", True),
        ("postgresql:///b?host=/tmp", True),
        ("postgresql://a@10.0.0.1/b", False),
        ("postgresql://a@db.example/b", False),
    ],
)
def test_loopback_is_told_from_elsewhere(url: str, wanted: bool) -> None:
    assert is_loopback(url) is wanted


async def test_refused_connection_is_waiting() -> None:
    verdict = await probe_postgres(dsn(closed_port()))
    assert verdict.answer is Answer.WAITING
    assert verdict.detail == "cannot connect: connection refused"


async def test_unknown_host_is_waiting() -> None:
    verdict = await probe_postgres(dsn(5432, "no-such-host.invalid"))
    assert verdict.answer is Answer.WAITING


async def test_silence_ends_at_the_limit() -> None:
    async with serve(silence) as port:
        with anyio.fail_after(5):
            verdict = await probe_postgres(dsn(port), limit_seconds=0.1)
    assert verdict.answer is Answer.WAITING
    assert verdict.detail == "no answer within 0.1 s"


@pytest.mark.parametrize(
    "handler", [hang_up, answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), answer(b"\x15\x03\x03\x00\x02\x02F")]
)
async def test_something_else_on_the_port_is_waiting(handler: Handler) -> None:
    async with serve(handler) as port:
        with anyio.fail_after(5):
            verdict = await probe_postgres(dsn(port), limit_seconds=1.0)
    assert verdict.answer is Answer.WAITING
    assert PASSWORD not in verdict.detail


@pytest.mark.parametrize("url", ["mysql://app:s3cret-word@x/y", "postgresql://app:s3cret-word@x:port/y"])
async def test_unusable_url_is_fatal_without_its_password(url: str) -> None:
    verdict = await probe_postgres(Secret(url))
    assert verdict.answer is Answer.FATAL
    assert "DATABASE_URL" in verdict.detail
    assert PASSWORD not in verdict.detail


def refusing(code: str, message: str, requests: list[bytes]) -> Handler:
    """A Postgres that has no TLS and turns everybody away."""

    async def handler(stream: SocketStream) -> None:
        data = await stream.receive()
        requests.append(data)
        if data[4:8] == struct.pack("!i", 80877103):  # SSLRequest
            await stream.send(b"N")
            return
        fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
        await stream.send(b"E" + struct.pack("!i", len(fields) + 4) + fields)

    return handler


async def test_loopback_is_never_asked_for_tls() -> None:
    requests: list[bytes] = []
    async with serve(refusing("57P03", "the database system is starting up", requests)) as port:
        verdict = await probe_postgres(dsn(port))
    assert verdict.recovering
    assert len(requests) == 1
    assert b"supervisor probe" in requests[0]
    assert PASSWORD.encode() not in requests[0]


async def test_elsewhere_is_asked_for_tls_first_and_then_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.probe.postgres_login.is_loopback", lambda _: False)
    requests: list[bytes] = []
    async with serve(refusing("57P03", "the database system is starting up", requests)) as port:
        verdict = await probe_postgres(dsn(port))
        assert verdict.recovering
        assert len(requests) == 2
        requests.clear()
        await probe_postgres(dsn(port, query="?sslmode=disable"))
        assert len(requests) == 1
