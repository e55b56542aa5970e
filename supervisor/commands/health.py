"""`supervisor health`: what HEALTHCHECK calls, every few seconds, so it imports no more than it must."""

import os
import socket
import sys
import time

from supervisor.core.control_path import candidates

LIMIT_SECONDS = 2.0
_MAX_ANSWER_BYTES = 64 * 1024
_USAGE = """usage: supervisor health [--socket PATH]

Asks the running supervisor how it is, prints one line, and exits with 0 (running or degraded) or 1 (anything else).
"""


def main(argv: "list[str]") -> int:
    """Ask once, within 2 seconds; 0 when good, 1 when not (the numbers Docker knows), 64 for a usage error."""
    try:
        given = _socket_argument(argv)
    except ValueError as error:
        sys.stderr.write(f"supervisor health: {error}\n{_USAGE}")
        return 64
    if given == "-h":
        sys.stdout.write(_USAGE)
        return 0
    paths = candidates(os.environ, given)
    why = ""
    for path in paths:
        try:
            good, text = _parse(_ask(path))
        except OSError as error:
            why = f"cannot ask the supervisor on {path!r}: {error.strerror or error}"
            if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                break
        else:
            print(text)
            return 0 if good else 1
    if len(paths) > 1 and why:
        why = f"no supervisor answers; looked for its socket at {', '.join(paths)}; name it with SUPERVISOR_SOCKET"
    print(why)
    return 1


def _socket_argument(argv: "list[str]") -> "str | None":
    """The value of --socket; `-h` when help is wanted."""
    if not argv:
        return None
    if argv[0] in ("-h", "--help"):
        return "-h"
    if argv[0] == "--socket" and len(argv) == 2:
        return argv[1]
    if argv[0].startswith("--socket=") and len(argv) == 1:
        return argv[0].partition("=")[2]
    raise ValueError(f"cannot understand {' '.join(argv)!r}")


def _ask(path: str) -> bytes:
    """The whole answer, headers included; raises OSError (TimeoutError past the limit) when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        until = time.monotonic() + LIMIT_SECONDS
        connection.settimeout(LIMIT_SECONDS)
        connection.connect(path)
        connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: supervisor\r\nConnection: close\r\n\r\n")
        answer = b""
        while len(answer) < _MAX_ANSWER_BYTES:
            connection.settimeout(max(0.001, until - time.monotonic()))
            part = connection.recv(65536)
            if not part:
                break
            answer += part
        return answer


def _parse(answer: bytes) -> "tuple[bool, str]":
    """Whether it is good, and a line that says so. The body is JSON; to print it no parser is needed."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise OSError("it hung up without an answer")
    return words[1] == b"200", body.decode(errors="replace").strip()
