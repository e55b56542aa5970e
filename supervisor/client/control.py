"""The client of the control API: HTTP over a unix socket with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from supervisor.core.control_path import MAX_SOCKET_BYTES, candidates
from supervisor.core.errors import ExitCode, PrivilegeError, SupervisorError, UnreachableError

ANSWER_SECONDS = 5.0
_ABSENT = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)


@dataclass(frozen=True)
class Answer:
    """A status and the JSON that came with it."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """The error text of a refusal."""
        return str(self.body.get("error") or self.body.get("reason") or f"HTTP status {self.status}")


class RefusedError(SupervisorError):
    """The supervisor answered, and said no; the text is its own."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.exit_code = ExitCode.USAGE if answer.status in (400, 404, 405) else ExitCode.REJECTED


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float | None) -> None:
        super().__init__("supervisor", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(ANSWER_SECONDS)
            self.sock.connect(self._path)
            self.sock.settimeout(self.timeout)
        except BaseException:
            self.sock.close()
            raise


class ControlClient:
    """Talks to the supervisor on one socket; one connection a call. All calls block, `get` up to 5 s."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, resource: str) -> Answer:
        """Read. Raises UnreachableError or PrivilegeError."""
        return self._call("GET", resource, ANSWER_SECONDS)

    def post(self, resource: str, *, timeout_seconds: float | None = None) -> Answer:
        """Ask for something and wait for its outcome, by default as long as it takes. Raises as `get` does."""
        return self._call("POST", resource, timeout_seconds)

    def send(self, method: str, resource: str, body: bytes | Iterable[bytes]) -> Answer:
        """Hand something over, and wait for as long as it takes; blocks go one by one. Raises as `get` does.

        Where the supervisor answers before all is sent, as it does to refuse it, that answer counts.
        """
        return self._call(method, resource, None, body)

    def lines(self, resource: str) -> Iterator[dict[str, Any]]:
        """JSON lines as they come, to the end of the stream. Raises as `get` does, and RefusedError."""
        connection = _UnixConnection(self.path, None)
        try:
            connection.request("GET", resource)
            response = connection.getresponse()
            if response.status != 200:
                raise RefusedError(_answer(response))
            for line in response:
                yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise self._explained("GET", resource, error) from error
        finally:
            connection.close()

    def _call(
        self, method: str, resource: str, timeout_seconds: float | None, body: bytes | Iterable[bytes] | None = None
    ) -> Answer:
        connection = _UnixConnection(self.path, timeout_seconds)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, resource, body)
            return _answer(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise self._explained(method, resource, error) from error
        finally:
            connection.close()

    def _explained(self, method: str, resource: str, error: Exception) -> SupervisorError:
        if isinstance(error, PermissionError):
            return PrivilegeError(
                f"cannot use the control socket {self.path!r}: permission denied; "
                f"run this as root or as the user the supervisor runs as"
            )
        if isinstance(error, TimeoutError):
            return UnreachableError(
                f"cannot {method} {resource}: no answer in time on {self.path!r}; is this machine overloaded?"
            )
        if isinstance(error, http.client.HTTPException | ConnectionError):
            return UnreachableError(
                f"cannot {method} {resource}: the supervisor hung up before it answered; is it stopping? see its log"
            )
        return UnreachableError(f"cannot use the control socket {self.path!r}: {error}; check its path")


def _answer(response: http.client.HTTPResponse) -> Answer:
    text = response.read().decode(errors="replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = {"error": text.strip()}
    return Answer(response.status, body if isinstance(body, dict) else {"error": text})


def find(environ: Mapping[str, str], given: str | None = None) -> ControlClient:
    """A client for the first socket somebody listens on. Raises UnreachableError saying where it looked."""
    paths = candidates(environ, given)
    for path in paths:
        if len(path.encode()) > MAX_SOCKET_BYTES:
            raise UnreachableError(
                f"cannot use the control socket {path!r}: its path has more than {MAX_SOCKET_BYTES} bytes; "
                f"set SUPERVISOR_SOCKET to the one the supervisor uses"
            )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(ANSWER_SECONDS)
                probe.connect(path)
        except _ABSENT:
            continue
        except PermissionError as error:
            raise ControlClient(path)._explained("GET", "", error) from error
        except OSError as error:
            raise UnreachableError(f"cannot use the control socket {path!r}: {error}; check its path") from error
        return ControlClient(path)
    raise UnreachableError(
        f"cannot find a running supervisor: nobody answers on {' or '.join(paths)}; "
        f"start one with `supervisor run`, or name its socket with --socket or SUPERVISOR_SOCKET"
    )
