"""Starts the independent prober and reads what it found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.rig import IMPORTS, PYTHON, Started, environment, wait_until


class Prober(Started):
    """The prober on one state folder; ready to ask when made."""

    def __init__(self, home: Path, *targets: str, once: bool = True) -> None:
        log = home / f"prober-{len(list(home.glob('prober-*')))}"
        argv = [PYTHON, "-m", "tests.bench.prober", *(["--once"] if once else []), str(home / "state"), *targets]
        super().__init__(argv, log=log, env=environment(IMPORTS))
        wait_until(self.lines, what="the prober's start")

    def __enter__(self) -> Prober:
        return self

    def lines(self) -> list[dict[str, Any]]:
        """Every change so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def up(self, target: str, *, after: float = 0.0) -> dict[str, Any]:
        """The first time `target` was up, asked after wall time `after`."""
        return self._first(
            f"{target} up", lambda line: line["target"] == target and line["up"] and line["began"] > after
        )

    def down(self, target: str, *, after: float) -> dict[str, Any]:
        """The first time `target` was down, seen after wall time `after`."""
        return self._first(
            f"{target} down", lambda line: line["target"] == target and not line["up"] and line["ended"] > after
        )

    def _first(self, what: str, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            line = next((line for line in self.lines() if is_it(line)), None)
            if line is None and self.popen.poll() not in (None, 0):
                raise RuntimeError(f"the prober ended with {self.popen.returncode}: {self.explain()}")
            return line

        line: dict[str, Any] = wait_until(found, what=what, limit_seconds=60)
        return line
