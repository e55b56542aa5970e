"""The engine's client: its errors, its streams, and that cancelling leaves nothing behind; against real engines."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.errors import ConfigurationError, ExitCode
from supervisor.engine.client import NEWEST_API, Endpoint, Engine
from supervisor.engine.errors import (
    Conflict,
    EngineRefused,
    NotAManager,
    NotFound,
    OutOfSequence,
    Unavailable,
    refusal,
)
from supervisor.engine.events import EngineEvent, Lost, Opened, StreamItem, retry_delay
from supervisor.engine.streams import Frames, JsonLines, Output
from tests.engine.daemons import BUSYBOX, Daemon, private_daemon, save_image

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(host: str, **options: Any) -> AsyncIterator[Engine]:
    engine = Engine(Endpoint(host), **options)
    try:
        yield engine
    finally:
        engine.close()


# --- pure ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "no such container", NotFound),
        (409, "name in use", Conflict),
        (500, "rpc error: code = Unknown desc = update out of sequence", OutOfSequence),
        (500, "rpc error: code = Unknown desc = name conflicts with an existing object", Conflict),
        (503, 'This node is not a swarm manager. Use "docker swarm init"', NotAManager),
        (500, "This node is not a swarm manager.", NotAManager),
        (503, "Swarm is encrypted and needs to be unlocked before it can be used.", NotAManager),
        (403, "forbidden by the proxy", EngineRefused),
        (500, "something else", EngineRefused),
    ],
)
def test_refusals_are_told_apart_by_text_before_status(status: int, message: str, kind: type[EngineRefused]) -> None:
    error = refusal("do it", status, message)
    assert type(error) is kind
    assert str(error) == f"cannot do it: the engine answered {status}: {message}"
    assert (error.status, error.message, error.exit_code) == (status, message, ExitCode.UNREACHABLE)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(st.lists(st.integers(0, 10_000)))
def test_json_lines_are_whole_however_they_are_cut(cuts: list[int]) -> None:
    lines = JsonLines()
    data = b'{"a": 1}\n\n{"b": "x\\ny"}\r\n{"c": []}\n{"unfinished'
    found = [line for piece in pieces(data, cuts) for line in lines.feed(piece)]
    assert found == [{"a": 1}, {"b": "x\ny"}, {"c": []}]


@given(st.lists(st.integers(0, 10_000)))
def test_frames_are_whole_however_they_are_cut(cuts: list[int]) -> None:
    frames = Frames()
    data = b"\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\4err\n\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\5cut"
    found = [piece for part in pieces(data, cuts) for piece in frames.feed(part)]
    assert found == [Output("stdout", b"out"), Output("stderr", b"err\n"), Output("stdout", b"")]


def test_output_of_a_terminal_has_no_frames() -> None:
    assert Frames(terminal=True).feed(b"\1\0\0\0plain") == [Output("stdout", b"\1\0\0\0plain")]


def test_retries_double_and_stay_within_five_seconds() -> None:
    delays = [retry_delay(failures) for failures in (*range(1, 9), 1000)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


# --- a server that is no engine -------------------------------------------------------------------------------------


async def whole_request(stream: anyio.abc.ByteStream) -> None:
    """Read a request with its body: to close on what was not read would reset the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0:
        left -= len(await stream.receive())


@asynccontextmanager
async def serving(path: Path, answers: list[bytes], *, delay_seconds: float = 0) -> AsyncIterator[str]:
    """A unix socket that answers each connection with the next of `answers`; the last again and again."""
    left = list(answers)

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await whole_request(stream)
            data = left.pop(0) if len(left) > 1 else left[0]
            await anyio.sleep(delay_seconds)
            if data:
                await stream.send(data)
            else:
                await anyio.sleep_forever()

    listener = await anyio.create_unix_listener(path)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        yield f"unix://{path}"
        group.cancel_scope.cancel()


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


JSON = "Content-Type: application/json\r\n"


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "e.sock"


async def test_call_to_nothing_says_who_did_not_answer_and_why(socket_path: Path) -> None:
    async with connected(f"unix://{socket_path}") as engine:
        with pytest.raises(Unavailable, match=r"cannot ping the engine: No such file or directory \(unix:///.*\); is"):
            await engine.ping()


