"""Talking to an engine: docker-py's connection behind an async face. The only module that knows docker-py.

docker-py gives the transports (unix, tcp, TLS, ssh); requests are made as the Engine API's reference words them.
Nothing here looks at the environment: neither at `DOCKER_*` nor at proxies.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import docker
import docker.errors
import docker.tls
import docker.transport
import docker.transport.unixconn
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from supervisor.core.errors import ConfigurationError
from supervisor.engine import resources
from supervisor.engine.background import running_beside
from supervisor.engine.errors import Unavailable, refusal
from supervisor.engine.events import EngineEvent, Lost, Opened, StreamItem, retry_delay
from supervisor.engine.handover import Handover
from supervisor.engine.streams import Decoded, JsonLines

OLDEST_API = (1, 41)
NEWEST_API = (1, 48)
"""Newest API version whose answers are known here; a newer engine is spoken to in this one."""

INFO_SECONDS = 30.0
"""While a pull asks name servers that do not answer, `/info` waits for a lock with it (20.10: 10 s); others answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where an engine is: `unix:///path`, `tcp://host:port` (TLS where `ca_file` is given) or `ssh://user@host`."""

    url: str
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted and the engine's certificate checked."""
        return self.ca_file is not None


@dataclass(frozen=True)
class Ping:
    """What an engine says of itself before any version is agreed on."""

    api_version: tuple[int, int]
    swarm: str | None
    """The node's Swarm state where the engine tells (not in 20.10)."""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Engine:
    """One engine. Every call runs in a worker thread, bounded; cancelling a call abandons its thread at once.

    An abandoned thread ends by itself: no read of its connection lasts longer than the call's limit. Raises the errors
    of `supervisor.engine.errors`, and ConfigurationError for an endpoint that cannot be used at all.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_seconds: float = 5.0, threads: int = 16) -> None:
        self.endpoint = endpoint
        self.timeout_seconds = timeout_seconds
        self._limiter = anyio.CapacityLimiter(threads)
        self._session: Any = None
        self._opening = threading.Lock()
        self._api_version: tuple[int, int] | None = None
        self.containers = resources.Containers(self)
        self.images = resources.Images(self)
        self.networks = resources.Networks(self)
        self.volumes = resources.Volumes(self)
        self.services = resources.Services(self)
        self.tasks = resources.Tasks(self)
        self.nodes = resources.Nodes(self)
        self.secrets = resources.Payloads(self, "secret")
        self.configs = resources.Payloads(self, "config")
        self.swarm = resources.Swarm(self)

    def close(self) -> None:
        """Close idle connections; calls under way end by themselves."""
        if self._session is not None:
            self._session.close()

    async def ping(self, *, timeout_seconds: float = 2.0) -> Ping:
        """Whether it serves; one that accepts and stays silent is still starting, which ends in Unavailable."""
        answer = await self._send(
            "GET", "/_ping", action="ping the engine", timeout_seconds=timeout_seconds, options={}
        )
        api_version = _parse_version(answer.headers.get("Api-Version", "1.41"))
        return Ping(api_version, answer.headers.get("Swarm"))

    async def api_version(self) -> tuple[int, int]:
        """The API version spoken: the engine's newest, and no newer than we know. Asked for once."""
        if self._api_version is None:
            self._api_version = min(NEWEST_API, (await self.ping()).api_version)
        return self._api_version

    async def info(self) -> dict[str, Any]:
        """`/info`: what the engine is and how it stands, its Swarm state included.

        May take INFO_SECONDS, so it is no sign of life: `ping` is.
        """
        limit = max(self.timeout_seconds, INFO_SECONDS)
        answer = await self.call("GET", "/info", action="read the engine's info", timeout_seconds=limit)
        return resources.as_object(answer)

    async def version(self) -> dict[str, Any]:
        """`/version`: the engine's and its components' versions."""
        return resources.as_object(await self.call("GET", "/version", action="read the engine's version"))

    async def call(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """One request; the answer as JSON, bytes where it is none or several lines, None where it is empty.

        `action` completes the sentence `cannot ...`. `body` is sent as JSON, `data` (bytes or an open file) as it is.
        """
        limit = timeout_seconds or self.timeout_seconds
        options: dict[str, Any] = {"params": params, "data": data, "headers": dict(headers or {})}
        if body is not None:
            options["json"] = body
        versioned = await self._versioned(path)
        answer = await self._send(method, versioned, action=action, timeout_seconds=limit, options=options)
        return _decode(answer)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        opening_seconds: float | None = None,
        piece_bytes: int | None = None,
    ) -> AsyncIterator[ObjectReceiveStream[bytes]]:
        """An endless answer, piece by piece; only its opening has a limit. `body` is sent as JSON.

        Without `piece_bytes` it is read as the engine sends it, which only a chunked answer has in pieces. Else by that
        size: what is large and not chunked would be read into one piece. What came meanwhile is given as one.

        Leaving the block ends the connection, and with it the thread that reads it: none is left when this returns
        (over ssh, whose channel cannot be woken, it is left to end by itself).
        A connection that breaks ends the block with Unavailable.
        """
        limit = opening_seconds or self.timeout_seconds
        options: dict[str, Any] = {"params": params, "headers": dict(headers or {}), "stream": True}
        if body is not None:
            options["json"] = body
        versioned = await self._versioned(path)
        response = await self._in_thread(self._open, method, versioned, options, limit, action=action, limit=limit)
        try:
            if response.status_code >= 400:
                raise refusal(action, response.status_code, _message(response.content))
            broken = f"{action}: the connection to {self.endpoint.url} broke"
            abandon = self.endpoint.url.startswith("ssh:")
            pump = _Pump(response, broken, abandon=abandon, piece_bytes=piece_bytes)
            async with running_beside(pump.run, before_end=pump.shut):
                yield pump
        finally:
            response.close()

    @asynccontextmanager
    async def events(
        self, filters: Mapping[str, list[str]] | None = None
    ) -> AsyncIterator[ObjectReceiveStream[StreamItem]]:
        """Events for as long as the block lasts; reconnects with backoff, without end.

        Begins with Opened and has Lost and Opened around every interruption: after each Opened read the state anew, as
        events may have been missed before it. Leaving the block ends connection and thread.
        """
        send, receive = anyio.create_memory_object_stream[StreamItem](256)
        async with send, receive, running_beside(self._follow, dict(filters or {}), send):
            yield receive

    async def _follow(self, filters: dict[str, list[str]], send: ObjectSendStream[StreamItem]) -> None:
        parameters = resources.as_filters(filters)
        failures = 0
        while True:
            try:
                async with self.stream("GET", "/events", action="follow events", params=parameters) as chunks:
                    failures = 0
                    await send.send(Opened())
                    async for line in Decoded(chunks, JsonLines().feed):
                        await send.send(EngineEvent.parse(line))
                lost = Lost("the engine ended the stream")
            except (Unavailable, ValueError) as error:
                lost = Lost(str(error))
            if failures == 0:
                await send.send(lost)
            self._api_version = None  # what comes back may be another version
            failures += 1
            await anyio.sleep(retry_delay(failures))

    async def _versioned(self, path: str) -> str:
        major, minor = await self.api_version()
        return f"/v{major}.{minor}{path}"

    async def _send(
        self, method: str, path: str, *, action: str, timeout_seconds: float, options: dict[str, Any]
    ) -> _Answer:
        limit = timeout_seconds
        answer = await self._in_thread(self._exchange, method, path, options, limit, action=action, limit=limit)
        assert isinstance(answer, _Answer)
        if answer.status >= 400:
            raise refusal(action, answer.status, _message(answer.body))
        return answer

    async def _in_thread(self, function: Any, *args: Any, action: str, limit: float) -> Any:
        """Run a blocking call within `limit` seconds, its foreign errors made ours."""
        try:
            with anyio.fail_after(limit):
                return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:  # requests' errors are OSErrors, and so is TimeoutError
            why = _reason(error) or f"no answer within {limit:g} s"
            raise Unavailable(f"cannot {action}: {why} ({self.endpoint.url}); is the engine running?") from error
        except docker.errors.DockerException as error:
            raise ConfigurationError(
                f"cannot use the engine at {self.endpoint.url!r}: {error}; give a usable address and certificates"
            ) from error

    def _exchange(self, method: str, path: str, options: dict[str, Any], limit: float) -> _Answer:
        session = self._opened()
        response = session.request(method, session.base_url + path, timeout=limit, **options)
        return _Answer(response.status_code, response.headers, response.content)

    def _open(self, method: str, path: str, options: dict[str, Any], limit: float) -> Any:
        session = self._opened()
        response = session.request(method, session.base_url + path, timeout=limit, **options)
        if response.status_code < 400 and (stream := _socket_of(response)) is not None:
            stream.settimeout(None)  # an endless answer may be silent for days
        return response

    def _opened(self) -> Any:
        """The session, made at the first call, in its thread: ssh connects at once."""
        with self._opening:
            if self._session is None:
                self._session = _make_session(self.endpoint, self.timeout_seconds)
            return self._session


