"""The control API: HTTP/1.1 and JSON on a unix socket of our own, so that `curl --unix-socket` works.

The routes are here, the socket and the server in `unix_server`, bodies without an end in `streams`.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from supervisor import __version__
from supervisor.core.events import OverallState
from supervisor.core.requests import DECISIONS, Canary, Outcome, Request, Result, Verb
from supervisor.triggers.keeping import Keeping, KeepingRoutes
from supervisor.triggers.releases import ReleaseRoutes, Releases, takes_body
from supervisor.triggers.streams import (
    JSON_LINES,
    SERVER_SENT_EVENTS,
    LogRing,
    Stream,
    as_json_line,
    as_server_sent_event,
    cancel_on_hang_up,
    followed,
    merged_tail,
)
from supervisor.triggers.unix_server import Server, listen

MAX_STREAMS = 32
MAX_COUNT = 10_000
MAX_CANARY_SECONDS = 86400
_DEFAULT_EVENTS = 20
_DEFAULT_LINES = 100
_GOOD = frozenset({OverallState.RUNNING.value, OverallState.DEGRADED.value})


class LogSource(Protocol):
    """The rings of output, by the name of their source; asked anew for each request."""

    def sources(self) -> list[str]:
        """The names there are."""

    def get(self, name: str) -> LogRing | None:
        """The ring of that name, if there is one."""


class EventFeed(Protocol):
    """The kept events and the stream of new ones (`observe.eventlog.EventLog`)."""

    def tail(self, count: int) -> list[dict[str, Any]]:
        """The last `count` events, oldest first."""

    def subscribe(self, backlog: int = 0) -> AbstractContextManager[AsyncIterator[dict[str, Any]]]:
        """A stream that begins with the last `backlog` events; bounded, it drops the oldest for a slow reader."""


Submit = Callable[[Request], Awaitable[Outcome]]
Redact = Callable[[Any], Any]


class ControlServer:
    """Long-lived: `await group.start(server.run)` returns once it accepts; cancelling ends it within 0.3 s.

    Only `owner_uid` (default: ours) and root may connect: by the socket's mode, 0600, and by their uid, asked of the
    kernel for each connection. `redact` masks secrets in log lines and events before they leave.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_status: Callable[[], dict[str, Any]],
        submit: Submit,
        events: EventFeed,
        logs: LogSource,
        owner_uid: int | None = None,
        redact: Redact = lambda value: value,
        releases: Callable[[str], Releases | None] = lambda name: None,
        keeping: Callable[[], Keeping | None] = lambda: None,
    ) -> None:
        self._path = path
        self._allowed_uids = frozenset({0, os.geteuid() if owner_uid is None else owner_uid})
        more = [*ReleaseRoutes(releases, redact).routes(), *KeepingRoutes(keeping, redact).routes()]
        self._api = _Api(read_status, submit, events, logs, redact, more)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises ConfigurationError when the socket cannot be had.

        A client still waiting for an outcome when it ends is told that the request was cancelled.
        """
        with listen(self._path) as listener:
            server = Server(
                self._api.application(),
                allowed_uids=self._allowed_uids,
                on_accepting=task_status.started,
                takes_body=takes_body,
            )
            try:
                async with anyio.create_task_group() as group:
                    self._api.submissions = group
                    await server.serve(sockets=[listener])
            finally:
                self._api.ending.set()
                with anyio.CancelScope(shield=True):
                    await server.end()


@dataclass
class _Reply:
    """What became of a submitted request; `done` is set when it is known."""

    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Outcome | None = None


class _Api:
    """The routes. `submissions` is the task group submitted requests live in: no client's hanging up reaches them."""

    def __init__(
        self,
        read_status: Callable[[], dict[str, Any]],
        submit: Submit,
        events: EventFeed,
        logs: LogSource,
        redact: Redact,
        more: list[Route],
    ) -> None:
        self._more = more
        self._read_status = read_status
        self._submit = submit
        self._events = events
        self._logs = logs
        self._redact = redact
        self._streams = 0
        self.ending = anyio.Event()
        self.submissions: TaskGroup | None = None

    def application(self) -> Starlette:
        """The ASGI application; errors of every kind are `{"error": text}`."""
        application = Starlette(
            routes=[
                Route("/v1/status", self._status),
                Route("/v1/health", self._health),
                Route("/v1/version", self._version),
                Route("/v1/events", self._stream_events),
                Route("/v1/logs", self._stream_logs),
                Route("/v1/reload", self._reload_all, methods=["POST"]),
                Route("/v1/canary/{verb}", self._decide_canary, methods=["POST"]),
                *self._more,
                Route("/v1/apps/{name}/{verb}", self._ask_app, methods=["POST"]),
                Route("/v1/services/{name}/{verb}", self._ask_service, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _error_response, Exception: _bug_response},
        )
        application.router.redirect_slashes = False
        return application

    async def _status(self, request: HttpRequest) -> Response:
        return JSONResponse(self._redact(self._read_status()))

    async def _health(self, request: HttpRequest) -> Response:
        status = self._read_status()
        state = status["state"]
        answer = {"state": state, "reason": status.get("reason", "")}
        return JSONResponse(self._redact(answer), 200 if state in _GOOD else 503)

    async def _version(self, request: HttpRequest) -> Response:
        return JSONResponse({"version": __version__, "pid": os.getpid()})

    async def _reload_all(self, request: HttpRequest) -> Response:
        return await self._ask(request, Verb.RELOAD, "", canary=_canary(request))

    async def _decide_canary(self, request: HttpRequest) -> Response:
        verb = request.path_params["verb"]
        if verb not in DECISIONS:
            raise HTTPException(404, f"cannot {verb} a canary: no such verb; known: {_list(DECISIONS)}")
        return await self._ask(request, Verb(verb), "")

    async def _ask_app(self, request: HttpRequest) -> Response:
        return await self._ask_named(request, "app", frozenset(Verb) - DECISIONS)

    async def _ask_service(self, request: HttpRequest) -> Response:
        return await self._ask_named(request, "service", frozenset(Verb) - DECISIONS - {Verb.RELOAD})

    async def _ask_named(self, request: HttpRequest, kind: str, allowed: frozenset[Verb]) -> Response:
        name, verb = request.path_params["name"], request.path_params["verb"]
        if verb not in allowed:
            raise HTTPException(404, f"cannot {verb} {kind} {name!r}: no such verb; known: {_list(allowed)}")
        known = [row[kind] for row in self._read_status()[f"{kind}s"]]
        if name not in known:
            raise HTTPException(404, unknown_name(f"cannot {verb} {kind}", kind, name, known))
        canary = _canary(request) if verb == Verb.RELOAD else None
        return await self._ask(request, Verb(verb), name, canary=canary)

    async def _ask(self, request: HttpRequest, verb: Verb, target: str, *, canary: Canary | None = None) -> Response:
        """Submit, and answer with the outcome; with `?wait=0` at once. A client that hangs up changes nothing."""
        assert self.submissions is not None
        wait = _flag(request, "wait", default=True)
        source = f"api {request.client.host}" if request.client else "api"
        reply = _Reply()
        self.submissions.start_soon(self._carry_out, Request(verb, source, target, canary), reply)
        if not wait:
            return JSONResponse({"accepted": True}, 202)
        async with anyio.create_task_group() as group:
            group.start_soon(cancel_on_hang_up, request.receive, group.cancel_scope)
            await reply.done.wait()
            group.cancel_scope.cancel()
        if reply.outcome is None:
            raise HTTPException(500, f"cannot {verb} {target or 'the apps'}: an internal error; see the log")
        return JSONResponse(self._redact(reply.outcome.as_dict()), 200 if reply.outcome.ok else 409)

    async def _carry_out(self, request: Request, reply: _Reply) -> None:
        try:
            reply.outcome = await self._submit(request)
        except Exception:
            # A bug in the way of one request must not end everything the supervisor keeps up.
            logging.getLogger(__name__).exception("cannot carry out %s: an internal error", request)
        except BaseException:
            reply.outcome = Outcome(result=Result.CANCELLED, reason="the supervisor is stopping")
            raise
        finally:
            reply.done.set()

    async def _stream_events(self, request: HttpRequest) -> Response:
        count = _count(request, _DEFAULT_EVENTS)
        if not _flag(request, "follow", default=True):
            return self._lines(self._events.tail(count))
        if SERVER_SENT_EVENTS in request.headers.get("accept", ""):
            return self._stream(self._subscribed(count), dict, as_server_sent_event, SERVER_SENT_EVENTS)
        return self._stream(self._subscribed(count), dict, as_json_line, JSON_LINES)

    @contextlib.asynccontextmanager
    async def _subscribed(self, count: int) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        with self._events.subscribe(count) as subscription:
            yield subscription

    async def _stream_logs(self, request: HttpRequest) -> Response:
        count = _count(request, _DEFAULT_LINES)
        source = request.query_params.get("source", "")
        known = self._logs.sources()
        rings = [ring for name in ([source] if source else known) if (ring := self._logs.get(name)) is not None]
        if source and not rings:
            raise HTTPException(404, unknown_name("cannot read the log of", "source", source, known))
        if _flag(request, "follow", default=False):
            return self._stream(followed(rings, count), lambda line: line.as_dict(), as_json_line, JSON_LINES)
        return self._lines(line.as_dict() for line in merged_tail(rings, count))

    def _lines(self, values: Iterable[Any]) -> Response:
        return Response(b"".join(as_json_line(self._redact(value)) for value in values), media_type=JSON_LINES)

    def _stream(
        self,
        opened: AbstractAsyncContextManager[AsyncIterator[Any]],
        as_dict: Callable[[Any], dict[str, Any]],
        encode: Callable[[Any], bytes],
        media_type: str,
    ) -> Response:
        if self._streams >= MAX_STREAMS:
            raise HTTPException(503, f"cannot open another stream: {MAX_STREAMS} are open; close one of them")
        return Stream(
            self._counted(opened),
            encode=lambda value: encode(self._redact(as_dict(value))),
            media_type=media_type,
            ending=self.ending,
        )

    @contextlib.asynccontextmanager
    async def _counted(self, opened: AbstractAsyncContextManager[AsyncIterator[Any]]) -> AsyncIterator[Any]:
        self._streams += 1
        try:
            async with opened as values:
                yield values
        finally:
            self._streams -= 1


def unknown_name(cannot: str, kind: str, name: str, known: Iterable[str]) -> str:
    """The error text for a name nobody has, with the nearest one that somebody has."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{cannot} {name!r}: no such {kind}; {hint}known: {_list(known) or 'none yet'}"


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def _count(request: HttpRequest, default: int) -> int:
    text = request.query_params.get("n", str(default))
    if not text.isascii() or not text.isdigit() or int(text) > MAX_COUNT:
        raise HTTPException(400, f"cannot use n={text!r}: it must be a number from 0 to {MAX_COUNT}")
    return int(text)


def _canary(request: HttpRequest) -> Canary | None:
    """`canary=PERCENT&for=SECONDS`; both or neither."""
    found = [request.query_params.get(name) for name in ("canary", "for")]
    if found == [None, None]:
        return None
    try:
        percent, seconds = (float(text or "") for text in found)
    except ValueError:
        percent = seconds = 0.0
    if not (0 < percent < 100 and 0 < seconds <= MAX_CANARY_SECONDS):
        raise HTTPException(
            400,
            f"cannot use canary={found[0]!r} and for={found[1]!r}: give a percentage above 0 and below 100, "
            f"and seconds up to {MAX_CANARY_SECONDS}",
        )
    return Canary(percent, seconds)


def _flag(request: HttpRequest, name: str, *, default: bool) -> bool:
    text = request.query_params.get(name, "1" if default else "0").lower()
    if text not in ("0", "1", "false", "true"):
        raise HTTPException(400, f"cannot use {name}={text!r}: it must be 0 or 1")
    return text in ("1", "true")


async def _error_response(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 405:
        text = f"cannot {request.method} {request.url.path}: it takes {(error.headers or {}).get('Allow', 'another')}"
    elif text == "Not Found":
        text = f"cannot find {request.url.path}: no such path"
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)


async def _bug_response(request: HttpRequest, error: Exception) -> Response:
    # uvicorn logs the traceback.
    return JSONResponse({"error": "internal error; see the log"}, 500)