async def test_silent_engine_is_unavailable_once_the_limit_passed(socket_path: Path) -> None:
    async with serving(socket_path, [b""]) as host, connected(host) as engine:
        with pytest.raises(Unavailable, match=r"cannot ping the engine: no answer within 0.2 s"):
            await engine.ping(timeout_seconds=0.2)


async def test_cancelled_call_returns_at_once_and_its_thread_ends(socket_path: Path) -> None:
    async with serving(socket_path, [b""]) as host, connected(host) as engine:
        before = anyio.current_time()
        with anyio.move_on_after(0.05):
            await engine.ping(timeout_seconds=2)
        assert anyio.current_time() - before < 1
        assert threads_in("_exchange") == 1
        await settled(lambda: threads_in("_exchange") == 0, limit_seconds=10)


async def test_garbage_is_unavailable_and_no_foreign_error(socket_path: Path) -> None:
    async with serving(socket_path, [b"\0\1\2 not http\r\n\r\n"]) as host, connected(host) as engine:
        with pytest.raises(Unavailable, match="cannot ping the engine: "):
            await engine.ping()


async def test_refusal_without_json_is_told_as_it_came(socket_path: Path) -> None:
    answers = [http(b"OK", headers="Api-Version: 1.44\r\n"), http(b"Forbidden by the proxy", "403 Forbidden")]
    async with serving(socket_path, answers) as host, connected(host) as engine:
        with pytest.raises(EngineRefused, match="answered 403: Forbidden by the proxy"):
            await engine.info()


async def test_newer_engine_is_spoken_to_in_the_newest_version_known_here(socket_path: Path) -> None:
    async with serving(socket_path, [http(b"OK", headers="Api-Version: 1.99\r\n")]) as host, connected(host) as engine:
        assert (await engine.ping()).api_version == (1, 99)
        assert await engine.api_version() == NEWEST_API


async def test_info_may_take_longer_than_other_calls(socket_path: Path) -> None:
    answers = [http(b"OK"), http(b"{}", headers=JSON)]
    slow = serving(socket_path, answers, delay_seconds=0.4)
    async with slow as host, connected(host, timeout_seconds=0.2) as engine:
        assert await engine.info() == {}
        with pytest.raises(Unavailable, match=r"no answer within 0.2 s"):
            await engine.version()


