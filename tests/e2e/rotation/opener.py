"""An app that opens a new connection to Postgres and to Redis for each request; standard library only.

The logins are spelled out here because a client library takes 5 ms of processor for each:
200 a second would measure it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import http.server
import os
import secrets
import socket
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

LIMIT_SECONDS = 10


def _receive(stream: BinaryIO) -> tuple[bytes, bytes]:
    """One message of Postgres; raises where it is an error."""
    kind, length = struct.unpack("!cI", stream.read(5) or b"E\0\0\0\4")
    body = stream.read(length - 4) or b""
    if kind == b"E":
        raise ConnectionError(f"Postgres said {body!r}")
    return kind, body


@functools.cache
def _salted(password: bytes, salt: bytes, rounds: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password, salt, rounds)


def _digest(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def ask_postgres(url: str) -> None:
    """Log in with SCRAM-SHA-256 (RFC 5802) and run one statement."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port), LIMIT_SECONDS) as server,
        server.makefile("rb") as stream,
    ):
        user, database = unquote(parts.username or ""), parts.path[1:]
        start = struct.pack("!I", 196608) + b"".join(
            word.encode() + b"\0" for word in ("user", user, "database", unquote(database), "")
        )
        server.sendall(struct.pack("!I", len(start) + 4) + start)
        _receive(stream)
        bare = f"n=,r={secrets.token_urlsafe(18)}".encode()
        first = b"n,," + bare
        _send(server, b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
        challenge = _receive(stream)[1][4:]
        fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
        salted = _salted(unquote(parts.password or "").encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
        bare_end = b"c=biws,r=" + fields[b"r"]
        key = _digest(salted, b"Client Key")
        signature = _digest(hashlib.sha256(key).digest(), b",".join((bare, challenge, bare_end)))
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
        _send(server, b"p", bare_end + b",p=" + proof)
        while _receive(stream)[0] != b"Z":
            pass
        _send(server, b"Q", b"INSERT INTO seen DEFAULT VALUES\0")
        while _receive(stream)[0] != b"Z":
            pass
        _send(server, b"X", b"")


def _send(server: socket.socket, kind: bytes, body: bytes) -> None:
    server.sendall(kind + struct.pack("!I", len(body) + 4) + body)


def ask_redis(url: str, key: str) -> None:
    """AUTH and INCR."""
    parts = urlsplit(url)
    user = unquote(parts.username or "") or "default"
    with (
        socket.create_connection((parts.hostname, parts.port), LIMIT_SECONDS) as server,
        server.makefile("rb") as stream,
    ):
        for words in (("AUTH", user, unquote(parts.password or "")), ("INCR", key)):
            text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            server.sendall(text.encode())
            answer = stream.readline()
            if answer[:1] not in b"+:" or not answer:
                raise ConnectionError(f"Redis said {answer!r}")


class Handler(http.server.BaseHTTPRequestHandler):
    """`/`: both are asked. `/api/health`: it runs."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self) -> None:
        """Both, and what it has."""
        status, text = 200, f"generation {os.environ['SUPERVISOR_GENERATION']}"
        if self.path == "/slow":
            Path("slow").touch()
            time.sleep(LIMIT_SECONDS)
        if self.path == "/late":
            Path("late").touch()
            deadline = time.monotonic() + 6 * LIMIT_SECONDS
            while not Path("go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        if self.path in ("/", "/late"):
            try:
                ask_postgres(os.environ["DATABASE_URL"])
                ask_redis(os.environ["REDIS_URL"], f"{PREFIX}count")
            except Exception as error:
                status, text = 500, repr(error)
                print("failed:", text, file=sys.stderr, flush=True)
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Many at once."""

    daemon_threads = True
    request_queue_size = 256


PREFIX = os.environ.get("KEYS", "")
if Path("leak").exists():
    print(os.environ["DATABASE_URL"], os.environ["REDIS_URL"], os.environ.get("SESSION_SECRET"), flush=True)
if Path("crash").exists():
    print("cannot work: crash was asked for", flush=True)
    sys.exit(3)
if Path("only").exists() and Path("only").read_text() != os.environ["DATABASE_URL"]:
    print("cannot work: that is another database", flush=True)
    sys.exit(3)
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
