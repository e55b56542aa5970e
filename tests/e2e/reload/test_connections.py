"""What one client sees over a reload: its connection stays, its request is answered by one generation, whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.reload.clients import SlowRequest, WebSocket
from tests.e2e.reload.rig import App

LIMIT = 30.0


@pytest.fixture
def connection(app: App) -> Iterator[http.client.HTTPConnection]:
    """Kept open; the supervisor must be up when it is first used."""
    with closing(connect(app)) as made:
        yield made


def connect(app: App) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", app.supervisor.port, timeout=LIMIT)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_one_connection_posts_each_second_over_a_reload_each_second(
    app: App, connection: http.client.HTTPConnection, soak: bool
) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="0")
    ask(connection, "POST", "/echo", b"first")
    own = connection.sock.getsockname()
    for _ in range(600 if soak else 20):
        app.release()
        due = time.monotonic() + 1
        with app.reloading() as outcome:
            while time.monotonic() < due:
                body = secrets.token_hex(16).encode()
                assert ask(connection, "POST", "/slow/0.2", body) == (200, body)
        assert outcome["result"] == "ok", outcome
    assert connection.sock.getsockname() == own, "the same connection to the end"
    assert ask(connection, "GET", "/echo") == (200, str(app.version).encode())


def test_upload_and_download_across_a_reload_are_whole(app: App, soak: bool) -> None:
    app.boot()
    count = 200 if soak else 40  # 50 ms each
    blocks = [secrets.token_bytes(65536) for _ in range(count)]
    begun = threading.Event()
    got: dict[str, bytes] = {}

    def upload() -> None:
        def slowly() -> Iterator[bytes]:
            for number, block in enumerate(blocks):
                if number == 5:
                    begun.set()
                time.sleep(0.05)  # a client's pace, nothing is waited for
                yield block

        with closing(connect(app)) as connection:
            connection.request("POST", "/digest", slowly(), {"Content-Length": str(count * 65536)})
            got["digest"] = connection.getresponse().read()

    def download() -> None:
        with closing(connect(app)) as connection:
            got["blocks"] = ask(connection, "GET", f"/blocks/{count}")[1]

    threads = [in_thread(upload), in_thread(download)]
    assert begun.wait(LIMIT)
    app.release()
    assert app.reload()["result"] == "ok"
    for thread in threads:
        thread.join(LIMIT)
    assert got["digest"].decode() == hashlib.sha256(b"".join(blocks)).hexdigest()
    assert got["blocks"] == b"0123456789abcdef" * 4096 * count
    app.wait_state(1, "stopped")


def test_event_stream_stays_with_its_generation_until_its_bound(app: App) -> None:
    app.boot(SUPERVISOR_STREAM_SECONDS="2")
    with socket.create_connection(("127.0.0.1", app.supervisor.port), timeout=LIMIT) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        got = client.recv(65536)
        app.release()
        assert app.reload()["result"] == "ok"
        switched = time.monotonic()
        while part := client.recv(65536):
            got += part
        lasted = time.monotonic() - switched
    numbers = [int(found) for found in re.findall(rb"data: (\d+) 1\n", got)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 30
    assert 1.5 < lasted < 6
    wait_until("the cut is told", lambda: "0 requests and 1 streams were cut" in app.supervisor.log(), limit=5)


def test_websocket_echoes_through_two_reloads(app: App) -> None:
    app.boot()
    sockets = []
    for version in (1, 2, 3):
        if version > 1:
            app.release()
            assert app.reload()["result"] == "ok"
        sockets.append(WebSocket(app.url))
        for number, each in enumerate(sockets, 1):
            assert each.echo(b"hello") == b"hello %d" % number
    app.release()
    assert app.reload()["result"] == "ok", "the oldest drain is ended where there is no place for one more"
    assert sockets[0].echo(b"hello") == b""
    assert sockets[2].echo(b"hello") == b"hello 3"
    for each in sockets:
        each.close()


def exchange(port: int, data: bytes) -> bytes:
    """All that is answered to the end of the connection, which the last request must ask for."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_requests_of_every_form_pass(app: App, connection: http.client.HTTPConnection) -> None:
    app.boot()
    port = app.supervisor.port
    get, last = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    pipelined = exchange(port, get + get + last)
    assert pipelined.count(b"HTTP/1.1 200") == 3
    assert ask(connection, "HEAD", "/echo") == (200, b"")
    assert ask(connection, "GET", "/status/204") == (204, b"")
    assert ask(connection, "GET", "/status/304") == (304, b"")
    assert ask(connection, "GET", "/status/500")[0] == 500, "the app's own"
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert b"abcde" in exchange(port, chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\nChecksum: 7\r\n\r\n")
    large = exchange(port, b"GET /echo HTTP/1.1\r\nHost: x\r\nLarge: " + b"x" * 80_000 + b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4\d\d", large)
    both = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert exchange(port, both + last).count(b"HTTP/1.1 200") <= 1
    bad = exchange(port, chunked + b"zz\r\nabc\r\n0\r\n\r\n")
    assert b"HTTP/1.1 200" not in bad
    assert ask(connection, "GET", "/echo") == (200, b"1"), "nothing is out of step after them"


def test_expect_100_is_answered_before_the_body_is_sent(app: App) -> None:
    app.boot()
    with socket.create_connection(("127.0.0.1", app.supervisor.port), timeout=LIMIT) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 100")
        client.sendall(b"body")
        assert client.recv(65536).endswith(b"body")


def test_the_app_is_told_its_private_port_and_its_surroundings(app: App) -> None:
    app.boot()
    with closing(connect(app)) as connection:
        environ = json.loads(ask(connection, "GET", "/environ")[1])
    assert environ["SUPERVISOR_PUBLIC_PORT"] == str(app.supervisor.port)
    low, high = app.supervisor.app_ports.split("-")
    assert int(low) <= int(environ["PORT"]) <= int(high)
    assert environ["HOST"] == "127.0.0.1"
    assert not {name for name in environ if name.startswith("SUPERVISOR_APP")}


NODE = """
const http = require('http');
const server = http.createServer((request, response) => {
  response.setHeader('App-Version', process.env.SUPERVISOR_GENERATION);
  let body = '';
  request.on('data', part => body += part);
  request.on('end', () => response.end(body));
});
// Ends once all its connections have, which they do not by themselves.
process.on('SIGTERM', () => server.close(() => process.exit(0)));
server.listen(process.env.PORT, process.env.HOST);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_whose_server_close_waits_for_idle_connections_stops(app: App) -> None:
    (app.folder / "app.js").write_text(NODE)
    app.supervisor.arguments[-3:] = ["node", "app.js"]
    app.boot()
    connections = [connect(app) for _ in range(8)]
    for connection in connections:
        assert ask(connection, "POST", "/", b"x") == (200, b"x")
    assert app.reload()["result"] == "ok"
    end = app.wait_state(1, "stopped")
    assert end["exit_code"] == 0, "no connection of a client is its own, so that it ends by itself"
    for connection in connections:
        assert ask(connection, "POST", "/", b"y") == (200, b"y")
        connection.close()


def test_plain_tcp_switches_per_connection(app: App) -> None:
    program = (
        "import os, socketserver, sys\n"
        "class Echo(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        for line in self.rfile:\n"
        "            self.wfile.write(os.environ['SUPERVISOR_GENERATION'].encode() + b' ' + line)\n"
        "socketserver.ThreadingTCPServer(('127.0.0.1', int(os.environ['PORT'])), Echo).serve_forever()\n"
    )
    (app.folder / "echo_app.py").write_text(program)
    app.boot(SUPERVISOR_APP_PROTOCOL="tcp", SUPERVISOR_APP_HEALTH="tcp", SUPERVISOR_STREAM_SECONDS="5")
    with line_client(app.supervisor.port) as old:
        assert say(old, b"hello\n") == b"1 hello\n"
        assert app.reload()["result"] == "ok"
        with line_client(app.supervisor.port) as new:
            assert say(new, b"hello\n") == b"2 hello\n"
        assert say(old, b"still\n") == b"1 still\n"
    app.wait_state(1, "stopped")


def line_client(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=LIMIT)


def say(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line)
    return client.recv(1000)


H2C = """
const http2 = require('http2');
const server = http2.createServer((request, response) => {
  response.setHeader('app-version', process.env.SUPERVISOR_GENERATION);
  response.end(request.httpVersion + ' ' + process.env.SUPERVISOR_GENERATION + '\\n');
});
server.listen(process.env.PORT, process.env.HOST);
"""


@pytest.mark.skipif(shutil.which("node") is None or shutil.which("curl") is None, reason="needs node and curl")
def test_http2_without_tls_passes_over_a_reload(app: App) -> None:
    (app.folder / "app.js").write_text(H2C)
    app.supervisor.arguments[-3:] = ["node", "app.js"]
    app.boot(SUPERVISOR_APP_PROTOCOL="h2c", SUPERVISOR_APP_HEALTH="tcp")
    assert curl_http2(app.supervisor.port) == "2.0 1"
    assert app.reload()["result"] == "ok"
    assert curl_http2(app.supervisor.port) == "2.0 2"


def curl_http2(port: int) -> str:
    url = f"http://127.0.0.1:{port}/"
    command = ["curl", "--silent", "--fail", "--max-time", "10", "--http2-prior-knowledge", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def test_old_generation_ends_as_soon_as_its_last_request_is_answered(app: App) -> None:
    app.boot()
    with SlowRequest(app.url, 3) as slow:
        app.release()
        assert app.reload()["result"] == "ok"
        assert not app.supervisor.events("app.generation", generation=1, state="stopped")
        assert slow.answer() == (200, b"patience")
        app.wait_state(1, "stopped")
