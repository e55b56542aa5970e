"""What the Redis probe makes of refusals, and of servers that are none. The real one: test_embedded_redis."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import SocketStream
from redis import exceptions

from supervisor.core.secret import Secret
from supervisor.probe.redis import decide_info, decide_refusal, probe_redis
from supervisor.probe.verdict import Answer
from tests.probe.listeners import Handler, answer, closed_port, hang_up, serve, silence

pytestmark = pytest.mark.anyio
PASSWORD = "s3cret-word"


def url(port: int) -> Secret:
    return Secret(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")


@pytest.mark.parametrize(
    ("error", "wanted", "words"),
    [
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), Answer.WAITING, "loading"),
        (exceptions.AuthenticationError("invalid username-password pair"), Answer.FATAL, "REDIS_URL"),
        (exceptions.NoPermissionError("no permissions"), Answer.FATAL, "supervisor:probe"),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), Answer.FATAL, "master"),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), Answer.FATAL, "disk"),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Answer.WAITING, "memory"),
        (exceptions.ConnectionError("Error 111 connecting"), Answer.WAITING, "111"),
        (ConnectionResetError(104, "Connection reset by peer"), Answer.WAITING, "reset"),
    ],
)
def test_refusal_is_decided(error: Exception, wanted: Answer, words: str) -> None:
    verdict = decide_refusal(error)
    assert verdict.answer is wanted
    assert words in verdict.detail
    assert verdict.recovering is isinstance(error, exceptions.BusyLoadingError)


def test_loading_tells_its_percent() -> None:
    verdict = decide_info({"loading": 1, "loading_loaded_perc": "42.00"})
    assert verdict is not None
    assert verdict.recovering
    assert "42.00 %" in verdict.detail


def test_replica_is_fatal_and_a_master_is_tried() -> None:
    replica = decide_info({"loading": 0, "role": "slave", "master_host": "other"})
    assert replica is not None
    assert replica.answer is Answer.FATAL
    assert decide_info({"loading": 0, "role": "master"}) is None


async def test_refused_connection_is_waiting() -> None:
    assert (await probe_redis(url(closed_port()))).answer is Answer.WAITING


async def test_silence_ends_at_the_limit() -> None:
    async with serve(silence) as port:
        with anyio.fail_after(5):
            verdict = await probe_redis(url(port), limit_seconds=0.1)
    assert verdict.answer is Answer.WAITING
    assert verdict.detail == "no answer within 0.1 s"


@pytest.mark.parametrize("handler", [hang_up, answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), answer(b"\0\0\0\r\n")])
async def test_something_else_on_the_port_is_waiting(handler: Handler) -> None:
    async with serve(handler) as port:
        with anyio.fail_after(5):
            verdict = await probe_redis(url(port), limit_seconds=1.0)
    assert verdict.answer is Answer.WAITING
    assert PASSWORD not in verdict.detail


async def test_one_probe_is_one_connection_that_starts_with_auth() -> None:
    requests: list[bytes] = []

    async def hang_up_after_one(stream: SocketStream) -> None:
        requests.append(await stream.receive())

    async with serve(hang_up_after_one) as port:
        await probe_redis(url(port), limit_seconds=1.0)
    assert len(requests) == 1
    assert requests[0].startswith(b"*2\r\n$4\r\nAUTH\r\n")


async def test_unusable_url_is_fatal_without_its_password() -> None:
    verdict = await probe_redis(Secret(f"http://:{PASSWORD}@x"))
    assert verdict.answer is Answer.FATAL
    assert PASSWORD not in verdict.detail
    assert "REDIS_URL" in verdict.detail
