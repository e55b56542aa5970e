"""For `uvicorn --workers 2 tests.bench.apps.asgi:app`: the import is the start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.bench.apps.release import Release, boot

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

release: Release = boot()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """One request; the start and end of the app are of no interest."""
    if scope["type"] != "http":
        raise RuntimeError("only http")
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await asyncio.sleep(release.work_seconds(scope["path"]))
    answer = body if scope["method"] == "POST" else b"ok\n"
    headers = [(b"content-length", b"%d" % len(answer)), (b"app-version", b"%d" % release.version)]
    await send({"type": "http.response.start", "status": release.status(), "headers": headers})
    await send({"type": "http.response.body", "body": answer})