async def test_empty_list_written_as_null_is_a_list(socket_path: Path) -> None:
    answers = [http(b"OK"), http(b"null\n", headers=JSON)]
    async with serving(socket_path, answers) as host, connected(host) as engine:
        assert await engine.services.find() == []


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def exec_answers(output: bytes, exit_code: int | None) -> list[bytes]:
    """What an engine says to a program that is run in a container; its output has no length and is not chunked."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n" + output
    made, ended = (http(json.dumps(each).encode(), headers=JSON) for each in ({"Id": "e"}, {"ExitCode": exit_code}))
    return [http(b"OK"), made, raw, ended]


async def test_output_of_a_program_is_handed_on_as_it_comes_and_its_complaints_are_kept(socket_path: Path) -> None:
    taken: list[bytes] = []

    async def take(data: bytes) -> None:
        taken.append(data)

    large = bytes(range(256)) * 4096
    output = frame(1, large[:500_000]) + frame(2, b"odd") + frame(1, large[500_000:]) + frame(2, b" thing")
    async with serving(socket_path, exec_answers(output, 3)) as url:
        done = await Engine(Endpoint(url)).containers.exec_to("postgres", ["pg_dump"], take, env={"A": "b"})
    assert b"".join(taken) == large
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"", b"odd thing")


async def test_output_of_a_program_is_not_gathered_before_it_is_handed_on(socket_path: Path) -> None:
    made, raw, ended = exec_answers(2 * frame(1, bytes(200_000)), 0)[1:]
    answers = [http(b"OK"), made, raw, ended]
    taken = anyio.Event()

    async def take(data: bytes) -> None:
        taken.set()

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await whole_request(stream)
            data = answers.pop(0)
            await stream.send(data)
            if data is raw:
                await taken.wait()
                await stream.send(frame(1, b"the rest"))

    listener = await anyio.create_unix_listener(socket_path)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        with anyio.fail_after(10):
            await Engine(Endpoint(f"unix://{socket_path}")).containers.exec_to("postgres", ["pg_dump"], take)
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("output", "code"), [(frame(1, b"half of it")[:-3], 0), (frame(1, b"all"), None)], ids=["cut off", "still runs"]
)
async def test_output_that_ends_before_the_program_is_an_error(
    socket_path: Path, output: bytes, code: int | None
) -> None:
    async def take(data: bytes) -> None:
        pass

    async with serving(socket_path, exec_answers(output, code)) as url:
        with pytest.raises(Unavailable, match="cannot run 'pg_dump' in container 'postgres': the connection ended"):
            await Engine(Endpoint(url)).containers.exec_to("postgres", ["pg_dump"], take)


async def test_program_that_is_silent_for_longer_than_a_call_may_take_is_waited_for(socket_path: Path) -> None:
    made, raw, ended = exec_answers(frame(1, b"late"), 0)[1:]
    answers = [http(b"OK"), made, raw, ended]
    taken: list[bytes] = []

    async def take(data: bytes) -> None:
        taken.append(data)

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await whole_request(stream)
            data = answers.pop(0)
            head, _, rest = data.partition(b"\r\n\r\n")
            await stream.send(head + b"\r\n\r\n")
            if data is raw:
                await anyio.sleep(1)
            await stream.send(rest)

    listener = await anyio.create_unix_listener(socket_path)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        with anyio.fail_after(10):
            engine = Engine(Endpoint(f"unix://{socket_path}"), timeout_seconds=0.3)
            await engine.containers.exec_to("postgres", ["pg_dump"], take)
        group.cancel_scope.cancel()
    assert taken == [b"late"]


async def test_disk_that_has_no_room_for_the_output_of_a_program_is_not_taken_for_the_engine(socket_path: Path) -> None:
    async def take(data: bytes) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "database.dump")

    async with serving(socket_path, exec_answers(frame(1, b"a dump"), 0)) as url:
        with pytest.raises(OSError, match=r"quota exceeded: 'database\.dump'"):
            await Engine(Endpoint(url)).containers.exec_to("postgres", ["pg_dump"], take)


async def test_environment_is_not_looked_at(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("NO_PROXY", "")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(http(b"OK", headers="Api-Version: 1.41\r\nSwarm: inactive\r\n"))

    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        async with connected(f"tcp://127.0.0.1:{port}") as engine:
            assert (await engine.ping()).swarm == "inactive"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["ssh://nobody@127.0.0.1:1", "gopher://x"])
async def test_endpoint_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    async with connected(url) as engine:
        with pytest.raises((ConfigurationError, Unavailable), match="cannot "):
            await engine.ping()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` and `other`: self-signed for 127.0.0.1, so each is its own CA."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("good", "other"):
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ]
        names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run([*make, *names, *map(str, files)], check=True, capture_output=True, timeout=20)
    return folder


@pytest.mark.parametrize("trusted", ["good", "other"])
async def test_tls_checks_the_engine_and_shows_our_certificate(certificates: Path, trusted: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "good.pem"))
    context.load_cert_chain(certificates / "good.pem", certificates / "good.key")
    context.verify_mode = ssl.CERT_REQUIRED
    server = threading.Thread(
        target=_serve_tls_once, args=(context, bound := socket.create_server(("127.0.0.1", 0))), daemon=True
    )
    server.start()
    endpoint = Endpoint(
        f"tcp://127.0.0.1:{bound.getsockname()[1]}",
        ca_file=certificates / f"{trusted}.pem",
        certificate_file=certificates / "good.pem",
        key_file=certificates / "good.key",
    )
    engine = Engine(endpoint)
    try:
        if trusted == "good":
            assert (await engine.ping()).api_version == (1, 44)
        else:
            with pytest.raises(Unavailable, match=r"cannot ping the engine: .*certificate"):
                await engine.ping()
    finally:
        engine.close()
        server.join(5)
        bound.close()


def _serve_tls_once(context: ssl.SSLContext, listener: Any) -> None:
    listener.settimeout(5)
    raw, _ = listener.accept()
    try:
        with context.wrap_socket(raw, server_side=True) as stream:
            stream.recv(4096)
            stream.sendall(http(b"OK", headers="Api-Version: 1.44\r\n"))
    except OSError:
        raw.close()


# --- a real engine --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One engine with busybox and a Swarm on loopback, for the tests of this module; each uses names of its own."""
    with private_daemon() as made:
        save_image(made.folder / "busybox.tar", BUSYBOX)
        made.docker("load", "--input", str(made.folder / "busybox.tar"))
        made.docker("swarm", "init", "--listen-addr", "127.0.0.1", "--advertise-addr", "127.0.0.1")
        yield made


