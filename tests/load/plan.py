"""What is to be sent, and at what rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

BODY_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An open loop: `rate` requests a second by the clock, whether those before are answered or not.

    `connections` kept open and shared in turn; 0: a new one for each request. Every `post_every`th request is a POST
    with a body of its own that must come back; 0: none. `quiet_seconds` at the start are reported apart.
    `limit_seconds` from when a request is due to its whole answer.
    """

    url: str
    rate: float
    seconds: float = 3600.0
    connections: int = 0
    post_every: int = 0
    quiet_seconds: float = 0.0
    limit_seconds: float = 10.0

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect."""
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"cannot load '{self.url}': not an http URL; give one like http://127.0.0.1:3000/")
        return parts.hostname, parts.port or 80

    @property
    def path(self) -> str:
        """Of every request."""
        return urlsplit(self.url).path or "/"

    def arguments(self) -> Sequence[str]:
        """For the command line of `tests.load`."""
        return [
            self.url,
            f"--rate={self.rate}",
            f"--seconds={self.seconds}",
            f"--connections={self.connections}",
            f"--post-every={self.post_every}",
            f"--quiet-seconds={self.quiet_seconds}",
            f"--limit-seconds={self.limit_seconds}",
        ]


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way. `ended` once it is answered or has failed."""

    due: float
    method: str
    payload: bytes
    body: bytes = b""
    ended: bool = False


class Requests:
    """Makes the requests of a plan, one after the other."""

    def __init__(self, plan: Plan) -> None:
        host, port = plan.address
        ending = "" if plan.connections else "Connection: close\r\n"
        common = f" {plan.path} HTTP/1.1\r\nHost: {host}:{port}\r\n{ending}"
        self._every = plan.post_every
        self._get = f"GET{common}\r\n".encode()
        self._post = f"POST{common}Content-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
        self._number = 0

    def make(self, due: float) -> Request:
        """The next one."""
        self._number += 1
        if self._every and self._number % self._every == 0:
            body = b"%0*d" % (BODY_BYTES, self._number)
            return Request(due, "POST", self._post + body, body)
        return Request(due, "GET", self._get)
