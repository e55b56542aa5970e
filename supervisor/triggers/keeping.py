"""The control API's paths about secrets and the apps' places: rotated, planned, applied, verified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from supervisor.core.errors import SupervisorError
from supervisor.core.requests import Outcome


class Keeping(Protocol):
    """What may be asked. No answer holds a secret. All but `rotate` raise our errors."""

    async def rotate(self, name: str) -> Outcome:
        """Change the secret of that name, without a failed request."""

    async def plan(self, *, hand_over: bool, confirm: bool) -> dict[str, Any]:
        """`lines`: what `apply` would do; `sql`: the same for an administrator to run."""

    async def apply(self, *, hand_over: bool, confirm: bool) -> dict[str, Any]:
        """Make the apps' places as declared; `lines`: what was done."""

    async def verify(self) -> dict[str, Any]:
        """Log in as every app, and try what is declared and what is not."""


class KeepingRoutes:
    """`find` gives who answers; None while it still boots."""

    def __init__(self, find: Callable[[], Keeping | None], redact: Callable[[Any], Any]) -> None:
        self._find = find
        self._redact = redact

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/v1/secrets/{name:path}/rotate", self._rotate, methods=["POST"]),
            Route("/v1/tenancy/plan", self._plan, methods=["POST"]),
            Route("/v1/tenancy/apply", self._apply, methods=["POST"]),
            Route("/v1/tenancy/verify", self._verify, methods=["POST"]),
        ]

    def _asked(self) -> Keeping:
        if (found := self._find()) is None:
            raise HTTPException(409, "cannot do that yet: the supervisor still boots; see `supervisor status`")
        return found

    async def _rotate(self, request: HttpRequest) -> Response:
        outcome = await self._asked().rotate(request.path_params["name"])
        return JSONResponse(self._redact(outcome.as_dict()), 200 if outcome.ok else 409)

    async def _plan(self, request: HttpRequest) -> Response:
        return await self._answer(self._asked().plan(**_flags(request)))

    async def _apply(self, request: HttpRequest) -> Response:
        return await self._answer(self._asked().apply(**_flags(request)))

    async def _verify(self, request: HttpRequest) -> Response:
        return await self._answer(self._asked().verify())

    async def _answer(self, work: Awaitable[dict[str, Any]]) -> Response:
        try:
            return JSONResponse(self._redact(await work))
        except SupervisorError as error:
            raise HTTPException(409, self._redact(str(error))) from error


def _flags(request: HttpRequest) -> dict[str, bool]:
    given = request.query_params
    return {name: given.get(name, "0") in ("1", "true") for name in ("hand_over", "confirm")}