@pytest.fixture
async def engine(daemon: Daemon) -> AsyncIterator[Engine]:
    async with connected(daemon.host) as made:
        yield made


def threads_in(function: str) -> int:
    """How many threads are inside a function of this name."""
    found = 0
    for frame in sys._current_frames().values():
        each: Any = frame
        while each is not None and each.f_code.co_name != function:
            each = each.f_back
        found += each is not None
    return found


async def settled(condition: Any, *, limit_seconds: float = 20) -> None:
    with anyio.fail_after(limit_seconds):
        while not condition():
            await anyio.sleep(0.01)


async def next_event(events: anyio.abc.ObjectReceiveStream[StreamItem], kind: str, action: str) -> EngineEvent:
    with anyio.fail_after(20):
        while True:
            item = await events.receive()
            if isinstance(item, EngineEvent) and (item.kind, item.action) == (kind, action):
                return item


@pytest.mark.engine
async def test_engine_tells_what_it_is(engine: Engine) -> None:
    ping, version, info = await engine.ping(), await engine.version(), await engine.info()
    assert version["ApiVersion"] == ".".join(map(str, ping.api_version))
    assert info["Swarm"]["LocalNodeState"] == "active"
    nodes = await engine.nodes.find()
    assert [node["ID"] for node in nodes] == [info["Swarm"]["NodeID"]]


@pytest.mark.engine
async def test_container_lives_from_create_to_remove(engine: Engine) -> None:
    script = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done"
    made = await engine.containers.create({"Image": BUSYBOX, "Cmd": ["/bin/sh", "-c", script]}, "life")
    with pytest.raises(Conflict, match="cannot create container 'life'"):
        await engine.containers.create({"Image": BUSYBOX}, "life")
    await engine.containers.start(made)
    await engine.containers.start(made)
    with anyio.fail_after(10):
        async with engine.containers.follow("life", tail=10) as output:
            told = {(await anext(output)).data, (await anext(output)).data}
    assert told == {b"out\n", b"err\n"}
    assert {piece.data for piece in await engine.containers.logs("life")} == {b"out\n", b"err\n"}
    ran = await engine.containers.exec("life", ["/bin/sh", "-c", "echo one; echo two >&2; exit 3"])
    assert (ran.exit_code, ran.stdout, ran.stderr) == (3, b"one\n", b"two\n")
    await engine.containers.stop("life", grace_seconds=10)
    state = (await engine.containers.inspect("life"))["State"]
    assert (state["Running"], state["ExitCode"]) == (False, 7)
    await engine.containers.rename("life", "lived")
    assert [each["Id"] for each in await engine.containers.find({"name": ["^/lived$"]})] == [made]
    await engine.containers.remove("lived")
    with pytest.raises(NotFound, match="cannot inspect container 'lived'"):
        await engine.containers.inspect("lived")
    assert threads_in("_read") == 0


KILLED_WHILE_IT_RUNS = """
import sys, anyio
from supervisor.engine.client import Endpoint, Engine

async def take(data):
    pass

anyio.run(Engine(Endpoint(sys.argv[1])).containers.exec_to, "held", ["sleep", "3600"], take)
"""


