"""The generator as a process, against servers that misbehave in one way each."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.abc import SocketAttribute, SocketStream

from tests.load.plan import Plan
from tests.load.process import Load
from tests.load.report import Report
from tests.probe.listeners import Handler, answer, closed_port, hang_up, serve, silence

pytestmark = pytest.mark.anyio

RATE, SECONDS = 200.0, 0.2
COUNT = round(RATE * SECONDS)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


async def run(port: int, **options: Any) -> Report:
    """One short load to its end."""
    plan = Plan(url=f"http://127.0.0.1:{port}/", **{"rate": RATE, "seconds": SECONDS, **options})

    def load() -> Report:
        with Load(plan) as running:
            return running.report()

    with anyio.fail_after(30):
        return await to_thread.run_sync(load)


def echo(*versions: int, delay_seconds: float = 0.0, after: int = 0) -> Handler:
    """Answers each request of a connection with its own body; with these versions in turn; `after` so many it ends."""

    async def handler(stream: SocketStream) -> None:
        done = 0
        while not after or done < after:
            data = await stream.receive()
            await anyio.sleep(delay_seconds)
            body = data.partition(b"\r\n\r\n")[2] or b"ok\n"
            version = b"App-Version: %d\r\n" % versions[done % len(versions)] if versions else b""
            await stream.send(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (version, len(body), body))
            done += 1

    return handler


async def reset(stream: SocketStream) -> None:
    """Ends the connection the hard way once a request is there."""
    await stream.receive()
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_load_sends_by_the_clock_and_counts_every_answer() -> None:
    async with serve(echo(1)) as port:
        report = await run(port, connections=4, post_every=2)

    assert (report.after.sent, report.after.failed) == (COUNT, 0)
    assert report.after.versions[1].answered == COUNT
    assert report.connections == 4
    assert (report.let_go, report.backwards) == (0, 0)


async def test_load_without_kept_connections_makes_one_for_each_request() -> None:
    async with serve(answer(OK)) as port:
        report = await run(port)

    assert (report.after.answered, report.connections) == (COUNT, COUNT)


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (reset, "reset"),
        (answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart"), "closed before the answer"),
        (answer(b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), "status 503"),
        (answer(b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), "status 500"),
        (answer(b"SSH-2.0-x\r\n\r\n"), "not HTTP"),
        (silence, "timeout"),
    ],
    ids=["reset", "closed", "503", "500", "not-http", "timeout"],
)
@pytest.mark.parametrize("connections", [0, 4])
async def test_load_tells_how_a_request_failed(handler: Handler, kind: str, connections: int) -> None:
    async with serve(handler) as port:
        # Short only for the one that is to run into it: a busy machine must not make a timeout of another.
        report = await run(port, limit_seconds=0.3 if kind == "timeout" else 10, connections=connections)

    assert report.after.failures == {kind: COUNT}
    assert report.after.failures_by_method == {"GET": {kind: COUNT}}


@pytest.mark.parametrize("connections", [0, 4])
async def test_load_counts_refused_connections(connections: int) -> None:
    report = await run(closed_port(), connections=connections)

    assert report.after.failures == {"refused": COUNT}


async def test_server_that_hangs_up_at_once_fails_each_request() -> None:
    async with serve(hang_up) as port:
        report = await run(port)

    assert report.after.failed == COUNT
    assert set(report.after.failures) <= {"reset", "closed before the answer"}


async def test_body_that_does_not_come_back_is_a_failure_of_posts_alone() -> None:
    async with serve(answer(OK)) as port:
        report = await run(port, post_every=2)

    assert report.after.failures_by_method == {"POST": {"wrong body": COUNT // 2}}


async def test_late_answers_do_not_slow_the_sending_and_count_from_when_they_were_due() -> None:
    async with serve(echo(delay_seconds=0.5)) as port:
        began = time.monotonic()
        report = await run(port, connections=40)
        took = time.monotonic() - began

    assert (report.after.answered, report.connections) == (COUNT, COUNT)
    assert report.after.p50_ms >= 500
    assert took < COUNT * 0.5, "each waited for the one before"


async def test_requests_wait_their_turn_where_all_connections_are_busy() -> None:
    async with serve(echo(delay_seconds=0.2)) as port:
        report = await run(port, connections=1, rate=100, seconds=0.03)

    assert (report.after.answered, report.connections) == (3, 1)
    assert report.after.longest_ms >= 550, "the wait for a connection is part of the wait"


async def test_requests_that_wait_too_long_for_a_connection_fail() -> None:
    async with serve(silence) as port:
        report = await run(port, connections=1, limit_seconds=0.3)

    assert report.after.failures == {"timeout": COUNT}


async def test_kept_connection_that_the_server_closed_is_dropped_and_made_anew() -> None:
    async with serve(echo(after=2)) as port:
        report = await run(port, connections=2, rate=20, seconds=0.5)

    assert report.after.failed == 0
    assert report.let_go >= 4, "10 requests, 2 on each connection; the last one's end may not be seen any more"


async def test_answers_of_an_older_version_on_one_connection_are_counted() -> None:
    async with serve(echo(1, 2, 1, 3)) as port:
        report = await run(port, connections=1, rate=40, seconds=0.2)

    # 1 2 1 3 1 2 1 3: from 2 to 1 twice, from 3 to 1 once
    assert report.backwards == 3


async def test_quiet_seconds_are_reported_apart() -> None:
    async with serve(answer(OK)) as port:
        report = await run(port, quiet_seconds=0.1)

    assert (report.quiet.sent, report.after.sent) == (COUNT // 2, COUNT // 2)


async def test_running_load_tells_of_a_new_version_and_stops_when_asked() -> None:
    def load(port: int) -> tuple[float, float, Report]:
        with Load(Plan(url=f"http://127.0.0.1:{port}/", rate=50, connections=1)) as running:
            return running.began_at(), running.version_at(2), running.stop()

    async with serve(echo(1, 1, 1, 2)) as port:
        with anyio.fail_after(30):
            began, seen, report = await to_thread.run_sync(load, port)

    assert seen >= began + 3 / 50
    assert report.after.versions[2].first_at == seen
    assert report.after.failed == 0


async def test_wait_for_a_version_that_never_comes_ends() -> None:
    def load(port: int) -> None:
        with Load(Plan(url=f"http://127.0.0.1:{port}/", rate=50)) as running:
            running.version_at(9, limit_seconds=0.3)

    async with serve(answer(OK)) as port:
        with pytest.raises(TimeoutError, match=r"an answer of version 9: not within 0\.3 s"):
            await to_thread.run_sync(load, port)


def test_plan_takes_only_http() -> None:
    with pytest.raises(ValueError, match="not an http URL"):
        _ = Plan(url="https://127.0.0.1/", rate=1).address
