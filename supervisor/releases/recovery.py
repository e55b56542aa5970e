"""What a boot finds and does about it: a transaction that was cut short is finished or undone, and never half of it.

`decide` is pure; `recover` reads, does it, and blocks for as long as the disk takes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.releases.history import History
from supervisor.releases.journal import Action, Journal, JournalFile, Mark
from supervisor.releases.layout import Layout
from supervisor.releases.model import BAKED
from supervisor.releases.records import history_line
from supervisor.releases.reserve import with_reserve
from supervisor.releases.snapshots import rescue, stale
from supervisor.releases.state import State, StateFile, fallen_back, image_used, repair_links, rolled_back, started
from supervisor.store.files import drop_half_written, sync_folder

SEALED = frozenset({Mark.STAGED, Mark.SNAPSHOT, Mark.EXPANDED, Mark.TRYING})
"""Marks from which on the tree lies whole in its place."""
MIGRATED = frozenset({Mark.EXPANDED, Mark.TRYING})
"""Marks from which on the database is of the release's shape."""
_FINISHED = "finished at the start, after it had been cut short"


@dataclass(frozen=True)
class Decision:
    """`state` is the one to go on with; `outcome` and `reason` end the journal's transaction (empty: it goes on).

    `told` are sentences for the log, `keep` are trees that the state does not know and that stay all the same.
    """

    state: State
    outcome: str = ""
    reason: str = ""
    told: tuple[str, ...] = ()
    keep: frozenset[str] = frozenset()


def decide(state: State, journal: Journal | None, present: Collection[str], *, at: str) -> Decision:
    """From what was written down and which trees are there. `at` is now, in UTC."""
    decision = _transaction(state, journal, present)
    decision = _trial(decision, journal, at)
    return _missing(decision, present, at)


def _transaction(state: State, journal: Journal | None, present: Collection[str]) -> Decision:
    if journal is None:
        return Decision(state)
    if journal.action is Action.CONTRACT:
        why = "the supervisor ended within it; what of it was applied the database knows, and it can be done again"
        return Decision(state, "aborted", why, (f"contract migrations were cut short: {why}",))
    if journal.mark is Mark.ROLLING_BACK:
        if journal.action is Action.IMAGE:
            return Decision(image_used(state), "ok", _FINISHED)
        done = state if state.good == journal.release and not state.trial else rolled_back(state, journal.release)
        return Decision(done, "ok", _FINISHED)
    if journal.mark in MIGRATED:
        state = state.with_schema(journal.schema)
    if state.active == journal.release:
        return Decision(state) if state.trial else Decision(state, "ok", "its end was written down at the start")
    keep = frozenset({journal.release} & set(present) if journal.mark in SEALED else ())
    known = state.releases.get(journal.release)
    if known is not None and known.failed:
        return Decision(state, "rolled_back", known.failed, keep=keep)
    what = f"{journal.action} of {journal.release or 'a release'}"
    return Decision(
        state,
        "aborted",
        f"the supervisor ended within it (it was {journal.mark})",
        (f"{what} was cut short when the supervisor ended; it is undone, apply it again",),
        keep,
    )


def _trial(decision: Decision, journal: Journal | None, at: str) -> Decision:
    """A trial costs one attempt a start."""
    state = decision.state
    if not state.trial:
        return decision
    if state.attempts > 0:
        told = f"release {state.active} is on trial, start with {state.attempts} attempts left"
        return replace(decision, state=started(state), told=(*decision.told, told))
    reason = "it was started as often as a release on trial may be, and never confirmed"
    told = f"release {state.active} is rolled back to {state.good}: {reason}"
    found = replace(decision, state=fallen_back(state, reason, at), told=(*decision.told, told))
    return found if journal is None else replace(found, outcome="rolled_back", reason=reason)


def _missing(decision: Decision, present: Collection[str], at: str) -> Decision:
    """A tree that is gone cannot be started, whatever the state says."""
    state = decision.state
    if state.active == BAKED or state.active in present:
        return decision
    lost = state.active
    if state.trial and (state.good == BAKED or state.good in present):
        found = fallen_back(state, "its folder is gone", at)
    else:
        found = rolled_back(state, _newest(state, present))
    told = f"the folder of release {lost} is gone: {found.active} is started instead; apply {lost} again"
    return replace(decision, state=found, told=(*decision.told, told))


