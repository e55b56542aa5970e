"""One task beside a block, ended with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def running_beside(
    task: Callable[..., Coroutine[Any, Any, Any]], *args: Any, before_end: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Run `task` while the block runs; at its end, however it ends, call `before_end`, cancel the task, await it.

    An error of the block leaves as itself, not in a group. `before_end` must not block; it wakes what cancelling
    cannot.
    """
    raised: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(task, *args)
        try:
            yield
        except Exception as error:
            raised = error
        finally:
            before_end()
            group.cancel_scope.cancel()
    if raised is not None:
        raise raised