@pytest.mark.engine
async def test_program_in_a_container_ends_well_or_with_whoever_started_it(engine: Engine, daemon: Daemon) -> None:
    made = await engine.containers.create({"Image": BUSYBOX, "Cmd": ["/bin/sh", "-c", "sleep 999 & wait"]}, "held")
    await engine.containers.start(made)

    async def runs() -> bytes:
        return (await engine.containers.exec("held", ["busybox", "ps", "-o", "args"])).stdout

    async def sleeps() -> bool:
        return b"sleep 3600" in await runs()

    try:
        taken: list[bytes] = []

        async def take(data: bytes) -> None:
            taken.append(data)

        argv = ["sh", "-c", 'cat; echo "$A"; echo odd >&2; exit 7']
        with anyio.fail_after(20):
            done = await engine.containers.exec_to("held", argv, take, env={"A": "b"})
        assert (b"".join(taken), done.stderr, done.exit_code) == (b"b\n", b"odd\n", 7)
        assert b"read -r" not in await runs()

        argv = [sys.executable, "-c", KILLED_WHILE_IT_RUNS, daemon.host]
        with subprocess.Popen(argv) as process, anyio.fail_after(10):
            try:
                while not await sleeps():
                    await anyio.sleep(0.05)
            finally:
                process.kill()
            while await sleeps():
                await anyio.sleep(0.05)
        assert b"read -r" not in await runs(), "nothing of it is left"
    finally:
        await engine.containers.remove("held", force=True)


@pytest.mark.engine
async def test_missing_image_is_not_found_at_create(engine: Engine) -> None:
    with pytest.raises(NotFound, match="cannot create container 'no-image': the engine answered 404: No such image"):
        await engine.containers.create({"Image": "supervisor-test/none:1"}, "no-image")


@pytest.mark.engine
async def test_volume_is_made_once_and_keeps_its_labels(engine: Engine) -> None:
    await engine.volumes.create("kept", {"whose": "ours"})
    again = await engine.volumes.create("kept", {"whose": "another's"})
    assert again["Labels"] == {"whose": "ours"}
    assert [each["Name"] for each in await engine.volumes.find({"name": ["kept"]})] == ["kept"]
    await engine.volumes.remove("kept")
    with pytest.raises(NotFound):
        await engine.volumes.inspect("kept")


@pytest.mark.engine
async def test_secrets_and_configs_are_made_once_and_secrets_stay_secret(engine: Engine) -> None:
    secret = await engine.secrets.create("word", b"hush", {"whose": "ours"})
    config = await engine.configs.create("lines", b"a\nb\n")
    with pytest.raises(Conflict):
        await engine.secrets.create("word", b"other")
    assert "Data" not in (await engine.secrets.inspect(secret))["Spec"]
    assert (await engine.configs.inspect(config))["Spec"]["Data"] == "YQpiCg=="
    await engine.secrets.remove(secret)
    await engine.configs.remove(config)
    assert await engine.secrets.find({"name": ["word"]}) == []


@pytest.mark.engine
async def test_leaving_the_events_ends_thread_and_connection(engine: Engine, daemon: Daemon) -> None:
    before = established(daemon)
    async with engine.events({"type": ["volume"]}) as events:
        assert isinstance(await events.receive(), Opened)
        await engine.volumes.create("watched")
        assert (await next_event(events, "volume", "create")).id == "watched"
        assert threads_in("_read") == 1
    assert threads_in("_read") == 0
    await engine.volumes.remove("watched")
    engine.close()
    gc.collect()
    await settled(lambda: established(daemon) <= before)


@pytest.mark.engine
async def test_cancelling_a_reader_of_events_ends_its_thread_before_the_cancel_is_through(engine: Engine) -> None:
    async with anyio.create_task_group() as group:

        async def follow(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            async with engine.events() as events:
                async for _ in events:
                    task_status.started()
                    await anyio.sleep_forever()

        await group.start(follow)
        await settled(lambda: threads_in("_read") == 1)
        group.cancel_scope.cancel()
    assert threads_in("_read") == 0


@pytest.mark.engine
async def test_reader_that_does_not_read_can_still_leave(engine: Engine) -> None:
    chatty = {
        "Image": BUSYBOX,
        "Cmd": ["/bin/sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"],
    }
    made = await engine.containers.create(chatty, "chatty")
    await engine.containers.start(made)
    with anyio.fail_after(20):
        async with engine.containers.follow(made) as output:
            await anext(output)
            await anyio.sleep(0.3)  # long enough for every buffer on the way to fill
        assert threads_in("_read") == 0
        await engine.containers.remove(made, force=True)


def established(daemon: Daemon) -> int:
    """Connections that the engine holds on its socket."""
    lines = daemon.inside("ss", "--unix", "--no-header", "state", "connected").splitlines()
    return sum(str(daemon.socket) in line for line in lines)


@pytest.mark.engine
async def test_overlay_before_swarm_and_broken_stream_after_a_crash() -> None:
    with private_daemon() as own:
        async with connected(own.host) as engine:
            with pytest.raises(NotAManager, match="cannot create network 'early'"):
                await engine.networks.create({"Name": "early", "Driver": "overlay", "Attachable": True})
            async with engine.events() as events:
                assert isinstance(await events.receive(), Opened)
                own.kill()
                with anyio.fail_after(10):
                    lost = await events.receive()
                assert isinstance(lost, Lost)
                assert "cannot follow events" in lost.reason
                with pytest.raises(Unavailable, match="Connection refused"):
                    await engine.info()
                own.start()
                with anyio.fail_after(10):
                    assert isinstance(await events.receive(), Opened)
                await engine.volumes.create("after")
                assert (await next_event(events, "volume", "create")).id == "after"
            assert threads_in("_read") == 0


def sleeping(name: str, image_id: str, **more: Any) -> dict[str, Any]:
    """A service as small as can be; by image id, as by tag a task looks for a registry first."""
    container = {"Image": image_id, "Command": ["/bin/sleep", "600"], "StopGracePeriod": 0}
    return {"Name": name, "TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": 1}}, **more}


