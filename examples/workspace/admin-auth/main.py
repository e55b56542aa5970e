"""Lets the admin in, writes that down in its own schema, and shows the sessions of `auth`, which it may only read."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DATABASE_URL = os.environ["DATABASE_URL"]
ADMIN_EMAIL = os.environ["ADMIN_EMAIL"]
ADMIN_PASSWORD = os.environ["ADMIN_PASSWORD"]
SESSION_SECRET_FILE = Path(os.environ["SESSION_SECRET_FILE"])
PORT = int(os.environ.get("PORT", "3003"))
HOST = os.environ.get("HOST", "0.0.0.0")

LIMIT_SECONDS = 2.0
UNAVAILABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def log_in(request: Request) -> Response:
    """A token for the right e-mail address and password."""
    try:
        said = await request.json()
        email, password = str(said["email"]), str(said["password"])
    except (ValueError, LookupError, TypeError):
        raise HTTPException(422, "'email' and 'password' are needed") from None
    if not (_same(email, ADMIN_EMAIL) & _same(password, ADMIN_PASSWORD)):
        raise HTTPException(401, "wrong e-mail address or password")
    await request.state.postgres.execute("INSERT INTO logins (email) VALUES ($1)", email)
    return JSONResponse({"token": _token(request)}, status_code=201)


async def list_sessions(request: Request) -> Response:
    """Who has signed in at `auth`; for the admin alone."""
    if not _same(request.headers.get("authorization", ""), f"Bearer {_token(request)}"):
        raise HTTPException(401, "log in first")
    rows = await request.state.postgres.fetch("SELECT name FROM auth.sessions ORDER BY created_at DESC LIMIT 100")
    return JSONResponse({"sessions": [row["name"] for row in rows]})


async def count_sessions(request: Request) -> Response:
    """How many there are, for the front page."""
    return JSONResponse({"sessions": await request.state.postgres.fetchval("SELECT count(*) FROM auth.sessions")})


async def show_health(request: Request) -> Response:
    """200 where Postgres answers."""
    await request.state.postgres.fetchval("SELECT 1")
    return JSONResponse({"status": "ok"})


def _same(one: str, other: str) -> bool:
    """In a time that tells nothing."""
    return hmac.compare_digest(one.encode(), other.encode())


def _token(request: Request) -> str:
    return hmac.new(request.state.secret, ADMIN_EMAIL.encode(), hashlib.sha256).hexdigest()


async def answer_refused(_request: Request, error: Exception) -> Response:
    """The JSON answer to a request that cannot be accepted."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def answer_unavailable(_request: Request, error: Exception) -> Response:
    """503 while Postgres is away; the log has the error's kind, never its text."""
    print(f"unavailable: {type(error).__name__}", file=sys.stderr, flush=True)
    return JSONResponse({"error": "not available; try again"}, status_code=503, headers={"Retry-After": "1"})


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The secret is read from its file: it is in no environment that other programs of this user could read."""
    secret = SESSION_SECRET_FILE.read_bytes()
    pool = await asyncpg.create_pool(
        DATABASE_URL, min_size=0, max_size=5, timeout=LIMIT_SECONDS, command_timeout=LIMIT_SECONDS
    )
    try:
        yield {"postgres": pool, "secret": secret}
    finally:
        await pool.close()


app = Starlette(
    routes=[
        Route("/login", log_in, methods=["POST"]),
        Route("/sessions", list_sessions),
        Route("/sessions/count", count_sessions),
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
