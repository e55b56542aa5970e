"""What to set next, and what an app cannot do without: from its runs alone. Pure.

An app that fails is run again with the variables set that its end blames; where it then comes further, these were
needed. Where that leaves a doubt (several at once, or a guess) each is taken away again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from supervisor.detect.model import Ending, Read, Run
from supervisor.detect.names import dummy, is_runtimes

_MAX_GUESSES = 4
_KEY_ERROR = re.compile(r"^KeyError: '(\w+)'$", re.MULTILINE)
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True)
class Blame:
    """Variables whose absence may have ended a run. `sure`: by itself one alone is the cause where the run goes on."""

    names: tuple[str, ...] = ()
    guessed: bool = False


def blame(run: Run, given: Iterable[str]) -> Blame:
    """Which of the variables that were read and not there ended it; nothing for a run that did not fail."""
    if not run.failed:
        return Blame()
    known = set(given)
    names = _once(read.name for read in run.absent if read.name not in known and not is_runtimes(read.name))
    text = "\n".join(run.output)
    if keys := [name for name in _KEY_ERROR.findall(text) if name in names]:
        return Blame((keys[-1],))
    declared = _once(read.name for read in run.absent if read.declared and read.raised and read.name in names)
    named = tuple(name for name in names if name in declared or _is_named(name, text))
    if named:
        return Blame(named)
    return Blame(tuple(reversed(names))[:1], guessed=True)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _is_named(name: str, text: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text) is not None


def same_end(one: Run, other: Run) -> bool:
    """Whether two runs failed in the same way: status and last words, numbers aside."""
    return one.failed and other.failed and _signature(one) == _signature(other)


def _signature(run: Run) -> tuple[int, tuple[str, ...]]:
    lines = (_CHANGING.sub("0", line) for line in run.output if line.strip())
    return run.status, tuple(lines)


@dataclass(frozen=True)
class Search:
    """Where the search stands. `proved` are needed; `doubtful` are set and may be; `guesses` have not helped yet."""

    proved: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, str]:
        """What the next run is given, beside what the caller gives."""
        return {name: self.values[name] for name in (*self.proved, *self.doubtful, *self.guesses)}

    def without(self, name: str) -> Search:
        """The same with one doubtful variable taken away."""
        return Search(self.proved, tuple(each for each in self.doubtful if each != name), (), self.values)

    def proving(self, name: str) -> Search:
        """The same with one doubtful variable known to be needed."""
        return Search((*self.proved, name), self.without(name).doubtful, (), self.values)


def advance(search: Search, before: Run | None, run: Run, fixed: Iterable[str] = ()) -> Search | None:
    """The search after `run`, made with `search.given` (`fixed`: what the caller gives); None: no more to be set.

    `before` is the run before it. A set of guesses that changed nothing grows by one, up to four.
    """
    settled = settle(search, before, run)
    blamed = blame(run, {*settled.given, *fixed})
    if not blamed.names or len(settled.guesses) >= _MAX_GUESSES:
        return None
    values = {**settled.values, **{name: value_for(name, run.reads) for name in blamed.names}}
    if blamed.guessed:
        return Search(settled.proved, settled.doubtful, (*settled.guesses, *blamed.names), values)
    # What a text names is no guess: guesses before it did not help.
    return Search(settled.proved, (*settled.doubtful, *blamed.names), (), values)


def settle(search: Search, before: Run | None, run: Run) -> Search:
    """What the run with `search.given` proves of what was set last: nothing, where it ended as the one before."""
    if before is None or same_end(before, run) or run.ending in (Ending.BUSY, Ending.FLOODED):
        return search
    fresh = [name for name in (*search.doubtful, *search.guesses) if name not in before.given]
    doubtful = (*search.doubtful, *search.guesses)
    if len(fresh) == 1 and not search.guesses:
        return Search((*search.proved, *fresh), tuple(n for n in doubtful if n not in fresh), (), search.values)
    return Search(search.proved, doubtful, (), search.values)


def value_for(name: str, reads: Iterable[Read]) -> str:
    """What to give it, by all that was said of it."""
    mine = [read for read in reads if read.name == name]
    type_name = next((read.type_name for read in mine if read.type_name), "")
    default = next((read.default for read in mine if read.default is not None), None)
    return dummy(name, type_name, default)


def is_needed(best: Run, without: Run) -> bool:
    """Whether the app cannot do without what `best` had and `without` had not."""
    return without.failed and not same_end(best, without)
