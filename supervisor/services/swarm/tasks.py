"""What the tasks of a service say about it. Pure.

The list must come from a query with filters: a bare `service=` is ignored by engines, which then give every task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import takewhile
from typing import Any

_EARLY_SECONDS = 30.0
_NETWORK = re.compile(r"swarm is not active|predefined swarm network|network sandbox|network \S+ not found")
_COMING = frozenset({"new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting"})
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})


class TaskState(StrEnum):
    """Where the one task of a service is."""

    NONE = "none"
    COMING = "coming"
    UP = "up"
    ENDED = "ended"


@dataclass(frozen=True)
class TaskView:
    """The task that counts: the newest of the wanted ones. `container` is empty until there is one.

    `text` says for people what the engine says of it; `exit_code` and `ended_container` are those of the newest one
    that ended, if any, and `error` why. `blocked` is why no task can be placed or made at all; waiting does not help.
    `refused` counts the newest tasks in a row that the node did not even try.
    """

    state: TaskState
    task: str = ""
    container: str = ""
    text: str = ""
    error: str = ""
    exit_code: int | None = None
    blocked: str = ""
    ended_container: str = ""
    refused: int = 0


def view_tasks(tasks: Sequence[Mapping[str, Any]], *, engine_started: datetime | None = None) -> TaskView:
    """Judge the tasks of one service. `engine_started`: rejections soon after it come from networks that are not up
    yet, and pass by themselves."""
    newest_first = sorted(tasks, key=lambda task: (_created(task), str(task.get("ID"))), reverse=True)
    ended = [task for task in newest_first if _state(task) in _ENDED]
    failed = next((task for task in ended if _state(task) != "shutdown"), None)  # a shutdown was asked for
    current = next((task for task in newest_first if task.get("DesiredState") in ("running", "ready")), None)
    error = _why(failed) if failed is not None and not _passes(failed, engine_started) else ""
    if current is not None:
        view = _view_current(current)
        refused = _refused(newest_first, engine_started) if view.state is not TaskState.UP else 0
        return replace(view, error=error, exit_code=_code(failed), ended_container=_container(failed), refused=refused)
    last = ended[0] if ended else None
    state = TaskState.NONE if last is None else TaskState.ENDED
    text = error or "no task yet"
    return TaskView(state, error=error, exit_code=_code(last), text=text, ended_container=_container(last))


def _view_current(task: Mapping[str, Any]) -> TaskView:
    status = task.get("Status") or {}
    name, container, text = str(task["ID"]), _container(task), _text(status)
    if _state(task) == "running" or (_state(task) == "starting" and container):
        return TaskView(TaskState.UP, name, container, text)
    if _state(task) in _COMING:
        blocked = str(status.get("Err") or "") if _state(task) == "pending" else ""
        return TaskView(TaskState.COMING, name, container, text, blocked=blocked)
    return TaskView(TaskState.ENDED, name, "", text)


def _refused(newest_first: Sequence[Mapping[str, Any]], engine_started: datetime | None) -> int:
    """In a row, leaving out what is on its way."""
    ended = [task for task in newest_first if _state(task) in _ENDED]
    rejected = takewhile(lambda task: _state(task) == "rejected", ended)
    return sum(not _passes(task, engine_started) for task in rejected)


def _container(task: Mapping[str, Any] | None) -> str:
    status = (task or {}).get("Status") or {}
    return str((status.get("ContainerStatus") or {}).get("ContainerID") or "")


def _state(task: Mapping[str, Any]) -> str:
    return str((task.get("Status") or {}).get("State", "new"))


def _created(task: Mapping[str, Any]) -> datetime:
    return moment(str(task.get("CreatedAt", "")))


def moment(text: str) -> datetime:
    """A time of the API, cut to microseconds; the beginning of time where it is none."""
    head, _, rest = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{head}.{rest[:6].ljust(6, '0')}").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _why(task: Mapping[str, Any]) -> str:
    status = task.get("Status") or {}
    return str(status.get("Err") or status.get("Message") or _state(task))


def _code(task: Mapping[str, Any] | None) -> int | None:
    status = (task or {}).get("Status") or {}
    code = (status.get("ContainerStatus") or {}).get("ExitCode")
    return code if isinstance(code, int) else None


def _passes(task: Mapping[str, Any], engine_started: datetime | None) -> bool:
    """A rejection that comes right by itself: the engine has just started, or its networks are not up yet."""
    if _state(task) != "rejected":
        return False
    if _NETWORK.search(_why(task)):
        return True
    if engine_started is None:
        return False
    return 0 <= (_created(task) - engine_started).total_seconds() < _EARLY_SECONDS


def _text(status: Mapping[str, Any]) -> str:
    parts = [str(status.get("State", "")), str(status.get("Message") or ""), str(status.get("Err") or "")]
    return ": ".join(part for part in parts if part)
