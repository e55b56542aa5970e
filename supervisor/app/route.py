"""The route through the proxy to an app: proved once the app serves, watched from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio

from supervisor.core.events import Health, Publish, RouteChanged
from supervisor.probe.http import HttpAnswer, probe_http
from supervisor.probe.verdict import Verdict

_FIRST_PAUSE_SECONDS = 0.025
_BROKEN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class RouteSpec:
    """The proxy's web entry point, the Host to ask with (None: any), and a path the app answers on."""

    app: str
    address: str = "127.0.0.1"
    port: int
    host: str | None
    path: str = "/"

    @property
    def url(self) -> str:
        """What is asked."""
        return f"http://{self.address}:{self.port}{self.path}"


class Route:
    """Publishes whether requests reach the app through the proxy."""

    def __init__(self, spec: RouteSpec, publish: Publish) -> None:
        self._spec = spec
        self._publish = publish
        self._health = Health.NONE

    async def prove(self, path: str, *, within_seconds: float) -> Verdict:
        """Ask until it works, at most `within_seconds`; gives the last answer. Proxies load files in their own time."""
        self._spec = replace(self._spec, path=path or "/")
        deadline = anyio.current_time() + within_seconds
        while True:
            verdict = await self.ask()
            if verdict.good or anyio.current_time() >= deadline:
                return verdict
            await anyio.sleep(_FIRST_PAUSE_SECONDS)

    async def ask(self) -> Verdict:
        """One request through the proxy; publishes a change."""
        answer: HttpAnswer = await probe_http(self._spec.url, host_header=self._spec.host, limit_seconds=3.0)
        health = Health.HEALTHY if answer.verdict.good else Health.UNHEALTHY
        if health is not self._health:
            self._health = health
            self._publish(
                RouteChanged(
                    app=self._spec.app,
                    health=health,
                    url=self._spec.url,
                    error="" if answer.verdict.good else answer.verdict.detail,
                )
            )
        return answer.verdict

    async def watch(self, *, interval_seconds: float, while_serving: Callable[[], bool]) -> None:
        """Ask every `interval_seconds` for ever, as long as the app serves (its own failures are told elsewhere).

        While it does not work it is asked more often, so that its return is told soon.
        """
        while True:
            broken = self._health is Health.UNHEALTHY
            await anyio.sleep(min(interval_seconds, _BROKEN_SECONDS) if broken else interval_seconds)
            if while_serving():
                await self.ask()
