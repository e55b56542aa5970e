"""The app in Python: one process of uvicorn, which ends at once on TERM."""

from __future__ import annotations

import os
from types import FrameType

import uvicorn


class Rude(uvicorn.Server):
    """Waits for nobody."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's handler of TERM and INT."""
        os._exit(0)


if __name__ == "__main__":
    from tests.bench.apps import asgi  # its import is the start

    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])
    Rude(uvicorn.Config(asgi.app, host=host, port=port, lifespan="off", access_log=False)).run()
