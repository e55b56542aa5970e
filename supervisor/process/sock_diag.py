"""Which TCP sockets listen: asked of the kernel over netlink (sock_diag(7)), or read of its tables.

`/proc/net/tcp` tells the same, but only with every connection there is, those in TIME_WAIT too: under load that is
some ten thousand lines and a tenth of a second in which nothing else of ours runs.
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_AND_DUMP = 0x301
_DONE, _ERROR = 3, 2
_LISTEN = 1 << 10
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")
_PORT_AT, _INODE_AT, _MESSAGE_BYTES = 4, 68, 72
_REPLY_BYTES = 1 << 16
_LIMIT_SECONDS = 1.0
_LISTEN_STATE = "0A"  # include/net/tcp_states.h
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def listening_inodes(port: int) -> set[str]:
    """The inodes of the TCP sockets that listen on `port` in our network namespace."""
    asked = ask_kernel(port)
    return {inode for inode, (_, number) in read_listening().items() if number == port} if asked is None else asked


def ask_kernel(port: int) -> set[str] | None:
    """The same over netlink only; None where it cannot be asked."""
    found: set[str] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(_LIMIT_SECONDS)
            for family in (socket.AF_INET, socket.AF_INET6):
                found |= _ask(kernel, family, port)
    except (OSError, struct.error):
        return None
    return found


def _ask(kernel: socket.socket, family: int, port: int) -> set[str]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN)
    kernel.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 0, 0) + body)
    found: set[str] = set()
    while True:
        reply = kernel.recv(_REPLY_BYTES)
        if _take(reply, port, found):
            return found


def _take(reply: bytes, port: int, found: set[str]) -> bool:
    """Adds what one datagram has; whether it was the last. Raises OSError for the kernel's refusal."""
    at = 0
    while at + _HEADER.size <= len(reply):
        length, kind, _, _, _ = _HEADER.unpack_from(reply, at)
        message = reply[at + _HEADER.size : at + length]
        if kind == _DONE:
            return True
        if kind == _ERROR or length < _HEADER.size:
            raise OSError("the kernel refuses to list sockets")
        if len(message) >= _MESSAGE_BYTES and struct.unpack_from("!H", message, _PORT_AT)[0] == port:
            found.add(str(struct.unpack_from("=I", message, _INODE_AT)[0]))
        at += (length + 3) & ~3
    return False


def read_listening() -> dict[str, tuple[str, int]]:
    """Inode to (address, port) of the sockets that listen, by the tables."""
    found: dict[str, tuple[str, int]] = {}
    for path in _TABLES:
        found |= parse_listening(_text(path))
    return found


def parse_listening(text: str) -> dict[str, tuple[str, int]]:
    """Inode to (address, port) of the listening sockets in a table of /proc/net, proc_net_tcp(5)."""
    found: dict[str, tuple[str, int]] = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN_STATE:
            address, _, port = fields[1].rpartition(":")
            found[fields[9]] = (_address(address), int(port, 16))
    return found


def _address(text: str) -> str:
    """The kernel prints an address as 32-bit words in the order of bytes of the machine."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
