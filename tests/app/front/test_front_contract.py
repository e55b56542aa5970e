"""The fronts we have, through what every front promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.app.front.haproxy_rig import open_rig
from tests.contracts.front_contract import OpenFront, OverlapContract

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def proxy() -> AsyncIterator[OpenFront]:
    async with open_rig() as rig:
        yield OpenFront(rig.front, rig.port)


class TestProxyFront(OverlapContract):
    """HAProxy."""

    def open(self) -> AbstractAsyncContextManager[OpenFront]:
        return proxy()
