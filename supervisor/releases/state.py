"""Which release is active, which is good: the one truth about releases, and how it may change."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from supervisor.releases.layout import Layout
from supervisor.releases.model import BAKED, ReleaseError, is_release_id
from supervisor.store.files import keep_copy, point_link, sync_folder, write_atomic
from supervisor.store.formats import RELEASES

ATTEMPTS = 2
"""How often a release on trial may be started before the good one is."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is remembered of a release. `sequence` is 0 for the image's own unless it says one.

    `digest` is the SHA-256 (hex) of its manifest, `key` the id of the key that signed it (empty: nobody did), `at` when
    it was confirmed, or failed, in UTC; `schema` is (level, lowest level of code that can live on it). `given_up` is
    why no roll back goes there any more, empty where one may.
    """

    sequence: int = 0
    version: str = ""
    digest: str = ""
    key: str = ""
    confirmed: bool = False
    failed: str = ""
    at: str = ""
    schema: tuple[int, int] = (0, 0)
    given_up: str = ""


@dataclass(frozen=True, kw_only=True)
class State:
    """`active` serves, or is to; `good` is the last that was confirmed: while `trial` holds they differ.

    `attempts` counts the starts that a trial has left; `previous` is where a roll back goes, empty without one.
    `schema` is the highest that the database was ever brought to, as in `Known`: it stays there when the release that
    did it is forgotten.
    """

    active: str = BAKED
    good: str = BAKED
    previous: str = ""
    trial: bool = False
    attempts: int = 0
    schema: tuple[int, int] = (0, 0)
    releases: Mapping[str, Known] = field(default_factory=dict)

    def with_known(self, release: str, known: Known) -> State:
        """`release` is remembered so."""
        return replace(self, releases={**self.releases, release: known})

    def with_schema(self, schema: tuple[int, int]) -> State:
        """The database was brought there; it does not come back from where it was."""
        return replace(self, schema=max(self.schema, schema))

    def with_image(self, schema: tuple[int, int]) -> State:
        """What the image says of its own app now; the database is there where that one serves."""
        known = self.releases.get(BAKED) or Known(confirmed=True)
        state = self if known.schema == schema else self.with_known(BAKED, replace(known, schema=schema))
        return state.with_schema(schema) if self.active == BAKED else state


def newest_first(state: State) -> list[str]:
    """All releases that are remembered, by falling sequence."""
    return sorted(state.releases, key=lambda name: state.releases[name].sequence, reverse=True)


def activated(state: State, release: str, known: Known) -> State:
    """Commit 1: `release` is on trial, and the good one stays what it was."""
    if state.trial:
        raise ReleaseError(
            f"cannot try release {release!r}: {state.active!r} is still on trial; wait for it, or roll it back"
        )
    state = state.with_known(release, known).with_schema(known.schema)
    return replace(state, active=release, trial=True, attempts=ATTEMPTS)


def confirmed(state: State, at: str) -> State:
    """Commit 2: the release on trial is good; the one before it is where a roll back goes."""
    if not state.trial:
        return state
    known = replace(state.releases[state.active], confirmed=True, failed="", at=at)
    previous = state.good if state.good != state.active else state.previous
    done = replace(state, good=state.active, previous=previous, trial=False, attempts=0)
    return done.with_known(state.active, known)


def fallen_back(state: State, reason: str, at: str) -> State:
    """The release on trial did not hold: the good one is active again."""
    if not state.trial:
        return state
    known = replace(state.releases[state.active], failed=reason, at=at)
    back = replace(state, active=state.good, trial=False, attempts=0)
    return back.with_known(state.active, known) if state.active != state.good else back


def rolled_back(state: State, target: str) -> State:
    """`target`, which was good before, is active and good at once; it can be left for what was active."""
    before = state.good if state.good != target else state.previous
    return replace(state, active=target, good=target, previous=before, trial=False, attempts=0)


def image_used(state: State) -> State:
    """The app of a new image is active; what was known of the one before it does not hold of it."""
    releases = {name: known for name, known in state.releases.items() if name != BAKED}
    return rolled_back(replace(state, releases=releases), BAKED)


def given_up(state: State, releases: Collection[str], why: str) -> State:
    """No roll back goes to `releases` any more."""
    for release in releases:
        known = state.releases.get(release) or Known(confirmed=release == BAKED)
        state = state.with_known(release, replace(known, given_up=why))
    return replace(state, previous="") if state.previous in releases else state


def started(state: State) -> State:
    """One start of a trial is used up; the good one is active once there is none left."""
    if not state.trial:
        return state
    return replace(state, attempts=state.attempts - 1)


class StateFile:
    """`state.json`, with the one before it as `state.json.1`. Methods block for some milliseconds (fsync)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def read(self) -> tuple[State, str]:
        """The state, and what to tell where it is not the last one. A place without any is new: the image's app serves.

        Raises ReleaseError where there was one and no copy of it can be read, and NewerFormat where a newer version
        wrote it: the copy is of before that, and what it calls good may be so no more.
        """
        mistakes: list[str] = []
        for place in (self._layout.state, self._layout.state_before):
            try:
                return parse(place.read_text(encoding="utf-8"), place), "; ".join(mistakes)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                mistakes.append(f"cannot read {str(place)!r}: {error}")
        if mistakes:
            raise ReleaseError(f"{'; '.join(mistakes)}; restore one of them from a backup")
        return State(), ""

    def write(self, state: State) -> None:
        """Durable once it returns. Raises OSError, with the old state still in force."""
        keep_copy(self._layout.state, self._layout.state_before)
        write_atomic(self._layout.state, render(state))


