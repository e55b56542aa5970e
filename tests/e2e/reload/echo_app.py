"""An app that behaves as `behaviour.json` says when it starts: `python -S echo_app.py`; nothing of ours is imported.

It echoes what is posted, names its version and its process in headers, and is rude where it is told to be.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.server
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

BLOCK = b"0123456789abcdef" * 4096
_told: dict[str, Any] = json.loads(Path("behaviour.json").read_text())


def told(name: str, default: Any = None) -> Any:
    return _told.get(name, default)


def version() -> str:
    return str(told("version", 1))


def is_past(name: str) -> bool:
    """Whether the seconds told under `name` are over, since it listens."""
    return told(name) is not None and time.monotonic() - Handler.listening > float(told(name))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    listening = 0.0

    def do_GET(self) -> None:
        time.sleep(told("delay_seconds", 0))
        if self.path == "/api/health":
            if os.path.exists("hang") or is_past("hang_after"):
                time.sleep(3600)
            self.answer(told("health_status", 200))
            return
        if is_past("bad_after"):
            self.answer(500, b"bad")
            return
        way, _, word = self.path[1:].partition("/")
        getattr(self, f"do_{way}", self.do_echo)(word)

    do_HEAD = do_POST = do_GET

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("App-Version", version())
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def do_echo(self, word: str) -> None:
        self.answer(200, self.body() or version().encode())

    def do_headers(self, word: str) -> None:
        self.answer(200, json.dumps(dict(self.headers)).encode())

    def do_environ(self, word: str) -> None:
        self.answer(200, json.dumps(dict(os.environ)).encode())

    def do_status(self, word: str) -> None:
        self.answer(int(word), b"as asked")

    def do_slow(self, word: str) -> None:
        body = self.body()
        time.sleep(float(word))
        self.answer(200, body or version().encode())

    def do_digest(self, word: str) -> None:
        self.answer(200, hashlib.sha256(self.body()).hexdigest().encode())

    def do_blocks(self, word: str) -> None:
        """So many blocks, 50 ms apart."""
        self.send_response(200)
        self.send_header("App-Version", version())
        self.send_header("Content-Length", str(int(word) * len(BLOCK)))
        self.end_headers()
        for _ in range(int(word)):
            self.wfile.write(BLOCK)
            time.sleep(0.05)

    def do_events(self, word: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        number = 0
        while True:
            number += 1
            self.wfile.write(f"data: {number} {version()}\n\n".encode())
            time.sleep(0.05)

    def do_socket(self, word: str) -> None:
        """A WebSocket that echoes unfragmented, short frames."""
        accept = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept.digest()).decode())
        self.end_headers()
        self.close_connection = True
        while head := self.rfile.read(2):
            size = head[1] & 127
            mask = self.rfile.read(4)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size)))
            answer = text + b" " + version().encode()
            self.wfile.write(bytes([0x81, len(answer)]) + answer)

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        trailers = b"".join(iter(self.rfile.readline, b"\r\n"))
        return body + trailers

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024

    def handle_error(self, *args: object) -> None:
        pass


def alone() -> Any:
    """Hold the folder for this process; ends where another one does."""
    lock = Path("alone.lock").open("w")  # noqa: SIM115 - held to the end of the process
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another one runs", flush=True)
        sys.exit(9)
    return lock


def start_children(count: int) -> None:
    """The last one leaves the process group."""
    for number in range(count):
        if os.fork() == 0:
            if number == count - 1:
                os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)


def say_ready() -> None:
    if told("ready") == "fd":
        os.write(int(os.environ["SUPERVISOR_READY_FD"]), b"\n")
    elif told("ready") == "notify":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def make_server(address: str, port: int) -> Server:
    try:
        return Server((address, port), Handler)
    except OSError as error:
        if told("names_port", True):
            print(f"listen EADDRINUSE: address already in use {address}:{port}", flush=True)
        sys.exit(str(error))


def main() -> None:
    print(f"version {version()} begins", flush=True)
    held = alone() if told("alone") else None
    ballast = os.urandom(int(told("ballast_mib", 0)) * 1024 * 1024)
    time.sleep(told("boot_seconds", 0.2))
    if told("exit") is not None:
        print("cannot work: told to exit", flush=True)
        sys.exit(told("exit"))
    if told("term") == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_children(told("children", 0))
    if told("listen") == "never":
        time.sleep(3600)
    port = int(os.environ["PORT"]) + told("port_off", 0)
    if told("listen") == "public":
        port = int(os.environ.get("SUPERVISOR_PUBLIC_PORT", port))
    server = make_server(told("address", "127.0.0.1"), port)
    Handler.listening = time.monotonic()
    say_ready()
    print(f"version {version()} listens on {port}", flush=True)
    if told("dies_after") is not None:
        signal.setitimer(signal.ITIMER_REAL, told("dies_after"))
    server.serve_forever()
    del held, ballast


main()
