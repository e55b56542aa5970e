"""Which releases are kept. Pure."""

from __future__ import annotations

from collections.abc import Collection

from supervisor.releases.state import State

KEEP = 5
_KEPT_FAILED = 1


def surplus(state: State, present: Collection[str], *, live: Collection[str] = (), keep: int = KEEP) -> list[str]:
    """Those of `present` to delete, in the order of their names.

    Kept are what is active, good or the way back, what a generation runs from (`live`), the `keep` confirmed ones with
    the highest sequences, and the last failed one, to be looked at. Failed ones never count as kept.
    """
    needed = {state.active, state.good, state.previous, *live}
    known = [(state.releases[name], name) for name in present if name in state.releases]
    good = sorted((each for each in known if each[0].confirmed), key=lambda each: each[0].sequence, reverse=True)
    bad = sorted((each for each in known if each[0].failed), key=lambda each: each[0].at, reverse=True)
    needed |= {name for _, name in good[:keep]} | {name for _, name in bad[:_KEPT_FAILED]}
    return sorted(set(present) - needed)
