"""The client's connections: opened, used again, dropped once the server closed them. One thread, no blocking call."""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from tests.load.answer import Answer, parse
from tests.load.plan import Request

Done = Callable[[Request, str, int | None], None]
_LISTEN = select.EPOLLIN | select.EPOLLRDHUP
_KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
}
TIMEOUT = "timeout"
CLOSED = "closed before the answer"


class Connection:
    """One socket; `request` is what it waits for, None while it is idle."""

    __slots__ = ("connecting", "data", "request", "socket", "version")

    def __init__(self, made: socket.socket, request: Request) -> None:
        self.socket = made
        self.request: Request | None = request
        self.connecting = True
        self.data = b""
        self.version: int | None = None


class Pool:
    """At most `size` connections that are kept, used in turn; 0: a new one for each request, none kept.

    Like the pools of Go and Node it drops an idle connection once the server's FIN is here, and does not repeat a
    request whose connection ended under it: that one has failed. `done(request, failure, version)` is called once
    for each request; its failure is empty when it was answered well.
    """

    def __init__(self, address: tuple[str, int], size: int, done: Done) -> None:
        self._address = address
        self._size = size
        self._done = done
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._queue: deque[Request] = deque()
        self.opened = self.let_go = self.backwards = 0

    def wait(self, seconds: float) -> None:
        """Until something happens, or for so long. By select, as epoll counts in whole milliseconds."""
        select.select([self._epoll.fileno()], [], [], max(0.0, seconds))

    def work(self) -> None:
        """Handle what has happened."""
        for number, _ in self._epoll.poll(0):
            if connection := self._open.get(number):
                self._ready(connection)
        while len(self._open) < self._size and (request := self._next()):
            self._connect(request)

    def begin(self, request: Request) -> None:
        """Send it now, or, where all connections are busy, as soon as one is free."""
        if not self._size or len(self._open) < self._size:
            self._connect(request)
        elif self._idle:
            self._send(self._idle.popleft(), request)
        else:
            self._queue.append(request)

    def give_up(self, request: Request) -> None:
        """It took too long."""
        connection = next((one for one in self._open.values() if one.request is request), None)
        if connection is not None:
            self._broken(connection, TIMEOUT)
        else:
            self._end(request, TIMEOUT)  # it waits in the queue, which passes over what has ended

    def close(self) -> None:
        """Close all of them; what was on its way has no end."""
        for connection in self._open.values():
            connection.socket.close()
        self._epoll.close()

    def _connect(self, request: Request) -> None:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened += 1
        connection = Connection(made, request)
        self._open[made.fileno()] = connection
        self._epoll.register(made.fileno(), select.EPOLLOUT)
        code = made.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            self._broken(connection, _kind(code))

    def _ready(self, connection: Connection) -> None:
        if not connection.connecting:
            self._receive(connection)
            return
        if code := connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._broken(connection, _kind(code))
            return
        connection.connecting = False
        self._epoll.modify(connection.socket.fileno(), _LISTEN)
        if connection.request is not None:
            self._send(connection, connection.request)

    def _send(self, connection: Connection, request: Request) -> None:
        connection.request = request
        connection.data = b""
        try:
            if connection.socket.send(request.payload) != len(request.payload):
                raise RuntimeError("cannot send a request in one piece: the socket's buffer is too small for it")
        except OSError as error:
            self._broken(connection, _kind(error.errno))

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(connection, _kind(error.errno))
            return
        if connection.request is None:  # its end, or something nobody asked for, such as a 408
            self.let_go += 1
            self._drop(connection)
            return
        connection.data += data
        try:
            answer = parse(connection.data, ended=not data)
        except ValueError:
            self._broken(connection, "not HTTP")
            return
        if answer is not None:
            self._answered(connection, connection.request, answer)
        elif not data:
            self._broken(connection, CLOSED)

    def _answered(self, connection: Connection, request: Request, answer: Answer) -> None:
        connection.request = None
        if None not in (connection.version, answer.version):
            self.backwards += int(answer.version or 0) < int(connection.version or 0)
        connection.version = answer.version
        self._end(request, _failure(request, answer), answer.version)
        if answer.keep and self._size:
            self._free(connection)
        else:
            self._drop(connection)

    def _free(self, connection: Connection) -> None:
        request = self._next()
        if request is None:
            self._idle.append(connection)
        else:
            self._send(connection, request)

    def _broken(self, connection: Connection, failure: str) -> None:
        if connection.request is not None:
            self._end(connection.request, failure)
        connection.request = None
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        with suppress(ValueError):
            self._idle.remove(connection)
        del self._open[connection.socket.fileno()]
        connection.socket.close()

    def _next(self) -> Request | None:
        while self._queue:
            request = self._queue.popleft()
            if not request.ended:
                return request
        return None

    def _end(self, request: Request, failure: str, version: int | None = None) -> None:
        request.ended = True
        self._done(request, failure, version)


def _failure(request: Request, answer: Answer) -> str:
    if answer.status != 200:
        return f"status {answer.status}"
    return "wrong body" if request.method == "POST" and answer.body != request.body else ""


def _kind(code: int | None) -> str:
    return _KINDS.get(code or 0) or f"error {errno.errorcode.get(code or 0, code)}"