def _newest(state: State, present: Collection[str]) -> str:
    there = [name for name in present if name in state.releases and state.releases[name].confirmed]
    there = [name for name in there if not state.releases[name].given_up] or there
    return max(there, key=lambda name: state.releases[name].sequence, default=BAKED)


@dataclass(frozen=True)
class Recovered:
    """The state to start with. `told` are sentences for the log; `journal` is that of a trial that goes on."""

    state: State
    told: list[str] = field(default_factory=list)
    journal: Journal | None = None


def recover(layout: Layout, *, at: str) -> Recovered:
    """Bring the folder in order; for the holder of the state lock only, before anything is started.

    May be cut short and done again at any point. Raises ReleaseError where the state cannot be read, OSError.
    """
    return with_reserve(layout, lambda: _recover(layout, at))


def _recover(layout: Layout, at: str) -> Recovered:
    drop_half_written(layout.root)
    states, journals, history = StateFile(layout), JournalFile(layout), History(layout.history)
    state, warning = states.read()
    journal = journals.read()
    torn = history.repair()
    decision = decide(state, journal, present(layout), at=at)
    if decision.state != state:
        states.write(decision.state)
    repair_links(layout, decision.state)
    if journal is not None and decision.outcome:
        _end(layout, journal, decision, at)
        journals.remove()
    _clear(layout, decision)
    told = [*([warning] if warning else []), *decision.told]
    if torn:
        told.append("the last line of the history had been cut short; it is removed")
    return Recovered(decision.state, told, journal if decision.outcome == "" else None)


def _end(layout: Layout, journal: Journal, decision: Decision, at: str) -> None:
    history = History(layout.history)
    if history.has(journal.transaction):
        return
    reason, left = decision.reason, _left(journal, decision.outcome)
    saved = rescue(layout, left) if left else ""
    if saved and str(layout.snapshots) not in reason:
        reason = f"{reason}; {saved}"
    history.append(history_line(journal, decision.outcome, reason, at))


def _left(journal: Journal, outcome: str) -> str:
    """The release that was left with the database that it had migrated, or may have; empty where none was."""
    if journal.action is Action.ROLL_BACK:
        return journal.before if outcome == "ok" else ""
    return journal.release if outcome != "ok" and journal.mark in {Mark.SNAPSHOT, *MIGRATED} else ""


def present(layout: Layout) -> set[str]:
    """The releases whose trees are there."""
    try:
        return {item.name for item in os.scandir(layout.kept) if item.is_dir(follow_symlinks=False)}
    except FileNotFoundError:
        return set()


def _clear(layout: Layout, decision: Decision) -> None:
    """Trees that were never whole with their archives, trees nobody knows, and snapshots that are not theirs or were
    never proved.
    """
    for path in _listed(layout.staging):
        discard(layout, path)
    known = {*decision.state.releases, *decision.keep}
    for name in present(layout) - known:
        discard(layout, layout.tree(name))
    for path in stale(layout, known):
        discard(layout, path)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def discard(layout: Layout, path: Path) -> None:
    """Out of sight in one step; `empty_trash` deletes it.

    A folder of a lower layer of an overlay cannot be renamed (EXDEV): it is deleted where it lies.
    """
    layout.trash.mkdir(mode=0o700, exist_ok=True)
    number = 0
    while True:
        target = layout.trash / f"{path.name}.{number}"
        if not os.path.lexists(target):
            break
        number += 1
    try:
        path.rename(target)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.rmtree(path)


def empty_trash(layout: Layout) -> None:
    """Delete what was discarded. Blocks for as long as that takes; what is left goes next time."""
    found = _listed(layout.trash)
    if not found or not _is_moved(layout):
        return
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_moved(layout: Layout) -> bool:
    """Make the moves into the trash durable: a power cut must not bring back what is deleted in part."""
    for folder in (layout.kept, layout.snapshots):
        try:
            sync_folder(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
