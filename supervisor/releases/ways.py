"""Where a roll back may go to. Pure."""

from __future__ import annotations

from collections.abc import Collection

from supervisor.core.errors import RejectedError
from supervisor.releases.model import BAKED
from supervisor.releases.state import State


def way_back(state: State, present: Collection[str]) -> list[str]:
    """Releases that a roll back may go to, the best first: the one before, then confirmed ones by falling sequence, at
    last the image's own.
    """
    found = [name for name in present if name in state.releases and state.releases[name].confirmed]
    found.sort(key=lambda name: (name == state.previous, state.releases[name].sequence), reverse=True)
    baked = [BAKED] if state.previous != BAKED else []
    first = [BAKED] if state.previous == BAKED else []
    ways = (*first, *found, *baked)
    return [name for name in ways if name != state.active and not is_given_up(state, name)]


def is_given_up(state: State, release: str) -> bool:
    """Whether its code may not live on the database any more."""
    known = state.releases.get(release)
    return known is not None and bool(known.given_up)


def choose(state: State, present: Collection[str], wanted: str) -> str:
    """The release that a roll back to `wanted` (empty: the best there is) goes to. Raises RejectedError."""
    if is_given_up(state, wanted):
        raise RejectedError(f"there is no way back to {wanted!r}: {state.releases[wanted].given_up}")
    possible = way_back(state, present)
    if not wanted and state.trial:
        return state.good
    if not possible or (wanted and wanted not in possible):
        what = f"to {wanted!r}" if wanted else "at all"
        names = ", ".join(possible) or "none"
        raise RejectedError(
            f"there is no way back {what}: it must be a release that was confirmed here and is still kept, and not "
            f"the active one; possible are: {names}"
        )
    release = wanted or possible[0]
    _check_schema(state, release)
    return release


def _check_schema(state: State, release: str) -> None:
    """Code must not meet a database whose shape it does not know: a roll back does not take migrations back."""
    level, lowest = state.schema
    then = state.releases.get(release)
    known, _ = then.schema if then is not None else (0, 0)
    if known < lowest:
        of = f"level {known}" if known else "an unknown level"
        raise RejectedError(
            f"release {release} cannot live on the database as it is: the schema is at level {level}, which needs "
            f"code of level {lowest} or above, and that release is of {of}; apply a newer release "
            f"instead"
        )
