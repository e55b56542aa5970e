"""Reads the facts in whatever namespaces and rights it was started with, decides, and prints both as JSON.

usage: read_facts.py SOCKET [--uid N] [--record FILE] [--container ID] [--forced MODE]
       [--own-socket PATH]
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import anyio

from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode
from supervisor.engine.decision import Decision
from supervisor.engine.facts import Facts
from supervisor.engine.mode import decide
from supervisor.engine.reader import FactReader, Sources


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--container", default="")
    parser.add_argument("--forced", type=Mode)
    parser.add_argument("--own-socket", default="/nonexistent/own.sock")
    given = parser.parse_args()
    if given.uid is not None:
        # Here and not before the start: the interpreter may lie where that user cannot go.
        os.setgroups([])
        os.setresgid(given.uid, given.uid, given.uid)
        os.setresuid(given.uid, given.uid, given.uid)
    sources = Sources(
        default_socket=given.socket,
        config_folder=Path("/nonexistent"),
        record=given.record,
        forced=given.forced,
        own_socket=given.own_socket,
        container_id=given.container,
        limit_seconds=1.0,
    )
    facts = await FactReader(sources).read()
    print(json.dumps({"facts": facts.as_dict(), **_outcome(facts)}))


def _outcome(facts: Facts) -> dict[str, object]:
    try:
        outcome = decide(facts)
    except EngineError as error:
        return {"code": error.code, "text": str(error)}
    if isinstance(outcome, Decision):
        return {"decision": asdict(outcome)}
    return {"waits": outcome.row, "text": outcome.reason}


if __name__ == "__main__":
    anyio.run(main)