def render(state: State) -> str:
    """The text of the record."""
    return RELEASES.text(asdict(state), sort_keys=True)


def parse(text: str | bytes, place: object = "state.json") -> State:
    """From the record's text. Raises ValueError, saying what is wrong, and NewerFormat naming `place`.

    A key that it does not know is refused: all of them together decide what is started.
    """
    try:
        values, _ = RELEASES.read(text, place)
        releases = {str(name): _known(each) for name, each in values.pop("releases").items()}
        state = State(releases=releases, schema=_schema(values.pop("schema")), **values)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it lacks or has what it should not: {error}") from None
    _check(state)
    return state


def _known(values: dict[str, Any]) -> Known:
    return Known(schema=_schema(values.pop("schema")), **values)


def _schema(value: Sequence[Any]) -> tuple[int, int]:
    level, lowest = value
    return int(level), int(lowest)


def _check(state: State) -> None:
    names = [state.active, state.good, *([state.previous] if state.previous else []), *state.releases]
    for name in names:
        if not isinstance(name, str) or (name != BAKED and not is_release_id(name)):
            raise ValueError(f"{name!r} is no id of a release")
    if not isinstance(state.trial, bool) or not isinstance(state.attempts, int):
        raise ValueError("trial or attempts are not what they should be")
    if state.trial and state.active not in state.releases:
        raise ValueError(f"{state.active!r} is on trial, and nothing is known of it")


def link_targets(state: State) -> dict[str, str]:
    """What the links `current` and `previous` name: a release's id; empty for the image's own, or none."""
    return {
        "current": "" if state.active == BAKED else state.active,
        "previous": "" if state.previous in ("", BAKED) else state.previous,
    }


def repair_links(layout: Layout, state: State) -> None:
    """Make the links say what the state says; each in one step. Blocks; raises OSError."""
    for name, release in link_targets(state).items():
        place = layout.root / name
        wanted = f"{layout.kept.name}/{release}" if release else ""
        if wanted and os.path.lexists(place) and place.is_symlink() and os.readlink(place) == wanted:
            continue
        if wanted:
            point_link(place, wanted)
        elif place.is_symlink():
            place.unlink()
    sync_folder(layout.root)
