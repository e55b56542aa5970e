"""What a run has proved is remembered with its time."""

from __future__ import annotations

from datetime import UTC, datetime

from supervisor.core.events import BootFinished, ModeChosen, ServiceChanged, ServiceState, SupervisorStarted, Warned
from supervisor.store.records import Verified
from supervisor.verified import VerifiedFacts

AT = datetime(2026, 11, 22, 8, 0, 1, 5000, tzinfo=UTC)
SAID = "2026-11-22T08:00:01Z"


class Seen:
    """How often it was written."""

    def __init__(self) -> None:
        self.facts: dict[str, Verified] = {}
        self.writes = 0
        self.fails = False
        self.observe = VerifiedFacts(self.facts, self.save).observe

    def save(self) -> None:
        self.writes += 1
        if self.fails:
            raise OSError(28, "No space left on device")


def boot(seen: Seen) -> None:
    seen.observe(SupervisorStarted(at=AT, version="1.0", pid=1, mode="auto", reaping="init"))
    seen.observe(ModeChosen(at=AT, message="", mode="dind", reason="", owner="own", engine="unix:///run/docker.sock"))
    seen.observe(ServiceChanged(at=AT, service="redis", state=ServiceState.STARTING))
    seen.observe(ServiceChanged(at=AT, service="postgres", state=ServiceState.RUNNING, reason="Postgres 18 answers"))
    seen.observe(BootFinished(at=AT, elapsed_seconds=1.0, addresses={}))


def test_boot_is_remembered_in_one_write() -> None:
    seen = Seen()
    boot(seen)
    assert seen.facts == {
        "supervisor": Verified("1.0", SAID),
        "mode": Verified("dind (own)", SAID),
        "engine": Verified("unix:///run/docker.sock", SAID),
        "service.postgres": Verified("Postgres 18 answers", SAID),
    }
    assert seen.writes == 1


def test_what_is_proved_later_is_written_at_once_and_nothing_else_is() -> None:
    seen = Seen()
    boot(seen)
    seen.observe(Warned(message="x"))
    assert seen.writes == 1
    seen.observe(ServiceChanged(service="redis", state=ServiceState.RUNNING))
    assert seen.facts["service.redis"].value == "running"
    assert seen.writes == 2


def test_full_disk_does_not_stop_a_run() -> None:
    seen = Seen()
    seen.fails = True
    boot(seen)
    assert seen.writes == 1


def test_mode_without_an_engine_has_none() -> None:
    seen = Seen()
    seen.observe(ModeChosen(at=AT, message="", mode="embedded", reason=""))
    assert seen.facts == {"mode": Verified("embedded", SAID)}
