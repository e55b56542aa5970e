"""A small notes app on Postgres and Redis: an example of an app that the supervisor runs.

It reads PORT, DATABASE_URL and REDIS_URL and knows nothing else of its surroundings. Postgres and Redis may go away and
come back: a request meanwhile is answered with 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import asyncpg
import redis.asyncio
import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

HERE = Path(__file__).resolve().parent
# Read once: what runs keeps telling its own version after the file has changed, until a reload.
VERSION = (HERE / "VERSION").read_text(encoding="utf-8").strip()
GENERATION = os.environ.get("SUPERVISOR_GENERATION", "")
LIMIT_SECONDS = 2.0
MAX_BODY_CHARACTERS = 2000
MAX_REQUEST_BYTES = 16 * 1024
SHOWN_NOTES = 100

# What Postgres and Redis raise while they are away, start, stop or fail over; a mistake in our own SQL is not among it.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    RedisError,
)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Notes</title>
<style>
  :root {{ color-scheme: light dark; --line: #8884; --soft: #888; }}
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
  h1 {{ margin: 0 0 1rem; }}
  form {{ display: flex; gap: .5rem; margin-bottom: 1.5rem; }}
  input {{ flex: 1; min-width: 0; }}
  input, button {{ font: inherit; padding: .5rem .75rem; border: 1px solid var(--line); border-radius: .4rem; }}
  ul {{ list-style: none; padding: 0; margin: 0; }}
  li {{ border-top: 1px solid var(--line); padding: .6rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }}
  time, footer, .empty {{ color: var(--soft); font-size: .85rem; }}
  time {{ display: block; }}
  footer {{ border-top: 1px solid var(--line); padding-top: .6rem; }}
</style>
<h1>Notes</h1>
<form method="post" action="/notes">
  <input name="body" aria-label="New note" placeholder="Write a note" maxlength="{limit}" required autofocus>
  <button>Add</button>
</form>
<ul>{items}</ul>
<footer>{posted} written so far · version {version}{generation}</footer>
</html>
"""


async def show_page(request: Request) -> Response:
    """The notes, newest first, with a form to write one."""
    notes, posted = await asyncio.gather(_read_notes(request), _limited(_redis(request).get("notes:posted")))
    items = "".join(
        f"<li>{html.escape(note['body'])}<time>{html.escape(note['created_at'])}</time></li>" for note in notes
    )
    page = PAGE.format(
        items=items or '<li class="empty">Nothing here yet.</li>',
        posted=int(posted or 0),
        limit=MAX_BODY_CHARACTERS,
        version=html.escape(VERSION),
        generation=f" · generation {html.escape(GENERATION)}" if GENERATION else "",
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})


async def list_notes(request: Request) -> Response:
    """The notes as JSON, newest first."""
    return JSONResponse({"notes": await _read_notes(request)})


async def write_note(request: Request) -> Response:
    """Write a note from a form (answers with a redirect to the page) or from JSON (answers with the note)."""
    is_json = request.headers.get("content-type", "").split(";")[0].strip() == "application/json"
    body = _note_body(await _read_request(request), is_json=is_json)
    async with _postgres(request).acquire(timeout=LIMIT_SECONDS) as connection, connection.transaction():
        row = await connection.fetchrow("INSERT INTO notes (body) VALUES ($1) RETURNING id, body, created_at", body)
        note = _note(row)
        # Inside the transaction: without Redis nothing is saved either, and the 503 is the truth.
        pipeline = _redis(request).pipeline()
        pipeline.incr("notes:posted")
        pipeline.publish("notes", json.dumps(note))
        await _limited(pipeline.execute())
    return JSONResponse(note, status_code=201) if is_json else RedirectResponse("/", status_code=303)


async def show_health(request: Request) -> Response:
    """200 when Postgres and Redis both answer, else 503; says which one does not."""
    names = ("postgres", "redis")
    results = await asyncio.gather(
        _limited(_postgres(request).fetchval("SELECT 1", timeout=LIMIT_SECONDS)),
        _limited(_redis(request).ping()),
        return_exceptions=True,
    )
    checks = {
        name: type(result).__name__ if isinstance(result, BaseException) else "ok"
        for name, result in zip(names, results, strict=True)
    }
    healthy = set(checks.values()) == {"ok"}
    answer = {"status": "ok" if healthy else "unavailable", "version": VERSION, "checks": checks}
    if GENERATION:
        answer["generation"] = GENERATION
    return JSONResponse(answer, status_code=200 if healthy else 503)


