"""The holding answer on real sockets: what it answers, what it bears, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream, TaskGroup

from supervisor.app.front import holder as module
from supervisor.app.front.holder import Holder
from supervisor.app.front.model import FrontError, Holding
from tests.apart import start_apart
from tests.e2e.harness import free_port

pytestmark = pytest.mark.anyio
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
LIMIT_SECONDS = 10.0
STARTING = Holding("starting", "", waiting=("redis",), done=("postgres",))
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


class Answer:
    """Bytes taken apart: status line, headers by lower-case name, body."""

    def __init__(self, data: bytes) -> None:
        head, found, self.body = data.partition(b"\r\n\r\n")
        assert found, f"no whole answer: {data[:200]!r}"
        first, *rest = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}


@asynccontextmanager
async def running(holder: Holder) -> AsyncIterator[TaskGroup]:
    """The holder runs, and is cancelled at the end; a test has 10 s."""
    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            await group.start(holder.run)
            yield group
            group.cancel_scope.cancel()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can enter, with a short path."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


class Rig:
    """A holder on a port or a unix socket, and connections to it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._port, self._path = free_port(), folder / "hold.sock"
        self.holder = Holder.on_unix("notes", self._path) if kind == "unix" else Holder.on_tcp("notes", self._port)
        self._unix = kind == "unix"

    async def connect(self) -> SocketStream:
        if self._unix:
            return await anyio.connect_unix(self._path)
        return await anyio.connect_tcp("127.0.0.1", self._port)

    async def ask(self, request: bytes = GET) -> Answer:
        async with await self.connect() as stream:
            await stream.send(request)
            return Answer(await read_to_end(stream))


@pytest.fixture(params=["tcp", "unix"])
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    made = Rig(request.param, folder)
    made.holder.tell(STARTING)
    yield made
    made.holder.close()


async def read_to_end(stream: SocketStream) -> bytes:
    data = b""
    with anyio.fail_after(LIMIT_SECONDS):
        try:
            while True:
                data += await stream.receive()
        except anyio.EndOfStream:
            return data


def get(accept: str, method: str = "GET") -> bytes:
    return f"{method} /some/page?q=1 HTTP/1.1\r\nHost: app\r\nAccept: {accept}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/html,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("*/*", "text/plain; charset=utf-8"),
    ],
)
async def test_every_request_is_answered_503_in_the_form_it_asks_for(rig: Rig, accept: str, content_type: str) -> None:
    async with running(rig.holder):
        answer = await rig.ask(get(accept))
    assert answer.status == 503
    assert b"redis" in answer.body
    assert answer.headers.pop("content-security-policy", "").startswith("default-src 'none'") == ("html" in accept)
    assert answer.headers == {
        "content-type": content_type,
        "content-length": str(len(answer.body)),
        "retry-after": "2",
        "cache-control": "no-store",
        "vary": "accept",
        "x-content-type-options": "nosniff",
        "connection": "close",
    }


async def test_head_gets_the_head_of_get_and_no_body(rig: Rig) -> None:
    async with running(rig.holder):
        whole, head = await rig.ask(get("text/html")), await rig.ask(get("text/html", "HEAD"))
    assert head.body == b""
    assert head.headers == whole.headers
    assert int(head.headers["content-length"]) > 1000


async def test_several_accept_headers_count_as_one(rig: Rig) -> None:
    async with running(rig.holder):
        answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: app\r\nAccept: */*\r\nAccept: application/json\r\n\r\n")
    assert json.loads(answer.body)["waiting"] == ["redis"]


async def test_what_is_told_is_what_the_next_request_sees(rig: Rig) -> None:
    async with running(rig.holder), await rig.connect() as early:
        assert json.loads((await rig.ask(get("application/json"))).body)["state"] == "starting"
        rig.holder.tell(Holding("failed", "exited with 3"))
        await early.send(get("application/json"))
        late = Answer(await read_to_end(early))
    told = json.loads(late.body)
    assert (told["state"], told["reason"]) == ("failed", "exited with 3")
    assert late.headers["retry-after"] == str(told["retry_after_seconds"])


async def test_requests_wait_in_a_socket_that_is_there_before_it_runs(rig: Rig) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        async with await rig.connect() as early:
            await early.send(GET)
            async with running(rig.holder):
                assert Answer(await read_to_end(early)).status == 503