def _socket_of(response: Any) -> Any:
    """What an answer is read from; None where there is no such thing, as over ssh.

    The connection has forgotten it where the answer is the last one (a program's output): the file that reads has it.
    """
    connection = response.raw.connection
    if connection is not None and connection.sock is not None:
        return connection.sock
    file = getattr(getattr(response.raw, "_fp", None), "fp", None)
    return getattr(getattr(file, "raw", None), "_sock", None)


def _make_session(endpoint: Endpoint, timeout_seconds: float) -> Any:
    tls: Any = False
    if endpoint.tls:
        pair = (str(endpoint.certificate_file), str(endpoint.key_file)) if endpoint.certificate_file else None
        tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=str(endpoint.ca_file), verify=True)
    # A version given here means no request now; paths carry the one agreed on.
    session = docker.APIClient(base_url=endpoint.url, version="1.41", timeout=int(timeout_seconds) or 1, tls=tls)
    session.trust_env = False  # type: ignore[attr-defined, unused-ignore]
    if endpoint.url.startswith("unix://"):
        adapter = _UnixAdapter(endpoint.url.replace("unix://", "http+unix://", 1), timeout=session.timeout)
        session.mount("http+docker://", adapter)  # type: ignore[attr-defined, unused-ignore]
    return session


class _UnixConnection(docker.transport.unixconn.UnixHTTPConnection):  # type: ignore[misc, unused-ignore]
    """The library's own leaves its socket open where nobody listens, once for each try."""

    def connect(self) -> None:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(self.timeout)
            made.connect(self.unix_socket)
        except BaseException:
            made.close()
            raise
        self.sock = made


