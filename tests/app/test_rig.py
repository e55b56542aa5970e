"""The fake front keeps what every front promises, so that what is tested with it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from tests.app.rig import FakeFront
from tests.contracts.front_contract import OpenFront, OverlapContract

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def fake() -> AsyncIterator[OpenFront]:
    async with anyio.create_task_group() as group:
        front = FakeFront()
        await group.start(front.serve)
        yield OpenFront(front, front.port)
        group.cancel_scope.cancel()


class TestFakeFront(OverlapContract):
    """The one in `rig`."""

    def open(self) -> AbstractAsyncContextManager[OpenFront]:
        return fake()