async def running_task(engine: Engine, service: str) -> str:
    with anyio.fail_after(30):
        while True:
            for task in await engine.tasks.of_service(service, desired=["running"]):
                if task["Status"]["State"] == "running":
                    return str(task["ID"])
            await anyio.sleep(0.05)


@pytest.mark.engine
async def test_service_updates_need_the_current_version_and_identical_ones_restart_nothing(engine: Engine) -> None:
    image = (await engine.images.inspect(BUSYBOX))["Id"]
    service = await engine.services.create(sleeping("steady", image))
    task = await running_task(engine, "steady")
    stored = await engine.services.inspect(service)
    await engine.services.update(service, stored["Version"]["Index"], stored["Spec"])
    with pytest.raises(OutOfSequence, match=r"cannot update service .*: the engine answered"):
        await engine.services.update(service, stored["Version"]["Index"], stored["Spec"])
    labelled = await engine.services.inspect(service)
    labelled["Spec"]["Labels"] = {"hash": "2"}
    await engine.services.update(service, labelled["Version"]["Index"], labelled["Spec"])
    of_service = {"type": ["container"], "label": ["com.docker.swarm.service.name=steady"]}
    with anyio.move_on_after(2):
        async with engine.events(of_service) as events:
            async for item in events:
                assert isinstance(item, Opened), f"a task was touched: {item}"
    assert await running_task(engine, "steady") == task
    assert len(await engine.tasks.of_service("steady")) == 1
    with pytest.raises(Conflict):
        await engine.services.create(sleeping("steady", image))
    await engine.services.remove(service)


@pytest.mark.engine
async def test_tasks_of_a_service_that_is_not_there_are_refused_and_never_all_there_are(engine: Engine) -> None:
    image = (await engine.images.inspect(BUSYBOX))["Id"]
    service = await engine.services.create(sleeping("other", image))
    await running_task(engine, "other")
    with pytest.raises(NotFound, match="cannot list tasks of service 'made-up'"):
        await engine.tasks.of_service("made-up")
    bare = await engine.call("GET", "/tasks", action="list tasks", params={"service": "made-up"})
    assert bare, "the engine heeds a bare `service=` now"
    await engine.services.remove(service)


@pytest.mark.engine
async def test_files_are_put_into_a_container_before_it_starts(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("written before")
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        tar.add(tmp_path / "note", "note")
    made = await engine.containers.create({"Image": BUSYBOX, "Cmd": ["/bin/cat", "/bin/note"]}, "given")
    await engine.containers.put_archive(made, "/bin", (tmp_path / "files.tar").read_bytes())
    await engine.containers.start(made)

    async def output() -> bytes:
        return b"".join(piece.data for piece in await engine.containers.logs(made))

    with anyio.fail_after(10):
        while await output() != b"written before":
            await anyio.sleep(0.05)
    await engine.containers.remove(made, force=True)


def test_client_is_the_only_importer_of_its_library() -> None:
    room = Path(__file__).parents[2] / "supervisor" / "engine"
    importers = [path.name for path in room.rglob("*.py") if "import docker" in path.read_text()]
    assert importers == ["client.py"]
