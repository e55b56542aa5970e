"""Things that listen where an engine should: one that answers as one, and several that do not.

As a program (`python fake_engine.py SOCKET`, or `tcp`) it answers as an engine until it is killed; it imports nothing
of ours.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Answer = Callable[[str, str], "tuple[int, object] | None"]
INFO = {"Name": "fake", "OSType": "linux", "ServerVersion": "20.10.24", "Swarm": {"LocalNodeState": "inactive"}}
VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Components": [{"Name": "Engine"}]}


def as_engine(method: str, path: str) -> tuple[int, object]:
    """What an engine without containers says."""
    known: dict[str, object] = {"/_ping": "OK", "/info": INFO, "/version": VERSION}
    if path in known:
        return 200, known[path]
    return (404, {"message": "no such container"}) if path.startswith("/containers/") else (200, [])


def as_filter(method: str, path: str) -> tuple[int, object]:
    """A proxy that lets through what tells about the engine, and nothing else."""
    if path in ("/_ping", "/info", "/version"):
        return as_engine(method, path)
    return 403, {"message": "forbidden"}


class _Handler(http.server.BaseHTTPRequestHandler):
    answer: Answer

    def do_GET(self) -> None:
        given = type(self).answer(self.command, self.path)
        if given is None:
            threading.Event().wait(30)  # silent; the client gives up long before
            return
        status, value = given
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        if self.path == "/_ping" and status == 200:
            self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


def _handler(answer: Answer) -> type[_Handler]:
    return type("Handler", (_Handler,), {"answer": staticmethod(answer)})


@contextlib.contextmanager
def answering(path: str, answer: Answer = as_engine) -> Iterator[None]:
    """Serve on a unix socket for the length of the block, from this very process."""
    with _UnixServer(path, _handler(answer)) as server, _served(server):
        yield
    Path(path).unlink()


@contextlib.contextmanager
def answering_tcp(answer: Answer = as_engine) -> Iterator[int]:
    """Serve on a loopback port; gives it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer)) as server, _served(server):
        server.block_on_close = False
        yield server.server_address[1]


@contextlib.contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(10)


@contextlib.contextmanager
def saying(path: str, data: bytes, *, hang_up: bool) -> Iterator[None]:
    """Accept one connection after the other, read a request, write `data`, and hang up or stay."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as kept:
        listener.bind(path)
        listener.listen(8)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.enter_context(connection)
                    connection.recv(4096)
                    connection.sendall(data)
                    if hang_up:
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def main(at: str) -> None:
    """Answer on a socket's path, or with `tcp` on a loopback port, and say where."""
    if at == "tcp":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(as_engine)) as across:
            print(f"listening {across.server_address[1]}", flush=True)
            across.serve_forever()
    with _UnixServer(at, _handler(as_engine)) as server:
        print("listening", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
