"""The control API's paths about releases: offered, sent, rolled back, confirmed, listed."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from supervisor.core.errors import RejectedError, SupervisorError
from supervisor.core.requests import Outcome

MAX_OFFER_BYTES = 4 * 1024 * 1024
_BLOCK = 1024 * 1024


def takes_body(scope: Scope) -> bool:
    """Whether a request is one of those whose body is read here."""
    path, method = scope["path"], scope["method"]
    return (method == "POST" and path.endswith("/releases")) or (method == "PUT" and "/releases/offers/" in path)


class Releases(Protocol):
    """What may be asked of one app's releases."""

    async def offer(
        self, manifest: bytes | None, signatures: list[bytes], *, allow_downgrade: bool, name: str = ""
    ) -> dict[str, Any]:
        """Verify and admit; gives `offer`, a number for `accept`. Raises RejectedError with every reason.

        Without a manifest it is an archive of the older kind, with this file name.
        """

    async def accept(self, number: str, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        """Take the archive, and bring it into service. Raises RejectedError for an unknown offer."""

    async def roll_back(self, target: str, actor: str) -> Outcome:
        """Back to `target`; empty: the best there is."""

    async def confirm(self) -> Outcome:
        """The release on trial is good."""

    async def contract(self, actor: str, *, give_up: bool) -> Outcome:
        """Apply the contract migrations that are due; `give_up` the ways back that may need what they take away."""

    async def prune(self, keep: int | None) -> list[str]:
        """Delete what need not be kept; with `keep` as many good ones stay."""

    async def listed(self) -> list[dict[str, Any]]:
        """All of them."""

    async def shown(self, release: str) -> dict[str, Any] | None:
        """One of them."""

    async def history(self, *, verify: bool) -> dict[str, Any]:
        """What was done."""


class ReleaseRoutes:
    """`find` gives the releases of an app; None where it has none, or the boot is not so far yet."""

    def __init__(self, find: Callable[[str], Releases | None], redact: Callable[[Any], Any]) -> None:
        self._find = find
        self._redact = redact

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/v1/apps/{name}/releases", self._list, methods=["GET"]),
            Route("/v1/apps/{name}/releases", self._offer, methods=["POST"]),
            Route("/v1/apps/{name}/releases/history", self._history, methods=["GET"]),
            Route("/v1/apps/{name}/releases/rollback", self._roll_back, methods=["POST"]),
            Route("/v1/apps/{name}/releases/confirm", self._confirm, methods=["POST"]),
            Route("/v1/apps/{name}/releases/contract", self._contract, methods=["POST"]),
            Route("/v1/apps/{name}/releases/prune", self._prune, methods=["POST"]),
            Route("/v1/apps/{name}/releases/offers/{number}", self._accept, methods=["PUT"]),
            Route("/v1/apps/{name}/releases/{release}", self._show, methods=["GET"]),
        ]

    def _of(self, request: HttpRequest) -> Releases:
        name = request.path_params["name"]
        found = self._find(name)
        if found is None:
            raise HTTPException(409, f"cannot reach the releases of {name!r}: there is no such app, or it still boots")
        return found

    async def _list(self, request: HttpRequest) -> Response:
        return JSONResponse(self._redact({"releases": await self._of(request).listed()}))

    async def _show(self, request: HttpRequest) -> Response:
        release = request.path_params["release"]
        found = await self._asked(self._of(request).shown(release))
        if found is None:
            raise HTTPException(404, f"cannot show release {release!r}: there is none; see `supervisor release list`")
        return JSONResponse(self._redact(found))

    async def _history(self, request: HttpRequest) -> Response:
        verify = request.query_params.get("verify", "0") in ("1", "true")
        return JSONResponse(self._redact(await self._of(request).history(verify=verify)))

    async def _offer(self, request: HttpRequest) -> Response:
        releases = self._of(request)
        values = await _json(request)
        try:
            text = values["manifest"]
            manifest = None if text is None else base64.b64decode(text, validate=True)
            signatures = [base64.b64decode(each, validate=True) for each in values.get("signatures", [])]
        except (KeyError, TypeError, binascii.Error) as error:
            raise HTTPException(
                400, f"cannot read the offer: {error}; send `manifest` and `signatures` in base64"
            ) from None
        try:
            return JSONResponse(
                await releases.offer(
                    manifest,
                    signatures,
                    allow_downgrade=bool(values.get("allow_downgrade")),
                    name=str(values.get("name", "")),
                )
            )
        except RejectedError as error:
            return JSONResponse(self._redact({"result": "rejected", "reason": str(error)}), 409)

    async def _accept(self, request: HttpRequest) -> Response:
        number = request.path_params["number"]
        return self._answer(await self._asked(self._of(request).accept(number, _blocks(request), _actor(request))))

    async def _roll_back(self, request: HttpRequest) -> Response:
        target = request.query_params.get("to", "")
        return self._answer(await self._asked(self._of(request).roll_back(target, _actor(request))))

    async def _confirm(self, request: HttpRequest) -> Response:
        return self._answer(await self._asked(self._of(request).confirm()))

    async def _contract(self, request: HttpRequest) -> Response:
        give_up = request.query_params.get("give_up", "0") in ("1", "true")
        return self._answer(await self._asked(self._of(request).contract(_actor(request), give_up=give_up)))

    async def _prune(self, request: HttpRequest) -> Response:
        text = request.query_params.get("keep")
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 4):
            raise HTTPException(400, f"cannot keep {text!r} releases: give a number, 0 to 9999")
        return JSONResponse(
            {"deleted": await self._asked(self._of(request).prune(None if text is None else int(text)))}
        )

    async def _asked(self, work: Any) -> Any:
        try:
            return await work
        except SupervisorError as error:
            raise HTTPException(409, str(error)) from error

    def _answer(self, outcome: Outcome) -> Response:
        return JSONResponse(self._redact(outcome.as_dict()), 200 if outcome.ok else 409)


def _actor(request: HttpRequest) -> str:
    return f"api {request.client.host}" if request.client else "api"


async def _json(request: HttpRequest) -> dict[str, Any]:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_OFFER_BYTES:
            raise HTTPException(413, f"cannot read the offer: it has more than {MAX_OFFER_BYTES} bytes")
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"cannot read the offer: it is no JSON ({error})") from None
    if not isinstance(values, dict):
        raise HTTPException(400, "cannot read the offer: it is no JSON object")
    return values


async def _blocks(request: HttpRequest) -> AsyncIterator[bytes]:
    """What is sent, in blocks of about 1 MiB. Raises RejectedError where the sender goes away."""
    gathered = bytearray()
    try:
        async for block in request.stream():
            gathered += block
            if len(gathered) >= _BLOCK:
                yield bytes(gathered)
                gathered.clear()
    except ClientDisconnect:
        raise RejectedError("the archive was cut off: its sender went away; send it again") from None
    if gathered:
        yield bytes(gathered)
