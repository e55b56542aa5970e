"""`supervisor down`: takes the stack off the engine it runs on. Needs no supervisor, and refuses beside a live one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from supervisor.client.control import find
from supervisor.commands.env import sources
from supervisor.commands.load_settings import load
from supervisor.core.errors import ExitCode, RejectedError, SupervisorError, UnreachableError
from supervisor.core.mode import Mode
from supervisor.engine.client import Engine
from supervisor.engine.connect import endpoint_of
from supervisor.engine.decision import Decision, Wait
from supervisor.engine.facts import Facts
from supervisor.engine.mode import decide
from supervisor.engine.reader import FactReader
from supervisor.services.ownership.lease import LIVE_SECONDS
from supervisor.services.ownership.removal import Removal, RemovalPlan, Thing, live_lease, plan_removal, things_of
from supervisor.state import Paths
from supervisor.store.records import read_install

_USAGE = """usage: supervisor down [--volumes --confirm]

Removes what this stack has on the engine: its services, container, secrets, configs and network. The data stays in
its volumes, and the state folder stays as it is: a run brings all of it up again.

  --volumes  remove the volumes too, with the data in them; needs --confirm, and without it only lists what would go
  --confirm  yes, the data is to be deleted
"""
_ACCEPTED: tuple[frozenset[str], ...] = (frozenset(), frozenset({"--volumes"}), frozenset({"--volumes", "--confirm"}))


@dataclass(frozen=True)
class _Wish:
    """What was asked for; `volumes` without `confirmed` is a question."""

    volumes: bool
    confirmed: bool


@dataclass(frozen=True)
class _Stack:
    """Whose things are meant. Without an `install` there was no state folder to read it from."""

    name: str
    install: str
    paths: Paths


def main(argv: Sequence[str]) -> int:
    """Remove, or list; gives the exit code."""
    if list(argv) in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return int(ExitCode.OK)
    if frozenset(argv) not in _ACCEPTED or len(argv) != len(frozenset(argv)):
        sys.stderr.write(_USAGE)
        return int(ExitCode.USAGE)
    try:
        return anyio.run(_down, os.environ, _Wish("--volumes" in argv, "--confirm" in argv))
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)


async def _down(environ: Mapping[str, str], wish: _Wish) -> int:
    settings = load({}, environ=environ).settings
    paths = Paths.of(settings, dict(environ))
    install = read_install(paths.state)
    stack = _Stack(settings.stack, install.owner if install is not None else "", paths)
    refuse_beside_a_supervisor(stack.paths)
    decision = usable(_decided(await FactReader(sources(environ)).read()), stack.paths)
    assert decision.endpoint is not None
    engine = Engine(endpoint_of(decision.endpoint))
    try:
        return await _remove(engine, stack, wish, us=decision.own_container)
    finally:
        engine.close()


def refuse_beside_a_supervisor(paths: Paths) -> None:
    """Raises RejectedError where one answers: what is removed under it, it makes anew."""
    with suppress(UnreachableError):
        find({}, str(paths.socket))
        raise RejectedError(
            f"cannot remove the stack: its supervisor runs and answers on {str(paths.socket)!r}; stop it first "
            f"(`docker stop` for its container), then run this beside it: "
            f"`docker run --rm -v /var/run/docker.sock:/var/run/docker.sock IMAGE supervisor down`"
        )


def _decided(facts: Facts) -> Decision:
    """Once: where a run would wait for an engine, a person is told at once."""
    outcome = decide(facts)
    if isinstance(outcome, Wait):
        raise outcome.error
    return outcome


def usable(decision: Decision, paths: Paths) -> Decision:
    """The decision, where it names an engine that serves. Raises RejectedError with what to do instead."""
    if decision.mode in (Mode.EMBEDDED, Mode.NONE):
        raise RejectedError(
            f"cannot remove the stack from an engine: mode {decision.mode} uses none ({decision.reason}); "
            f"services stop with their supervisor, and their data is in {str(paths.state)!r}"
        )
    if decision.start_engine:
        raise RejectedError(
            "cannot remove the stack from an engine: in mode dind that engine is inside the supervisor's own container "
            "and ends with it; remove the container (`docker rm --volumes CONTAINER`) and, to delete the data, the "
            "volumes that were mounted at /var/lib/docker and /var/lib/supervisor (`docker volume rm`); if you meant "
            "the host's engine, mount its socket: -v /var/run/docker.sock:/var/run/docker.sock"
        )
    return decision


async def _remove(engine: Engine, stack: _Stack, wish: _Wish, *, us: str) -> int:
    if holder := await live_lease(engine, stack.name, us=us):
        raise RejectedError(
            f"cannot remove stack {stack.name!r}: {holder} runs it; stop that one (after a crash wait "
            f"{LIVE_SECONDS:g} s), then run this again"
        )
    plan = plan_removal(await things_of(engine, stack.name), stack.install, volumes=wish.volumes)
    _introduce(stack, plan)
    if plan.remove and wish.volumes and not wish.confirmed:
        return _only_list(plan)
    await Removal(engine, stack.name, tell=_say).run(plan)
    _conclude(plan)
    return int(ExitCode.OK)


def _introduce(stack: _Stack, plan: RemovalPlan) -> None:
    if not stack.install and plan.remove:
        _say(
            f"there is no install in {stack.paths.state}: going by the label of stack {stack.name!r} alone, "
            f"made by {_installs(plan.remove)}"
        )


def _only_list(plan: RemovalPlan) -> int:
    for thing in plan.remove:
        _say(f"would remove {thing}")
    print(
        "supervisor: nothing was removed: --volumes deletes the data in the volumes for good; "
        "give --confirm too, or leave --volumes out to keep the data",
        file=sys.stderr,
    )
    return int(ExitCode.USAGE)


def _conclude(plan: RemovalPlan) -> None:
    if not plan.remove:
        _say("there is nothing left to remove")
    for thing in plan.keep:
        _say(f"kept {thing}: --volumes --confirm removes it with its data")
    for thing in plan.others:
        _say(f"left {thing}: it belongs to {_installs([thing])}")
    if plan.others:
        _say("to remove those, run this where their state folder is, or without one: then the stack's name decides")


def _installs(things: Sequence[Thing]) -> str:
    return ", ".join(sorted({f"install {thing.install}" if thing.install else "nobody" for thing in things}))


def _say(line: str) -> None:
    print(line, flush=True)
