"""Preflight facts about the front: which kind an app would get, and what that kind promises."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from supervisor.app.front.choice import choose_front
from supervisor.app.front.haproxy.binary import find_haproxy
from supervisor.app.front.model import PROMISES
from supervisor.commands.fact import Fact
from supervisor.core.errors import SupervisorError
from supervisor.core.settings import Settings


def examine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Fact]:
    """The kind first, then its promises row by row."""
    try:
        binary = find_haproxy(settings.haproxy_binary, environ.get("PATH", os.defpath))
        choice = choose_front(settings.front, binary)
    except SupervisorError as error:
        found, _, mend = str(error).partition("; ")
        yield Fact.failed("front", found, mend)
        return
    if choice.lossy:
        lost, _, mend = choice.lossy.partition("; ")
        yield Fact.warning("front", f"{choice.kind.value}, as {choice.reason}: {lost}", mend)
    else:
        yield Fact.ok("front", f"{choice.kind.value}, as {choice.reason}")
    for row, promise in PROMISES[choice.kind].items():
        yield Fact.note(f"front: {row}", promise)
