"""Starts the independent prober and reads what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bench.rig import PYTHON, Started, environment, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


class Prober(Started):
    """The prober on one state folder; ready to ask when made."""

    def __init__(self, home: Path, *targets: str, once: bool = True) -> None:
        log = home / f"prober-{len(list(home.glob('prober-*')))}"
        argv = [PYTHON, "-m", "tests.bench.prober", *(["--once"] if once else []), str(home / "state"), *targets]
        super().__init__(argv, log=log, env=environment({"PYTHONPATH": str(REPOSITORY)}))
        wait_until(self.lines, what="the prober's start")

    def __enter__(self) -> Prober:
        return self

    def lines(self) -> list[dict[str, Any]]:
        """Every change so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def up(self, target: str, *, after: float = 0.0, limit_seconds: float = 60) -> dict[str, Any]:
        """The first time `target` was up after wall time `after`."""

        def found() -> dict[str, Any] | None:
            for line in self.lines():
                if line["target"] == target and line["up"] and line["began"] > after:
                    return line
            if self.popen.poll() not in (None, 0):
                raise RuntimeError(f"the prober ended with {self.popen.returncode}: {self.explain()}")
            return None

        line: dict[str, Any] = wait_until(found, what=f"{target} up", limit_seconds=limit_seconds)
        return line

    def down(self, target: str, *, after: float, limit_seconds: float = 60) -> dict[str, Any]:
        """The first time `target` was down after wall time `after`."""

        def found() -> dict[str, Any] | None:
            for line in self.lines():
                if line["target"] == target and not line["up"] and line["ended"] > after:
                    return line
            return None

        line: dict[str, Any] = wait_until(found, what=f"{target} down", limit_seconds=limit_seconds)
        return line
