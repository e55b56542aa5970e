"""Options that several commands have, and how an outcome ends one."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, NoReturn

import typer

from supervisor.client import render
from supervisor.client.control import Answer, ControlClient, RefusedError, find
from supervisor.core.errors import ExitCode

Socket = Annotated[
    str | None, typer.Option("--socket", metavar="PATH", help="Control socket; default: SUPERVISOR_SOCKET, or found.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client_at(given: str | None) -> ControlClient:
    """Raises UnreachableError. The one read of the environment here: a client has no settings to load."""
    return find(os.environ, given)


def got(client: ControlClient, resource: str) -> dict[str, Any]:
    """Raises RefusedError."""
    answer = client.get(resource)
    if answer.status != 200:
        raise RefusedError(answer)
    return answer.body


def end_with(asked: str, answer: Answer, *, as_json: bool) -> NoReturn:
    """Print the outcome of what was asked for, and exit with its code."""
    if "error" in answer.body:
        raise RefusedError(answer)
    if as_json:
        print(json.dumps(answer.body, ensure_ascii=False))
    elif answer.status == 202:
        print(f"{asked}: accepted; follow it with `supervisor events -f`")
    else:
        good = answer.status == 200
        render.console(stderr=not good).print(render.outcome(asked, answer.body))
    raise typer.Exit(ExitCode.OK if answer.status in (200, 202) else ExitCode.REJECTED)
