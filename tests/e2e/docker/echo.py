"""A stack with the app of `tests/e2e/reload/echo_app.py`, and the load on it: directly and through Traefik."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.e2e.docker.stack import Stack
from tests.e2e.reload.rig import PROGRAM
from tests.load.plan import Plan
from tests.load.process import Load
from tests.load.report import Report

STREAM_SECONDS = 4.0
_RATE = 100.0
_CONNECTIONS = 8
_LIVES_SECONDS = 0.25  # of a new connection, on a machine that is busy
_DOCKERFILE = """
FROM {parent}
RUN rm -rf /app/*
COPY . /app
ENV SUPERVISOR_APP_COMMAND="python -S echo_app.py"
"""
_ENVIRON = {
    "SUPERVISOR_RESTART_BASE_SECONDS": "0.05",
    "SUPERVISOR_STREAM_SECONDS": f"{STREAM_SECONDS:g}",
}


@dataclass
class EchoStack(Stack):
    """`release` puts new code into the container, a reload makes it serve."""

    version: int = 1

    def prepare(self) -> EchoStack:
        """On the image of the notes, which has all that the bare line needs where no registry is reachable."""
        if not self.image:
            super().prepare()
            self.image = self._build(self.image)
            self.environ = {**_ENVIRON, **self.environ}
        return self

    def _build(self, parent: str) -> str:
        tag = f"supervisor-test/echo:{self.kind}"
        with tempfile.TemporaryDirectory(prefix="echo-") as name:
            folder = Path(name)
            shutil.copy(PROGRAM, folder)
            (folder / "behaviour.json").write_text(json.dumps({"version": self.version}))
            (folder / "Dockerfile").write_text(_DOCKERFILE.format(parent=parent))
            self.share.engine.run("build", "--quiet", "--tag", tag, folder)
        return tag

    def release(self, **behaviour: float) -> int:
        """New code; gives its version."""
        self.version += 1
        text = shlex.quote(json.dumps({"version": self.version, **behaviour}))
        self.inside("sh", "-c", f"printf %s {text} >/app/behaviour.new && mv /app/behaviour.new /app/behaviour.json")
        return self.version

    @property
    def urls(self) -> tuple[str, str]:
        """The app's published port and Traefik's."""
        return self.app_url, self.traefik_url


class Loads:
    """At a time on each of the stack's ports: requests on kept connections and on new ones, half of them POST.

    `kept_rate` and `new_rate` are requests a second on one port.
    """

    def __init__(self, stack: EchoStack, *, kept_rate: float = _RATE, new_rate: float = _RATE) -> None:
        plans = [
            Plan(url=f"{url}/echo", rate=rate, connections=connections, post_every=2, limit_seconds=15)
            for connections, rate in ((_CONNECTIONS, kept_rate), (0, new_rate))
            for url in stack.urls
        ]
        self._loads = [Load(plan) for plan in plans]
        self.most_in_hand = round(sum(plan.connections or plan.rate * _LIVES_SECONDS for plan in plans))
        """Requests that an app can have at one moment: one for each connection that is open."""
        self._running = ExitStack()

    def __enter__(self) -> Loads:
        for load in self._loads:
            self._running.enter_context(load)
        for load in self._loads:
            load.began_at()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def wait_version(self, version: int) -> None:
        """Until it answers on every way."""
        for load in self._loads:
            load.version_at(version)

    def stop(self) -> list[Report]:
        """Those of the kept connections come first, one a port."""
        return [load.stop() for load in self._loads]
