"""An app that floods its output when it is asked to: `python -S flood_app.py`; nothing of ours is imported.

`GET /flood/KIND/SECONDS` starts a process that writes as fast as it can for so long, as every later generation does
from its start; `flood-PID.json` says what each got rid of, and how long one write took at most.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from typing import Any

BLOCK = 64 * 1024
_LINE = b"2026-01-01 12:00:00 INFO a line of an app that says far more than anybody will ever want to read ...\n"
KINDS = {
    "lines": (_LINE * (BLOCK // len(_LINE) + 1))[: BLOCK // len(_LINE) * len(_LINE)],
    "yes": b"y\n" * (BLOCK // 2),
    "endless": b"x" * BLOCK,
}


def flood(kind: str, until: float) -> None:
    """Write until then (wall clock), or until it is told to end; its last words are what nobody may lose."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    block = KINDS[kind]
    began = before = time.monotonic()
    written, longest = 0, 0.0
    while time.time() < until and not told:
        written += os.write(1, block)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    os.write(1, b"\nthe last words of %d\n" % os.getpid())
    seconds = before - began
    keep(f"flood-{os.getpid()}.json", {"bytes": written, "seconds": seconds, "longest_seconds": longest})


def keep(name: str, values: dict[str, Any]) -> None:
    with open(f".{name}", "w") as file:
        json.dump(values, file)
    os.rename(f".{name}", name)


def begin() -> None:
    """In a process of its own, as the health check must be answered meanwhile."""
    with contextlib.suppress(FileNotFoundError), open("wanted.json") as file:
        wanted = json.load(file)
        if time.time() < wanted["until"] and os.fork() == 0:
            flood(**wanted)
            os._exit(0)


def serve(listener: socket.socket) -> None:
    """One request a connection, one after the other: all that a health check needs."""
    while True:
        connection, _ = listener.accept()
        with connection:
            words = connection.recv(4096).split(b"\r\n")[0].decode().split()
            _, way, *rest = words[1].split("/") if len(words) > 1 else ["", ""]
            if way == "flood":
                keep("wanted.json", {"kind": rest[0], "until": time.time() + float(rest[1])})
                begin()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    begin()
    serve(socket.create_server(("127.0.0.1", int(os.environ["PORT"]))))
