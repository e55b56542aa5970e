"""An app of several: `/sql` and `/redis` do what a request says with the app's own URLs, and tell the answer."""

from __future__ import annotations

import os
import time
from typing import Any

import asyncpg
import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def sql(request: Request) -> JSONResponse:
    session = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        rows = await session.fetch((await request.json())["ask"])
        return JSONResponse({"rows": [list(map(str, row.values())) for row in rows]})
    except asyncpg.PostgresError as error:
        return JSONResponse({"error": error.sqlstate})
    finally:
        await session.close()


async def keys(request: Request) -> JSONResponse:
    client: Any = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    try:
        return JSONResponse({"answer": str(await client.execute_command(*(await request.json())["ask"].split()))})
    except redis.exceptions.ResponseError as error:
        return JSONResponse({"error": type(error).__name__})
    finally:
        await client.aclose()


async def health(request: Request) -> JSONResponse:
    return JSONResponse({"app": os.environ["NAME"], "at": time.time()})


routes = [
    Route("/api/health", health),
    Route("/sql", sql, methods=["POST"]),
    Route("/redis", keys, methods=["POST"]),
]
uvicorn.run(Starlette(routes=routes), host=os.environ["HOST"], port=int(os.environ["PORT"]), log_level="warning")