class _UnixAdapter(docker.transport.UnixHTTPAdapter):  # type: ignore[misc, unused-ignore]
    """The library's adapter with connections of ours."""

    def get_connection(self, url: Any, proxies: Any = None) -> Any:
        pool: Any = super().get_connection(url, proxies)
        pool._new_conn = lambda: _UnixConnection(pool.base_url, pool.socket_path, pool.timeout)
        return pool


class _Pump(ObjectReceiveStream[bytes]):
    """Reads an endless answer in a thread; at its end raises what ended it, if that was no orderly end."""

    def __init__(self, response: Any, broken: str, *, abandon: bool, piece_bytes: int | None) -> None:
        self._response = response
        self._broken = broken
        self._abandon = abandon
        self._piece_bytes = piece_bytes
        self._handover = Handover()
        self._failure: Unavailable | None = None

    async def run(self) -> None:
        # Not abandoned: `shut` wakes the thread, so that it is gone when this returns.
        limiter = anyio.CapacityLimiter(1)
        try:
            await anyio.to_thread.run_sync(self._read, abandon_on_cancel=self._abandon, limiter=limiter)
        except OSError as error:
            self._failure = Unavailable(f"cannot {self._broken} ({_reason(error) or error}); is the engine running?")
        finally:
            self._handover.end()

    def shut(self) -> None:
        """Wake the reading thread for good; does not block."""
        self._handover.close()
        with suppress(OSError, ValueError, RuntimeError):
            self._response.raw.shutdown()

    def _read(self) -> None:
        chunks: Iterator[bytes] = self._response.iter_content(self._piece_bytes)
        for chunk in chunks:
            if not self._handover.put(chunk):
                return

    async def receive(self) -> bytes:
        if data := await self._handover.take():
            return data
        raise self._failure or anyio.EndOfStream

    async def aclose(self) -> None:
        self._handover.close()
        await anyio.lowlevel.checkpoint()


def _decode(answer: _Answer) -> Any:
    if not answer.body:
        return None
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        with suppress(json.JSONDecodeError):  # progress comes as one object a line, under the same type
            return json.loads(answer.body)
    return answer.body


def _message(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


def _parse_version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else OLDEST_API


def _reason(error: BaseException | None, depth: int = 8) -> str:
    """The system's words, dug out of the layers that HTTP libraries put around them; empty for a time limit."""
    if error is None or depth == 0 or isinstance(error, TimeoutError):
        return ""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror
    inner = [each for each in (error.__cause__, error.__context__, *error.args) if isinstance(each, BaseException)]
    return next((found for found in (_reason(each, depth - 1) for each in inner) if found), "")
