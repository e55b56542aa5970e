"""Releases that are broken, and an app that is killed, under load."""

from __future__ import annotations

import time

from tests.bench.reload.loads import NEW, Outcome, plan
from tests.bench.reload.running import Running
from tests.load.process import Load

MODES = ("exit", "deaf", "500s", "slow", "turns")
LIMIT_SECONDS = 4.0  # below the 5 s of a slow release's answers, so that they count
QUIET_SECONDS = 1.0


def release_under(running: Running, mode: str, *, seconds: float) -> Outcome:
    """A release broken in that way, and so many seconds after the order."""
    with Load(plan(running, NEW, QUIET_SECONDS, LIMIT_SECONDS)) as load:
        load.wait_quiet()
        running.release(mode)
        time.sleep(seconds)
        report = load.stop()
    return Outcome(report.quiet, report.after)


def crash_under(running: Running, *, seconds: float) -> Outcome:
    """kill -9 of the app."""
    with Load(plan(running, NEW, QUIET_SECONDS)) as load:
        load.wait_quiet()
        running.kill()
        time.sleep(seconds)
        report = load.stop()
    return Outcome(report.quiet, report.after)


def back_under(running: Running, *, seconds: float) -> Outcome:
    """A good release, killed with -9 as soon as it answers, while the old one is still warm where one is kept."""
    with Load(plan(running, NEW, QUIET_SECONDS)) as load:
        load.wait_quiet()
        running.release()
        load.version_at(running.version)
        running.kill()
        time.sleep(seconds)
        report = load.stop()
    return Outcome(report.quiet, report.after)
