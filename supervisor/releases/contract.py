"""Contract migrations: what the code before would not live on, applied once no way back needs it any more."""

from __future__ import annotations

from collections.abc import Collection

from supervisor.core.errors import RejectedError, StoppingError, SupervisorError
from supervisor.releases.journal import Journal
from supervisor.releases.model import BAKED
from supervisor.releases.records import Records
from supervisor.releases.state import State, given_up
from supervisor.releases.steps import Contracts
from supervisor.releases.ways import way_back


def in_need(state: State, present: Collection[str]) -> list[str]:
    """Releases that a roll back may go to, and whose code may need the database in its older shape.

    That is code made for a lower level than the active release's, and all that does not say which it was made for.
    """
    active = state.releases.get(state.active)
    level = active.schema[0] if active is not None else 0

    def lives_on(release: str) -> bool:
        known = state.releases.get(release)
        return level > 0 and known is not None and known.schema[0] >= level

    return [release for release in way_back(state, present) if not lives_on(release)]


def check(state: State, present: Collection[str], *, give_up: bool) -> list[str]:
    """The releases that are given up by it. Raises RejectedError where that is not wanted, or not the time."""
    if state.trial:
        raise RejectedError(
            f"contract migrations are not applied: release {state.active} is still on trial, and the one before it "
            f"needs the database as it is; wait for the end of the trial, or `supervisor release confirm`"
        )
    releases = in_need(state, present)
    if releases and not give_up:
        baked = " (`baked` is the image's own)" if BAKED in releases else ""
        raise RejectedError(
            f"contract migrations are not applied: a roll back may go to {', '.join(releases)}{baked}, whose code may "
            f"need the database as it is: it was made for an older schema.level, or says none; keep fewer "
            f"(SUPERVISOR_RELEASE_KEEP) and `supervisor release prune`, or give them up with `supervisor release "
            f"contract --give-up-way-back`"
        )
    return releases


async def contract(records: Records, journal: Journal, contracts: Contracts, releases: Collection[str]) -> None:
    """Apply what is due; `releases` can be rolled back to no more, whatever becomes of it: part of it may be applied.

    Raises RejectedError with what failed. Cancelling, and StoppingError, leave the end to the next start.
    """
    await records.mark(journal)
    if releases:
        why = f"contract migrations of {records.now()} took away what its code may need"
        await records.change(given_up(records.state, releases, why))
    try:
        applied = await contracts.apply()
    except StoppingError:
        raise
    except SupervisorError as error:
        await records.end(journal, "rejected", str(error))
        raise RejectedError(f"contract migrations are not applied: {error}") from error
    told = f"applied {', '.join(applied)}" if applied else "nothing was left to apply"
    await records.end(journal, "ok", f"{told}; given up: {', '.join(releases)}" if releases else told)
