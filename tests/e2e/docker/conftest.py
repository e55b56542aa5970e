"""Stacks for tests, gone with them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import pytest

from tests.e2e.docker.echo import EchoStack
from tests.e2e.docker.several.stack import SeveralStack
from tests.e2e.docker.stack import BACK_SECONDS, Back, Kind, Stack
from tests.engine_rig.engine import Engine, Share

pytest.register_assert_rewrite("tests.e2e.docker.documented", "tests.e2e.docker.releases")

MakeStack = Callable[..., Stack]
Measured = Callable[[Back], None]
AnyStack = TypeVar("AnyStack", bound=Stack)
_ENVIRON = {"SUPERVISOR_BAKE_SECONDS": "0.3"}  # each reload would take the usual 5 s more


@pytest.fixture
def make_stack(docker: Share) -> Iterator[MakeStack]:
    """Makes stacks that are ended with the test."""
    made: list[Stack] = []

    def make_one(kind: Kind, **fields: Any) -> Stack:
        made.append(Stack(docker, kind, **fields).prepare())
        return made[-1]

    yield make_one
    for stack in reversed(made):
        stack.end()


class Keeper(Generic[AnyStack]):
    """Has one stack by the documented line, for all tests of a class."""

    def __init__(self, engine: Engine, make: type[AnyStack], **environ: str) -> None:
        self._engine = engine
        self._make = make
        self._environ = {**_ENVIRON, **environ}
        self._stack: AnyStack | None = None

    def whole(self, kind: Kind) -> AnyStack:
        """The stack, running; made anew where a failed test left it broken."""
        if self._stack is not None and not self._stack.is_whole:
            self.end()
        if self._stack is None:
            share = Share(self._engine, f"t{uuid.uuid4().hex[:8]}")
            self._stack = self._make(share, kind, documented=True, environ=dict(self._environ))
            self._stack.boot()
        return self._stack

    def end(self) -> None:
        """Remove it with all that is its own."""
        if self._stack is not None:
            self._stack.end()
            self._stack.share.remove()
            self._stack = None


def _kept(engine: Engine, make: type[AnyStack]) -> Iterator[Keeper[AnyStack]]:
    made = Keeper(engine, make)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="class")
def keeper(engine: Engine) -> Iterator[Keeper[Stack]]:
    yield from _kept(engine, Stack)


@pytest.fixture(scope="class")
def echo_keeper(engine: Engine) -> Iterator[Keeper[EchoStack]]:
    yield from _kept(engine, EchoStack)


@pytest.fixture(scope="class")
def several_keeper(engine: Engine) -> Iterator[Keeper[SeveralStack]]:
    yield from _kept(engine, SeveralStack)


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Record how long it took; it must be within what is allowed."""

    def record(back: Back) -> None:
        record_property("back", f"{back.served_seconds:6.2f} s {back.running_seconds:6.2f} s")
        assert back.running_seconds < BACK_SECONDS

    return record
