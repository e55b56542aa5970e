"""`supervisor env detect`: which mode a run would choose here, why, and on what evidence; with an ENTRY what the app
reads of its environment (`env_detect`). `supervisor env check` is in `env_check`. Needs no supervisor.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import anyio

from supervisor.commands.load_settings import load
from supervisor.core.errors import EngineError, ExitCode, SupervisorError
from supervisor.core.mode import traits
from supervisor.engine.decision import Decision
from supervisor.engine.evidence import evidence
from supervisor.engine.facts import Facts
from supervisor.engine.mode import decide
from supervisor.engine.reader import FactReader, Sources
from supervisor.state import Paths
from supervisor.store.records import read_install

_USAGE = """usage: supervisor env detect [--json]
       supervisor env detect ENTRY [--app-dir DIR] [--app NAME] [--set NAME=VALUE] [--seconds N] [--json]
       supervisor env check [--detect] [--json] [OPTIONS of supervisor run]

Prints the mode a run would choose here, the reason and the evidence; changes nothing. Exits with 0, or with the
code of the error that a run would end with.

With ENTRY (a file, module:app, or a command as one word): runs the app, apart from the system, and prints which
environment variables it reads, which of them it needs, and where. Exits with 0; 1 where that is not all; 78 where it
cannot be run.

check: prints which variables each app would get and where each comes from, no values; changes nothing. Exits with 78
where some are missing or wrong, as the start would; with --detect also with 1 where what an app reads is not what its
table declares.
"""


def main(argv: Sequence[str]) -> int:
    """Look once and print; a run waits where this says so. Gives the exit code."""
    if list(argv) in (["-h"], ["--help"], ["detect", "--help"], ["detect", "-h"]):
        sys.stdout.write(_USAGE)
        return int(ExitCode.OK)
    if argv[:1] == ["check"]:
        from supervisor.commands.env_check import main as check

        return check(argv[1:])
    if argv[:1] == ["detect"] and list(argv[1:]) not in ([], ["--json"]):
        from supervisor.commands.env_detect import main as detect_reads

        return detect_reads(argv[1:])
    if argv[:1] != ["detect"]:
        sys.stderr.write(_USAGE)
        return int(ExitCode.USAGE)
    as_json = "--json" in argv
    try:
        facts = anyio.run(FactReader(sources(os.environ)).read)
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    return _report(facts, as_json=as_json)


def sources(environ: Mapping[str, str]) -> Sources:
    """Where a run with this environment would look; raises ConfigurationError."""
    settings = load({}, environ=environ).settings
    paths = Paths.of(settings, dict(environ))
    install = read_install(paths.state)
    return replace(Sources.of(settings, environ, paths.runtime), instance=install.uuid if install is not None else "")


def _report(facts: Facts, *, as_json: bool) -> int:
    error: EngineError | None = None
    waits_seconds = 0.0
    try:
        outcome = decide(facts)
        if isinstance(outcome, Decision):
            print(json.dumps(_decided(facts, outcome), indent=2, ensure_ascii=False) if as_json else as_text(outcome))
            return int(ExitCode.OK)
        error, waits_seconds = outcome.error, outcome.seconds
    except EngineError as raised:
        error = raised
    if as_json:
        print(json.dumps(_undecided(facts, error, waits_seconds), indent=2, ensure_ascii=False))
    else:
        _print_error(facts, error, waits_seconds)
    return int(error.exit_code)


def as_text(decision: Decision) -> str:
    """The decision for people: what, why, and what it rests on."""
    owner = f" ({decision.owner} engine)" if decision.owner is not None else ""
    lines = [f"mode      {decision.mode}{owner}", f"reason    {decision.reason} (row {decision.row})"]
    if decision.endpoint is not None:
        lines.append(f"engine    {decision.endpoint.url}{', to be started' if decision.start_engine else ''}")
    lines += [f"first     {step.kind} {step.path or step.pid}" for step in decision.cleanup]
    lines += [f"warning   {warning}" for warning in decision.warnings]
    lines += [f"evidence  {line}" for line in decision.evidence]
    return "\n".join(lines)


def _print_error(facts: Facts, error: EngineError, waits_seconds: float) -> None:
    print(f"supervisor: {error}", file=sys.stderr)
    if waits_seconds:
        print(f"A run waits up to {waits_seconds:g} s for this to come right.", file=sys.stderr)
    print("\n".join(f"evidence  {line}" for line in evidence(facts)))


def _decided(facts: Facts, decision: Decision) -> dict[str, Any]:
    return {**asdict(decision), "traits": asdict(traits(decision.mode, decision.owner)), "facts": facts.as_dict()}


def _undecided(facts: Facts, error: EngineError, waits_seconds: float) -> dict[str, Any]:
    return {
        "error": {"code": error.code, "message": str(error), "exit_code": int(error.exit_code)},
        "waits_seconds": waits_seconds,
        "evidence": evidence(facts),
        "facts": facts.as_dict(),
    }
