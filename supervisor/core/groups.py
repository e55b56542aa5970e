"""Errors out of task groups: one of ours leaves a group as itself, so that callers can name what they catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.core.errors import SupervisorError


def first_of_ours(group: BaseExceptionGroup[BaseException]) -> SupervisorError | None:
    """The first of our errors in a group, however deep; None where another kind of error is in it too."""
    found: SupervisorError | None = None
    for error in group.exceptions:
        inner = first_of_ours(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, SupervisorError):
            return None
        found = found or inner
    return found


@contextmanager
def plain_errors() -> Iterator[None]:
    """Around a task group: raises our error itself instead of the group that holds it; anything else stays as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = first_of_ours(group)
        if ours is None:
            raise
        raise ours from group
