"""From runs to what is told: one entry a variable, required, optional, or the business of libraries alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from supervisor.detect.model import Detected, Ending, Reader, Run, Variable
from supervisor.detect.model import Read as ReadRecord
from supervisor.detect.names import is_runtimes, kind_of
from supervisor.detect.sources import Lines, default_of, names_it

_MAX_PLACES = 20
_MAX_QUOTED = 300
_FRAME = re.compile(r"\s+at .*[:)]|Node\.js v\d")
_ERROR = re.compile(r"(Uncaught )?[\w.]*(Error|Exception)\b.*:")


@dataclass(frozen=True)
class Finding:
    """What the search came to. `proved`: every one of `needed` was tried, none is only assumed."""

    runs: tuple[Run, ...]
    needed: frozenset[str]
    best: Run
    proved: bool


def summarize(detected: Detected, finding: Finding, lines: Lines) -> Detected:
    """`detected` with its variables, by name."""
    reads: dict[str, list[ReadRecord]] = {}
    for run in finding.runs:
        for read in run.reads:
            reads.setdefault(read.name, []).append(read)
    variables = [_variable(name, reads[name], finding, lines) for name in sorted(reads) if _counts(reads[name], lines)]
    return replace(
        detected,
        required=tuple(each for each in variables if each.required),
        optional=tuple(each for each in variables if not each.required and each.reader is Reader.APP),
        by_libraries=tuple(each for each in variables if not each.required and each.reader is not Reader.APP),
    )


def _counts(reads: list[ReadRecord], lines: Lines) -> bool:
    """Not what was always there and no code names: the app only goes through all that there is."""
    return any(read.absent or names_it(read, lines) for read in reads)


def _variable(name: str, reads: list[ReadRecord], finding: Finding, lines: Lines) -> Variable:
    mine = [read for read in reads if is_apps(read, lines)] if not is_runtimes(name) else []
    counted = mine or reads
    required = name in finding.needed
    default = None if required else next((d for read in counted if (d := default_of(read, lines)) is not None), None)
    type_name = next((read.type_name for read in reads if read.type_name), "")
    reader = Reader.APP if mine else _least(reads)
    library = next((read.library for read in counted if read.library), "")
    return Variable(
        name=name,
        kind=kind_of(name, type_name, default),
        required=required,
        places=tuple(sorted({read.place for read in counted if read.place is not None}))[:_MAX_PLACES],
        reader=reader,
        library=library if reader is not Reader.RUNTIME and all(read.by is not Reader.APP for read in counted) else "",
        default=default,
    )


def is_apps(read: ReadRecord, lines: Lines) -> bool:
    """Whether the app asks for it: its own code does, or a library on its behalf.

    A library does so with the object that the app handed over, for a field that the app declares, or for a name that
    stands in the app's code; not while it is only being loaded.
    """
    if read.by is Reader.APP:
        return True
    if read.loading:
        return False
    if read.by is Reader.LIBRARY and (read.given or read.declared):
        return True
    return names_it(read, lines)


def _least(reads: Iterable[ReadRecord]) -> Reader:
    return Reader.LIBRARY if any(read.by is Reader.LIBRARY for read in reads) else Reader.RUNTIME


def why_incomplete(finding: Finding, seconds: float) -> str:
    """Why more may be read than was seen; empty where all was."""
    best = finding.best
    if best.ending is Ending.BUSY:
        return f"it was still at work after {seconds:g} s; give it longer with --seconds"
    if best.ending is Ending.FLOODED:
        return "it sent more records than are taken; variables may be missing"
    if best.failed:
        return f"it ended with {best.status}: {_last_words(best, finding.needed)}"
    if not finding.proved:
        return f"there was no time to try each required variable by itself within {seconds:g} s; allow more (--seconds)"
    return ""


def telling(run: Run) -> list[str]:
    """Its output without empty lines and the frames of Node's stack traces."""
    return [line for line in run.output if line.strip() and not _FRAME.match(line)]


def _last_words(run: Run, needed: Iterable[str]) -> str:
    given = ", ".join(sorted(needed))
    lines = [line.strip() for line in telling(run)]
    errors = [line for line in lines if _ERROR.match(line)]
    said = (errors or lines or ["it wrote nothing"])[-1][:_MAX_QUOTED]
    hint = f"; with made-up values for {given}: give real ones with --set NAME=VALUE" if given else ""
    return f"{said}{hint}; what it would have read later is missing here"
