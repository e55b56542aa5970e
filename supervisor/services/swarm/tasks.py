"""What the tasks of a service say about it. Pure.

The list must come from a query with filters: a bare `service=` is ignored by engines, which then give every task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_EARLY_SECONDS = 30.0
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

    `text` says for people what the engine says of it; `exit_code` is that of the newest one that ended, if any, and
    `error` why. `blocked` is why no task can be placed or made at all; waiting does not help then.
    """

    state: TaskState
    task: str = ""
    container: str = ""
    text: str = ""
    error: str = ""
    exit_code: int | None = None
    blocked: str = ""


def view_tasks(tasks: Sequence[Mapping[str, Any]], *, engine_started: datetime | None = None) -> TaskView:
    """Judge the tasks of one service. `engine_started`: rejections soon after it come from networks that are not up
    yet, and pass by themselves."""
    newest_first = sorted(tasks, key=lambda task: (_created(task), str(task.get("ID"))), reverse=True)
    ended = next((task for task in newest_first if _state(task) in _ENDED and not _is_shutdown(task)), None)
    current = next((task for task in newest_first if task.get("DesiredState") in ("running", "ready")), None)
    error, code = _ending(ended)
    if ended is not None and _passes(ended, engine_started):
        error = ""
    if current is None:
        state = TaskState.NONE if ended is None else TaskState.ENDED
        return TaskView(state, error=error, exit_code=code, text=error or "no task yet")
    status = current.get("Status") or {}
    container = str((status.get("ContainerStatus") or {}).get("ContainerID") or "")
    if _state(current) == "running" or (_state(current) == "starting" and container):
        return TaskView(TaskState.UP, str(current["ID"]), container, _text(status), error, code)
    if _state(current) in _COMING:
        blocked = str(status.get("Err") or "") if _state(current) == "pending" else ""
        return TaskView(TaskState.COMING, str(current["ID"]), container, _text(status), error, code, blocked)
    return TaskView(TaskState.ENDED, str(current["ID"]), "", _text(status), error, code)


def _state(task: Mapping[str, Any]) -> str:
    return str((task.get("Status") or {}).get("State", "new"))


def _is_shutdown(task: Mapping[str, Any]) -> bool:
    """Ended because it was told to, not by itself."""
    return _state(task) == "shutdown"


def _created(task: Mapping[str, Any]) -> datetime:
    return moment(str(task.get("CreatedAt", "")))


def moment(text: str) -> datetime:
    """A time of the API, cut to microseconds; the beginning of time where it is none."""
    head, _, rest = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{head}.{rest[:6].ljust(6, '0')}").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _ending(task: Mapping[str, Any] | None) -> tuple[str, int | None]:
    if task is None:
        return "", None
    status = task.get("Status") or {}
    code = (status.get("ContainerStatus") or {}).get("ExitCode")
    return str(status.get("Err") or status.get("Message") or _state(task)), code if isinstance(code, int) else None


def _passes(task: Mapping[str, Any], engine_started: datetime | None) -> bool:
    if engine_started is None or _state(task) != "rejected":
        return False
    return 0 <= (_created(task) - engine_started).total_seconds() < _EARLY_SECONDS


def _text(status: Mapping[str, Any]) -> str:
    parts = [str(status.get("State", "")), str(status.get("Message") or ""), str(status.get("Err") or "")]
    return ": ".join(part for part in parts if part)