async def test_http_1_0_and_a_head_in_pieces_are_answered(rig: Rig) -> None:
    async with running(rig.holder):
        assert (await rig.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 503
        async with await rig.connect() as stream:
            for piece in (b"GET / HT", b"TP/1.1\r\nHost: ", b"app\r\n\r", b"\n"):
                await stream.send(piece)
            assert Answer(await read_to_end(stream)).status == 503


async def test_a_head_that_is_too_large_gets_431(rig: Rig) -> None:
    async with running(rig.holder):
        answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: app\r\nX-Large: " + b"x" * 40_000 + b"\r\n\r\n")
        assert answer.status == 431
        assert (await rig.ask()).status == 503


async def test_a_body_is_dropped_and_its_sender_gets_the_whole_answer(rig: Rig) -> None:
    body = b"x" * 60_000
    async with running(rig.holder):
        answer = await rig.ask(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 60000\r\n\r\n" + body)
    assert answer.status == 503
    assert len(answer.body) == int(answer.headers["content-length"])


async def test_a_body_without_end_is_cut_off(rig: Rig) -> None:
    sent = 0
    async with running(rig.holder), await rig.connect() as stream:
        await stream.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 999999999\r\n\r\n")
        with contextlib.suppress(anyio.BrokenResourceError):
            while sent < 50_000_000:
                await stream.send(b"x" * 65536)
                sent += 65536
    assert sent < 50_000_000  # 16 MiB are read, and some fit into the kernel's buffers


async def test_a_slow_reader_gets_all_of_a_long_answer(rig: Rig) -> None:
    rig.holder.tell(Holding("failed", "x" * 3_000_000))
    async with running(rig.holder), await rig.connect() as stream:
        await stream.send(get("application/json"))
        first = await stream.receive(1)
        answer = Answer(first + await read_to_end(stream))
    assert len(answer.body) == int(answer.headers["content-length"]) > 3_000_000


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\x01\x00", b"EHLO mail\r\n\r\n", b"\r\n\r\nhello there\r\n\r\n"]
)
async def test_what_is_no_http_is_hung_up_on(rig: Rig, noise: bytes) -> None:
    async with running(rig.holder):
        async with await rig.connect() as stream:
            await stream.send(noise)
            assert await read_to_end(stream) == b""
        assert (await rig.ask()).status == 503


async def test_a_peer_that_leaves_in_any_way_takes_nobody_with_it(rig: Rig) -> None:
    async with running(rig.holder):
        for said in (b"", b"GET / HT", GET):
            async with await rig.connect() as stream:
                await stream.send(said)
                raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a goodbye
        assert (await rig.ask()).status == 503


async def test_a_peer_that_says_nothing_is_hung_up_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECTION_SECONDS", 0.1)
    async with running(rig.holder), await rig.connect() as silent, await rig.connect() as slow:
        await slow.send(b"GET / HT")
        assert await read_to_end(silent) == b""
        assert await read_to_end(slow) == b""


async def test_more_than_the_bound_wait_until_somebody_leaves(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert module._CONNECTIONS == 256
    monkeypatch.setattr(module, "_CONNECTIONS", 2)
    rig = Rig("tcp", folder)
    async with running(rig.holder), await rig.connect(), await rig.connect() as second, await rig.connect() as third:
        await third.send(GET)
        with anyio.move_on_after(0.2) as waited:
            await third.receive()
        assert waited.cancelled_caught
        await second.aclose()
        assert Answer(await read_to_end(third)).status == 503


async def test_cancelling_closes_everything(rig: Rig) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        async with running(rig.holder):
            stream = await rig.connect()
            assert (await rig.ask()).status == 503  # so the one before it was accepted
        async with stream:
            assert await read_to_end(stream) == b""
        with pytest.raises(OSError):
            await rig.connect()


async def test_closing_leaves_a_duplicate_of_the_socket_listening() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, anyio.fail_after(LIMIT_SECONDS):
        port = held.getsockname()[1]
        async with (
            running(Holder("notes", listeners=[held.dup()])),
            await anyio.connect_tcp("127.0.0.1", port) as stream,
        ):
            await stream.send(GET)
            assert Answer(await read_to_end(stream)).status == 503
        async with await anyio.connect_tcp("127.0.0.1", port):
            pass


async def test_several_listeners_tell_the_same(folder: Path) -> None:
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    numbers = [port.getsockname()[1] for port in ports]
    holder = Holder("notes", listeners=ports)
    holder.tell(STARTING)
    async with running(holder):
        bodies = set()
        for number in numbers:
            async with await anyio.connect_tcp("127.0.0.1", number) as stream:
                await stream.send(GET)
                bodies.add(Answer(await read_to_end(stream)).body)
    assert len(bodies) == 1


def test_a_taken_port_is_an_error_that_names_who_has_it() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as taken,
        pytest.raises(FrontError, match=rf"cannot answer on port \d+ .* taken by pid {os.getpid()}"),
    ):
        Holder.on_tcp("notes", taken.getsockname()[1])


def test_a_socket_nobody_listens_on_is_replaced(folder: Path) -> None:
    path = folder / "hold.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as old:
        old.bind(str(path))
    holder = Holder.on_unix("notes", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
    holder.close()
    assert list(folder.iterdir()) == []


def test_a_socket_that_took_the_path_over_is_left_alone(folder: Path) -> None:
    path = folder / "hold.sock"
    older, newer = Holder.on_unix("notes", path), Holder.on_unix("notes", path)
    older.close()
    assert path.is_socket()
    newer.close()
    assert not path.exists()


def test_a_file_in_the_way_is_kept_and_named(folder: Path) -> None:
    path = folder / "hold.sock"
    path.write_text("mine")
    with pytest.raises(FrontError, match=r"cannot listen on socket '.*hold.sock' .*: something that is no socket"):
        Holder.on_unix("notes", path)
    assert path.read_text() == "mine"


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(folder: Path) -> None:
    with pytest.raises(FrontError, match="too long"):
        Holder.on_unix("notes", folder / ("x" * 120))


@needs_root
def test_only_the_owner_may_connect_to_a_unix_socket(folder: Path) -> None:
    path = folder / "hold.sock"
    holder = Holder.on_unix("notes", path, owner=(65534, 65534))
    try:
        assert may_connect(path, 65534)
        assert not may_connect(path, 65533)
    finally:
        holder.close()


def may_connect(path: Path, uid: int) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        os.seteuid(uid)
        try:
            client.connect(str(path))
        except PermissionError:
            return False
        finally:
            os.seteuid(0)
    return True


HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
frontend app
  bind 127.0.0.1:{port}
  default_backend hold
backend hold
  server hold unix@{folder}/hold.sock
"""


async def test_behind_haproxy_every_client_gets_the_answer_with_a_large_body_too(folder: Path) -> None:
    port = free_port()
    (folder / "haproxy.cfg").write_text(HAPROXY.format(folder=folder, port=port))
    holder = Holder.on_unix("notes", folder / "hold.sock")
    haproxy = start_apart(["haproxy", "-db", "-f", folder / "haproxy.cfg"], log=folder / "haproxy.log")
    try:
        async with running(holder):
            await accepting(port)
            page = await ask_port(port, get("text/html"))
            assert (page.status, page.headers["retry-after"]) == (503, "2")
            assert len(page.body) == int(page.headers["content-length"])
            assert (await ask_port(port, get("text/html", "HEAD"))).body == b""
            upload = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 4_000_000
            for _ in range(20):  # what is closed too early loses some of them, not all
                post = await ask_port(port, upload)
                assert (post.status, post.body) == (503, b"notes is starting\ntry again in 2 s\n")
    finally:
        haproxy.end(signal.SIGTERM)
        holder.close()


async def accepting(port: int) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            except OSError:
                await anyio.sleep(0.02)


async def ask_port(port: int, request: bytes) -> Answer:
    """One request as a client does it that reads while it writes, and hangs up after the answer."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream, anyio.create_task_group() as group:
        group.start_soon(stream.send, request)
        data = b""
        while not is_whole(data, request):
            data += await stream.receive()
        group.cancel_scope.cancel()
    return Answer(data)


def is_whole(data: bytes, request: bytes) -> bool:
    if b"\r\n\r\n" not in data:
        return False
    answer = Answer(data)
    return request.startswith(b"HEAD") or len(answer.body) >= int(answer.headers["content-length"])
