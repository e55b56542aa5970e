"""`supervisor tenancy`: what the apps' places in the stack's Postgres and Redis are, as declared and as they are."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from supervisor.cli.options import AsJson, Socket, client_at
from supervisor.client.control import RefusedError

tenancy = typer.Typer(
    help="The apps' own roles, schemas and users in Postgres and Redis.", no_args_is_help=True, add_completion=False
)

HandOver = Annotated[
    bool, typer.Option("--hand-over", help="Tables made in `public` before become the app's that has `public`.")
]
Confirm = Annotated[bool, typer.Option("--confirm", help="Drop what is no longer declared, data and all.")]


@tenancy.command()
def plan(
    socket: Socket = None,
    hand_over: HandOver = False,
    confirm: Confirm = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print a script for psql, for an administrator to run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what `apply` would do; nothing is changed."""
    found = _asked(f"plan?hand_over={int(hand_over)}&confirm={int(confirm)}", socket)
    if sql:
        print(found["sql"], end="")
    else:
        _show(found, "all is as declared", as_json=as_json)


@tenancy.command()
def apply(
    socket: Socket = None, hand_over: HandOver = False, confirm: Confirm = False, as_json: AsJson = False
) -> None:
    """Make everything as declared, and prove it by logging in as each app. Nothing is dropped without --confirm."""
    found = _asked(f"apply?hand_over={int(hand_over)}&confirm={int(confirm)}", socket)
    _show(found, "all was as declared", as_json=as_json)


@tenancy.command()
def verify(socket: Socket = None, as_json: AsJson = False) -> None:
    """Log in as every app, and try what is declared and what is not. Exits with 1 where a right is not as declared."""
    _show(_asked("verify", socket), "", as_json=as_json)


def _asked(what: str, socket: str | None) -> dict[str, Any]:
    answer = client_at(socket).post(f"/v1/tenancy/{what}")
    if answer.status != 200:
        raise RefusedError(answer)
    return answer.body


def _show(found: dict[str, Any], nothing: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print("\n".join(found["lines"]) or nothing)
