"""Notes in Postgres, the number of them in Redis. Who writes one is asked from `auth`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import redis.asyncio
import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DATABASE_URL = os.environ["DATABASE_URL"]
REDIS_URL = os.environ["REDIS_URL"]
AUTH_URL = os.environ.get("AUTH_URL", "http://127.0.0.1:3002")
PORT = int(os.environ.get("PORT", "3001"))
HOST = os.environ.get("HOST", "0.0.0.0")

LIMIT_SECONDS = 2.0
MAX_BODY_CHARACTERS = 2000
COUNT = "api:count"
UNAVAILABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError)


async def list_notes(request: Request) -> Response:
    """The newest notes."""
    rows = await request.state.postgres.fetch("SELECT id, author, body FROM notes ORDER BY id DESC LIMIT 100")
    return JSONResponse({"notes": [dict(row) for row in rows]})


async def write_note(request: Request) -> Response:
    """Keep a note of whoever holds a session; the kept number is thrown away."""
    author = await asyncio.to_thread(_name_of, request.headers.get("authorization", ""))
    note = await _body(request)
    query = "INSERT INTO notes (author, body) VALUES ($1, $2) RETURNING id, author, body"
    row = await request.state.postgres.fetchrow(query, author, note)
    await request.state.redis.delete(COUNT)
    return JSONResponse(dict(row), status_code=201)


async def count_notes(request: Request) -> Response:
    """How many there are, from Redis where it is known."""
    kept = await request.state.redis.get(COUNT)
    if kept is None:
        kept = await request.state.postgres.fetchval("SELECT count(*) FROM notes")
        await request.state.redis.set(COUNT, kept, ex=60)
    return JSONResponse({"notes": int(kept)})


async def show_health(request: Request) -> Response:
    """200 where Postgres and Redis answer."""
    await asyncio.gather(request.state.postgres.fetchval("SELECT 1"), request.state.redis.ping())
    return JSONResponse({"status": "ok"})


def _name_of(authorization: str) -> str:
    """Blocks, hence in a thread."""
    asked = urllib.request.Request(f"{AUTH_URL}/sessions/me", headers={"Authorization": authorization})
    try:
        with urllib.request.urlopen(asked, timeout=LIMIT_SECONDS) as answer:
            return str(json.load(answer)["name"])
    except urllib.error.HTTPError as error:
        with error:
            raise HTTPException(401, "sign in first") from error


async def _body(request: Request) -> str:
    try:
        body: Any = (await request.json())["body"]
    except (ValueError, LookupError, TypeError):
        body = None
    if not isinstance(body, str) or not 1 <= len(body) <= MAX_BODY_CHARACTERS or "\0" in body:
        raise HTTPException(422, f"'body' must be a text of 1 to {MAX_BODY_CHARACTERS} characters")
    return body


async def answer_refused(_request: Request, error: Exception) -> Response:
    """The JSON answer to a request that cannot be accepted."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def answer_unavailable(_request: Request, error: Exception) -> Response:
    """503 while something that the request needs is away; the log has its kind, never its text."""
    print(f"unavailable: {type(error).__name__}", file=sys.stderr, flush=True)
    return JSONResponse({"error": "not available; try again"}, status_code=503, headers={"Retry-After": "1"})


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The connections: none is opened yet, so the app starts while Postgres or Redis is still away."""
    client = redis.asyncio.Redis.from_url(REDIS_URL, socket_timeout=LIMIT_SECONDS, decode_responses=True)
    pool = await asyncpg.create_pool(
        DATABASE_URL, min_size=0, max_size=5, timeout=LIMIT_SECONDS, command_timeout=LIMIT_SECONDS
    )
    try:
        yield {"postgres": pool, "redis": client}
    finally:
        await pool.close()
        await client.aclose()


app = Starlette(
    routes=[
        Route("/notes", list_notes),
        Route("/notes", write_note, methods=["POST"]),
        Route("/notes/count", count_notes),
        Route("/api/health", show_health),
    ],
    exception_handlers={HTTPException: answer_refused} | dict.fromkeys(UNAVAILABLE, answer_unavailable),
    lifespan=lifespan,
)

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops in order on its own handlers, then raises the signal again for ours.
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.run(app, host=HOST, port=PORT, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
