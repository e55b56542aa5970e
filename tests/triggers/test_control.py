"""The control API over a real unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import math
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from supervisor.core.errors import ConfigurationError
from supervisor.core.events import Notice, OverallState
from supervisor.core.requests import Canary, Outcome, Request, Result, Verb
from supervisor.triggers import control, unix_server
from tests.triggers.control_rig import LIMIT_SECONDS, Rig, serving

pytestmark = pytest.mark.anyio

_HEAD = b"POST /v1/reload HTTP/1.1\r\nHost: supervisor\r\n"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "control.sock")


async def test_status_is_the_document_as_json(rig: Rig) -> None:
    async with serving(rig):
        answer = await rig.get("/v1/status")
    assert (answer.status, answer.body) == (200, rig.status)


async def test_curl_can_use_the_socket(rig: Rig) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    async with serving(rig):
        command = [curl, "-sS", "--max-time", "5", "--unix-socket", str(rig.path), "http://supervisor/v1/status"]
        run = await anyio.to_thread.run_sync(lambda: subprocess.run(command, capture_output=True, check=True))
    assert json.loads(run.stdout) == rig.status


async def test_socket_is_for_its_owner_alone(rig: Rig) -> None:
    async with serving(rig):
        assert rig.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (OverallState.RUNNING, 200),
        (OverallState.DEGRADED, 200),
        (OverallState.INITIALIZING, 503),
        (OverallState.STARTING, 503),
        (OverallState.FAILED, 503),
        (OverallState.STOPPING, 503),
    ],
)
async def test_health_is_good_while_the_app_serves(rig: Rig, state: OverallState, status: int) -> None:
    rig.status |= {"state": state.value, "reason": "why"}
    async with serving(rig):
        answer = await rig.get("/v1/health")
    assert (answer.status, answer.body) == (status, {"state": state.value, "reason": "why"})


async def test_reload_answers_with_its_outcome(rig: Rig) -> None:
    async with serving(rig):
        answer = await rig.post("/v1/reload")
    assert (answer.status, answer.body) == (200, rig.outcome.as_dict())
    assert rig.requests == [Request(Verb.RELOAD, f"api uid {os.geteuid()}", "")]


async def test_reload_with_a_canary_has_its_percentage_and_time(rig: Rig) -> None:
    async with serving(rig):
        answer = await rig.post("/v1/reload?canary=2.5&for=60")
    assert answer.status == 200
    assert [request.canary for request in rig.requests] == [Canary(2.5, 60)]


@pytest.mark.parametrize(
    "query",
    [
        "canary=5",
        "for=60",
        "canary=0&for=60",
        "canary=100&for=60",
        "canary=-1&for=60",
        "canary=nan&for=60",
        "canary=5&for=0",
        "canary=5&for=86401",
        "canary=5&for=inf",
        "canary=5&for=nan",
        "canary=5%25&for=60",
        "canary=&for=",
    ],
)
async def test_canary_that_cannot_be_is_refused_with_what_is_allowed(rig: Rig, query: str) -> None:
    async with serving(rig):
        answer = await rig.post(f"/v1/reload?{query}")
    assert answer.status == 400
    assert "give a percentage above 0 and below 100, and seconds up to 86400" in answer.body["error"]
    assert rig.requests == []


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.ABORT])
async def test_canary_is_decided_by_its_own_path(rig: Rig, verb: Verb) -> None:
    async with serving(rig):
        answer = await rig.post(f"/v1/canary/{verb}")
    assert answer.status == 200
    assert rig.requests == [Request(verb, f"api uid {os.geteuid()}", "")]


async def test_canary_knows_no_other_verb_and_apps_none_of_its_own(rig: Rig) -> None:
    async with serving(rig):
        answers = [await rig.post(path) for path in ("/v1/canary/reload", "/v1/apps/app/promote")]
    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].body["error"] == "cannot reload a canary: no such verb; known: abort, promote"
    assert rig.requests == []


@pytest.mark.parametrize("result", [Result.REJECTED, Result.ROLLED_BACK, Result.FAILED, Result.CANCELLED])
async def test_request_without_success_answers_409(rig: Rig, result: Result) -> None:
    rig.outcome = Outcome(result=result, reason="migration 0002 failed")
    async with serving(rig):
        answer = await rig.post("/v1/apps/app/reload")
    assert answer.status == 409
    assert (answer.body["result"], answer.body["reason"]) == (result.value, "migration 0002 failed")


async def test_request_without_waiting_is_accepted_at_once(rig: Rig) -> None:
    rig.gate = anyio.Event()
    async with serving(rig):
        answer = await rig.post("/v1/services/redis/restart?wait=0")
        assert (answer.status, rig.finished) == (202, [])
        rig.gate.set()
        await _until(lambda: rig.finished == [Request(Verb.RESTART, f"api uid {os.geteuid()}", "redis")])


async def test_hanging_up_does_not_take_a_request_back(rig: Rig) -> None:
    rig.gate = anyio.Event()
    async with serving(rig):
        async with await rig.connect() as connection:
            await connection.send(_HEAD + b"\r\n")
            await rig.asked.wait()
        await rig.get("/v1/status")  # by now the hang-up was seen
        rig.gate.set()
        await _until(lambda: len(rig.finished) == 1)


async def test_unknown_name_is_answered_with_the_known_ones(rig: Rig) -> None:
    async with serving(rig):
        answer = await rig.post("/v1/services/postgre/stop")
        other = await rig.post("/v1/apps/postgres/stop")
    assert answer.status == other.status == 404
    assert answer.body["error"] == (
        "cannot stop service 'postgre': no such service; did you mean 'postgres'? known: postgres, redis"
    )
    assert rig.requests == []


async def test_services_have_no_reload(rig: Rig) -> None:
    async with serving(rig):
        answer = await rig.post("/v1/services/redis/reload")
    assert answer.status == 404
    assert "known: restart, start, stop" in answer.error


async def test_mistakes_are_answered_in_json(rig: Rig) -> None:
    async with serving(rig):
        answers = [
            await rig.get("/v1/nothing"),
            await rig.get("/v1/reload"),
            await rig.post("/v1/status"),
            await rig.get("/v1/events?follow=0&n=many"),
            await rig.get("/v1/logs?n=10001"),
            await rig.post("/v1/reload?wait=perhaps"),
        ]
    assert [answer.status for answer in answers] == [404, 405, 405, 400, 400, 400]
    assert all(answer.error.startswith("cannot ") for answer in answers)
    assert rig.requests == []


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_large_body_is_refused(rig: Rig, framing: str) -> None:
    body = b"x" * (unix_server.MAX_BODY_BYTES + 1)
    async with serving(rig), await rig.connect() as connection:
        if framing == "chunked":
            head, body = b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n" % (len(body), body)
        else:
            head = b"Content-Length: %d\r\n\r\n" % len(body)
        with contextlib.suppress(anyio.BrokenResourceError):  # it may hang up before all was sent
            await connection.send(_HEAD + head + body)
        assert b" 413 " in await connection.receive()
    assert rig.requests == []


async def test_body_without_end_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_server, "_BODY_SECONDS", 0.02)
    async with serving(rig), await rig.connect() as connection:
        await connection.send(_HEAD + b"Content-Length: 10\r\n\r\nshort")
        assert b" 408 " in await connection.receive()
    assert rig.requests == []


async def test_small_body_is_read_and_forgotten(rig: Rig) -> None:
    async with serving(rig), await rig.connect() as connection:
        for _ in range(2):  # on one connection, so the body must not be taken for the next request
            await connection.send(_HEAD + b"Content-Length: 2\r\n\r\n{}")
            assert b" 200 " in await connection.receive()
    assert len(rig.requests) == 2


async def test_garbage_is_survived(rig: Rig) -> None:
    generator = random.Random(7)
    garbage = [bytes(generator.randrange(256) for _ in range(generator.randrange(1, 400))) for _ in range(30)]
    garbage += [b"GET / HTTP/1.1\r\n" + b"a" * 70_000, b"\r\n" * 5000, b"GET /v1/status HTTP/9.9\r\n\r\n"]
    async with serving(rig):
        for data in garbage:
            async with await rig.connect() as connection:
                with contextlib.suppress(anyio.BrokenResourceError):
                    await connection.send(data)
        assert (await rig.get("/v1/status")).status == 200
    assert rig.requests == []


async def test_bug_behind_a_request_does_not_end_the_server(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.error = KeyError("a bug")
    async with serving(rig):
        answer = await rig.post("/v1/reload")
        assert (await rig.get("/v1/status")).status == 200
    assert answer.status == 500
    assert "internal error" in answer.error
    assert "a bug" in caplog.text


async def test_event_stream_begins_with_the_backlog_and_goes_on(rig: Rig) -> None:
    for text in ("one", "two", "three"):
        rig.events.publish(Notice(message=text))
    async with serving(rig), rig.stream("/v1/events?n=2") as reader:
        await reader.until("three")
        rig.events.publish(Notice(message="four"))
        text = await reader.until("four")
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [event["message"] for event in events] == ["two", "three", "four"]
    assert [event["n"] for event in events] == [2, 3, 4]


async def test_events_without_following_end(rig: Rig) -> None:
    rig.events.publish(Notice(message="one"))
    async with serving(rig), rig.stream("/v1/events?follow=0", "Connection: close") as reader:
        assert '"message": "one"' in await reader.to_end()


async def test_events_are_server_sent_events_where_wanted(rig: Rig) -> None:
    rig.events.publish(Notice(message="one"))
    async with serving(rig), rig.stream("/v1/events", "Accept: text/event-stream") as reader:
        text = await reader.until("\n\n")
        await reader.until('"message": "one"')
    assert "content-type: text/event-stream" in text
    assert "id: 1\nevent: notice\ndata: {" in reader.text


async def test_stream_is_closed_when_its_client_hangs_up(rig: Rig) -> None:
    async with serving(rig):
        async with rig.stream("/v1/events?n=0"):
            await _until(lambda: len(rig.events._subscriptions) == 1)
        await _until(lambda: rig.events._subscriptions == [])


async def test_logs_of_one_source_are_its_last_lines(rig: Rig) -> None:
    for number in range(5):
        rig.logs.ring("redis").add(f"line {number}")
    rig.logs.ring("postgres").add("other")
    async with serving(rig), rig.stream("/v1/logs?source=redis&n=2", "Connection: close") as reader:
        text = await reader.to_end()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [(line["n"], line["source"], line["text"]) for line in lines] == [
        (4, "redis", "line 3"),
        (5, "redis", "line 4"),
    ]


async def test_logs_of_all_sources_are_followed_in_order(rig: Rig) -> None:
    for number in range(3):
        rig.logs.ring("postgres").add(f"p{number}")
        rig.logs.ring("redis").add(f"r{number}")
    async with serving(rig), rig.stream("/v1/logs?n=4&follow=1") as reader:
        await reader.until("r2")
        rig.logs.ring("postgres").add("p3")
        await reader.until("p3")
        rig.logs.ring("redis").add("r3")
        text = await reader.until("r3")
    lines = [json.loads(line)["text"] for line in text.splitlines() if line.startswith("{")]
    assert lines == ["p1", "r1", "p2", "r2", "p3", "r3"]


async def test_logs_of_an_unknown_source_name_the_known(rig: Rig) -> None:
    rig.logs.ring("redis")
    async with serving(rig):
        answer = await rig.get("/v1/logs?source=reddis")
    assert (answer.status, answer.error) == (
        404,
        "cannot read the log of 'reddis': no such source; did you mean 'redis'? known: redis",
    )


async def test_secrets_are_masked_in_all_that_leaves(rig: Rig) -> None:
    def redact(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("hunter2", "***"))

    rig.options["redact"] = redact
    rig.status["reason"] = "password hunter2 is wrong"
    rig.outcome = Outcome(result=Result.FAILED, reason="hunter2")
    rig.logs.ring("app").add("my password is hunter2")
    rig.events.publish(Notice(message="hunter2"))
    async with serving(rig):
        texts = [json.dumps((await rig.get(f"/v1/{resource}")).body) for resource in ("status", "health")]
        texts.append(json.dumps((await rig.post("/v1/reload")).body))
        for resource in ("logs?n=1", "logs?follow=1", "events?follow=0", "events"):
            async with rig.stream(f"/v1/{resource}") as reader:
                texts.append(await reader.until("***"))
    assert all("***" in text and "hunter2" not in text for text in texts)


async def test_cancelling_ends_it_fast_with_streams_open(rig: Rig) -> None:
    async with serving(rig) as group, contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(rig.stream("/v1/events?n=0")) for _ in range(3)]
        readers.append(await stack.enter_async_context(rig.stream("/v1/logs?follow=1")))
        started = time.monotonic()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            texts = [await reader.until("0\r\n\r\n") for reader in readers]
        ended_after = time.monotonic() - started
    assert all(text.endswith("0\r\n\r\n") for text in texts)  # the last chunk: a clean end, no break
    assert ended_after < LIMIT_SECONDS / 2
    assert not rig.path.exists()


async def test_cancelling_cuts_off_a_client_that_does_not_read(rig: Rig) -> None:
    rig.logs.ring("app")
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        async with serving(rig) as group:
            connection = await stack.enter_async_context(await rig.connect())
            await connection.send(b"GET /v1/logs?follow=1&n=0 HTTP/1.1\r\nHost: supervisor\r\n\r\n")
            assert b" 200 " in await connection.receive()
            rig.logs.ring("app").add("x" * 4_000_000)  # more than the socket takes: the server's next write must wait
            await _until(lambda: _unread_bytes(connection) > 100_000)
            group.cancel_scope.cancel()
        assert asyncio.all_tasks() <= before
    assert not rig.path.exists()


async def test_client_waiting_at_the_end_is_told_that_it_was_cancelled(rig: Rig) -> None:
    rig.gate = anyio.Event()
    async with serving(rig) as group, await rig.connect() as connection:
        await connection.send(_HEAD + b"\r\n")
        await rig.asked.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            answer = await connection.receive()
    assert b" 409 " in answer
    assert b'"result":"cancelled","reason":"the supervisor is stopping"' in answer


async def test_leaves_the_signal_handlers_alone(rig: Rig) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with serving(rig):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_idle_server_has_no_timer(rig: Rig) -> None:
    loop: Any = asyncio.get_running_loop()
    async with anyio.create_task_group() as group:
        await group.start(rig.server().run)
        async with rig.stream("/v1/events?n=0"):
            await _until(lambda: len(rig.events._subscriptions) == 1)
            timers = [handle for handle in loop._scheduled if not handle.cancelled() and handle.when() < math.inf]
        group.cancel_scope.cancel()
    assert timers == []


async def test_stale_socket_is_replaced(rig: Rig) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(rig.path))
    async with serving(rig):
        assert (await rig.get("/v1/status")).status == 200


async def test_socket_somebody_answers_on_is_left_alone(rig: Rig) -> None:
    async with serving(rig):
        with pytest.raises(ConfigurationError, match=r"another supervisor answers on it; .*SUPERVISOR_SOCKET"):
            await Rig(rig.path).server().run()
        assert (await rig.get("/v1/status")).status == 200


async def test_file_in_the_way_is_left_alone(rig: Rig) -> None:
    rig.path.write_text("precious")
    with pytest.raises(ConfigurationError, match="something that is no socket is in its place; move it away"):
        await rig.server().run()
    assert rig.path.read_text() == "precious"


async def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on control socket '.*/none/c.sock': No such file"):
        await Rig(tmp_path / "none" / "c.sock").server().run()


async def test_path_too_long_is_named_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 107)
    with pytest.raises(ConfigurationError, match=r"has \d+ bytes and the kernel takes 107; set SUPERVISOR_SOCKET or"):
        await Rig(path).server().run()


async def test_longest_path_works() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "x" * (107 - len(folder) - 1))
        async with serving(Rig(path)) as _:
            assert path.is_socket()


async def test_socket_of_a_successor_is_not_removed(rig: Rig) -> None:
    async with serving(rig):
        rig.path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(rig.path))
    assert rig.path.exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


_STRANGER = 65534
_CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(5)
    connection.connect(sys.argv[1])
    try:
        connection.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: s\\r\\nConnection: close\\r\\n\\r\\n")
        print(connection.recv(100)[:15])
    except (ConnectionResetError, BrokenPipeError):
        print(b"")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("owner", "answer"), [(0, "b''"), (_STRANGER, "b'HTTP/1.1 200 OK'")])
async def test_uid_of_the_peer_is_checked_even_where_the_mode_lets_it_in(
    open_folder: Path, owner: int, answer: str
) -> None:
    rig = Rig(open_folder / "control.sock")
    rig.options["owner_uid"] = owner
    async with serving(rig):
        rig.path.chmod(0o666)
        command = ["/usr/bin/env", "python3", "-c", _CONNECT, str(rig.path)]
        run = await anyio.to_thread.run_sync(
            lambda: subprocess.run(command, user=_STRANGER, capture_output=True, text=True, timeout=8)
        )
        assert (await rig.get("/v1/status")).status == 200  # root always may
    assert (run.stdout.strip(), run.stderr) == (answer, "")


async def test_streams_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_STREAMS", 2)
    async with serving(rig):
        async with rig.stream("/v1/events"), rig.stream("/v1/logs?follow=1"):
            answer = await rig.get("/v1/events")
            assert (answer.status, answer.error) == (
                503,
                "cannot open another stream: 2 are open; close one of them",
            )
            assert (await rig.get("/v1/health")).status == 200
        await _until(lambda: rig.events._subscriptions == [])
        async with rig.stream("/v1/events") as reader:
            assert " 200 " in reader.text


async def test_connections_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_server, "MAX_CONNECTIONS", 2)
    async with serving(rig):
        async with rig.stream("/v1/events"), rig.stream("/v1/events"), await rig.connect() as third:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await third.receive()
        await _until(lambda: rig.events._subscriptions == [])
        assert (await rig.get("/v1/health")).status == 200


def _unread_bytes(connection: SocketStream) -> int:
    raw = connection.extra(anyio.abc.SocketAttribute.raw_socket)
    return int(struct.unpack("i", fcntl.ioctl(raw, termios.FIONREAD, b"    "))[0])


async def _until(condition: Any) -> None:
    """Poll, with a limit, for what has no event of its own."""
    with anyio.fail_after(LIMIT_SECONDS):
        while not condition():
            await anyio.sleep(0.005)
