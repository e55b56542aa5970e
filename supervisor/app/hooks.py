"""Post-start hooks and the boot notification: run in parallel once the app is healthy; a failing one stops nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import anyio
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from supervisor.core.errors import SupervisorError
from supervisor.core.events import HookFinished, Publish
from supervisor.core.secret import Secret

RunCommand = Callable[[str, str, float], Awaitable[tuple[int, str]]]
"""(name, command, limit in seconds) -> (exit status, last line of output)."""

_NOTIFY_TRIES = 3
_REPLY_BYTES = 4096


@dataclass(frozen=True)
class HookResult:
    """How one hook ended."""

    hook: str
    ok: bool
    detail: str
    elapsed_seconds: float


async def run_hooks(
    hooks: Sequence[str], *, run_command: RunCommand, limit_seconds: float, publish: Publish
) -> list[HookResult]:
    """Run all in parallel, each within `limit_seconds`; results in the order given. Never raises for a hook."""
    results: dict[int, HookResult] = {}

    async def one(index: int, hook: str) -> None:
        name = hook_name(index, hook)
        started = anyio.current_time()
        ok, detail = await _run_one(name, hook, run_command, limit_seconds)
        elapsed = round(anyio.current_time() - started, 3)
        results[index] = HookResult(name, ok, detail, elapsed)
        publish(HookFinished(hook=name, ok=ok, detail=detail, elapsed_seconds=elapsed))

    async with anyio.create_task_group() as group:
        for index, hook in enumerate(hooks):
            group.start_soon(one, index, hook)
    return [results[index] for index in range(len(hooks))]


def hook_name(index: int, hook: str) -> str:
    """`hook-1 (rake schedules:load)`: a number and the words; a URL without its query, where tokens tend to be."""
    words = hook.partition("?")[0] if is_url(hook) else hook
    return f"hook-{index + 1} ({words[:60]})"


def is_url(hook: str) -> bool:
    """Whether a hook is a URL rather than a command."""
    return hook.startswith(("http://", "https://"))


async def _run_one(name: str, hook: str, run_command: RunCommand, limit_seconds: float) -> tuple[bool, str]:
    if not is_url(hook):
        try:
            status, last = await run_command(name.split()[0], hook, limit_seconds)
        except SupervisorError as error:
            return False, str(error)
        return status == 0, last if status == 0 else f"exit status {status}: {last}"
    with anyio.move_on_after(limit_seconds):
        try:
            status = await post_json(hook, {"event": "app.started"}, limit_seconds=limit_seconds)
        except OSError as error:
            return False, str(error)
        return 200 <= status < 400, f"HTTP {status}"
    return False, f"no answer within {limit_seconds:g} s"


async def notify(
    url: Secret, message: dict[str, object], hooks: Sequence[HookResult], *, limit_seconds: float, publish: Publish
) -> None:
    """POST the boot notification with the hooks' outcomes; three tries with backoff, a failure is only reported."""
    body = {**message, "hooks": [asdict(hook) for hook in hooks]}
    started = anyio.current_time()
    ok, detail = False, f"no answer within {limit_seconds:g} s"
    with anyio.move_on_after(limit_seconds):
        ok, detail = await _notify_with_retries(url, body, limit_seconds)
    elapsed = round(anyio.current_time() - started, 3)
    publish(HookFinished(hook="boot notification", ok=ok, detail=detail, elapsed_seconds=elapsed))


async def _notify_with_retries(url: Secret, body: dict[str, object], limit_seconds: float) -> tuple[bool, str]:
    retrying = AsyncRetrying(
        sleep=anyio.sleep,
        stop=stop_after_attempt(_NOTIFY_TRIES),
        wait=wait_exponential_jitter(multiplier=0.5, max=5, jitter=0.2),
        retry=retry_if_exception_type(OSError),
    )
    try:
        status: int = await retrying(partial(_post_or_raise, url.reveal(), body, limit_seconds))
    except RetryError as error:
        cause = error.last_attempt.exception()
        return False, f"{cause} ({_NOTIFY_TRIES} tries)"
    return status < 400, f"HTTP {status}"


async def _post_or_raise(url: str, body: dict[str, object], limit_seconds: float) -> int:
    status = await post_json(url, body, limit_seconds=limit_seconds)
    if status >= 500:
        raise OSError(f"HTTP {status}")
    return status


async def post_json(url: str, body: dict[str, object], *, limit_seconds: float) -> int:
    """POST and give the status. Raises OSError. Runs in a thread that is left behind when cancelled."""
    return await anyio.to_thread.run_sync(partial(_post, url, body, limit_seconds), abandon_on_cancel=True)


def _post(url: str, body: dict[str, object], limit_seconds: float) -> int:
    # Loaded here: the standard client costs 3 MB that a daemon without hooks need not carry.
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=limit_seconds)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read(_REPLY_BYTES)
        return response.status
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