async def answer_unavailable(_request: Request, error: Exception) -> Response:
    """503 for a request that needed Postgres or Redis while one of them was away."""
    print(f"unavailable: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    message = {"error": "Postgres or Redis is not available; try again"}
    return JSONResponse(message, status_code=503, headers={"Retry-After": "1"})


async def answer_refused(_request: Request, error: Exception) -> Response:
    """The JSON answer to a request that cannot be accepted."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def _postgres(request: Request) -> asyncpg.Pool[asyncpg.Record]:
    pool: asyncpg.Pool[asyncpg.Record] = request.state.postgres
    return pool


def _redis(request: Request) -> redis.asyncio.Redis:
    client: redis.asyncio.Redis = request.state.redis
    return client


async def _limited(work: Awaitable[Any]) -> Any:
    async with asyncio.timeout(LIMIT_SECONDS):
        return await work


async def _read_notes(request: Request) -> list[dict[str, Any]]:
    query = "SELECT id, body, created_at FROM notes ORDER BY created_at DESC, id DESC LIMIT $1"
    async with _postgres(request).acquire(timeout=LIMIT_SECONDS) as connection:
        return [_note(row) for row in await connection.fetch(query, SHOWN_NOTES)]


def _note(row: Any) -> dict[str, Any]:
    return {"id": row["id"], "body": row["body"], "created_at": row["created_at"].isoformat(timespec="seconds")}


async def _read_request(request: Request) -> bytes:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_REQUEST_BYTES:
            raise HTTPException(413, f"a request may have at most {MAX_REQUEST_BYTES} bytes")
    return content


def _note_body(content: bytes, *, is_json: bool) -> str:
    """The note in a JSON object or a form; refuses what is not a text of 1 to 2000 characters."""
    try:
        text = content.decode()
        body = json.loads(text)["body"] if is_json else parse_qs(text)["body"][0]
        body = body.strip()
        body.encode()  # JSON can spell half a surrogate pair, which Postgres cannot store, nor a NUL
    except (ValueError, LookupError, TypeError, AttributeError):
        body = ""
    if not 1 <= len(body) <= MAX_BODY_CHARACTERS or "\0" in body:
        raise HTTPException(422, f"'body' must be a text of 1 to {MAX_BODY_CHARACTERS} characters")
    return str(body)


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The connections: none is opened yet, so the app starts while Postgres or Redis is still away."""
    client = redis.asyncio.Redis.from_url(
        os.environ["REDIS_URL"],
        socket_connect_timeout=LIMIT_SECONDS,
        socket_timeout=LIMIT_SECONDS,
        decode_responses=True,
    )
    pool = await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=0, max_size=10, timeout=LIMIT_SECONDS, command_timeout=LIMIT_SECONDS
    )
    try:
        yield {"postgres": pool, "redis": client}
    finally:
        with contextlib.suppress(TimeoutError):
            await _limited(pool.close())
        await client.aclose()


app = Starlette(
    routes=[
        Route("/", show_page),
        Route("/notes", list_notes),
        Route("/notes", write_note, methods=["POST"]),
        Route("/api/health", show_health),
    ],
    exception_handlers={HTTPException: answer_refused} | dict.fromkeys(UNAVAILABLE, answer_unavailable),
    lifespan=lifespan,
)


def main() -> None:
    """Serve on PORT until TERM or INT, which end it in order with status 0."""
    missing = [name for name in ("DATABASE_URL", "REDIS_URL") if not os.environ.get(name)]
    if missing:
        sys.exit(f"cannot start the notes app: {' and '.join(missing)} not set; run it through scripts/run")
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops in order on its own handlers, then raises the signal again for ours.
        signal.signal(number, lambda *_: sys.exit(0))
    port = int(os.environ.get("PORT", "3000"))
    print(f"notes {VERSION} starts on port {port}", flush=True)
    # Requests in hand get 5 s to end; idle connections are closed at once.
    uvicorn.run(app, host="0.0.0.0", port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
