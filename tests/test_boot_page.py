"""What clients are told while the boot goes on."""

from __future__ import annotations

import pytest

from supervisor.app.front.model import Holding
from supervisor.boot_page import BootPage
from supervisor.core.events import (
    AppHeld,
    BootFinished,
    Event,
    GenerationChanged,
    GenerationState,
    Notice,
    PhaseFinished,
    PhaseStarted,
    ServiceChanged,
    ServiceState,
)


def told(*events: Event) -> list[Holding]:
    """What clients were told, in order."""
    found: list[Holding] = []
    page = BootPage(found.append)
    for event in events:
        page.publish(event)
    return found


def service(name: str, state: ServiceState, reason: str = "") -> ServiceChanged:
    return ServiceChanged(service=name, state=state, reason=reason)


def failed(reason: str) -> GenerationChanged:
    return GenerationChanged(app="app", generation=1, state=GenerationState.FAILED, reason=reason)


def test_phase_is_awaited_until_it_is_finished() -> None:
    started, finished = PhaseStarted(phase="migrations"), PhaseFinished(phase="migrations", elapsed_seconds=1.0)
    assert told(started, finished) == [
        Holding("starting", "", waiting=("migrations",)),
        Holding("starting", "", done=("migrations",)),
    ]


def test_services_are_named_instead_of_the_phase_that_waits_for_them() -> None:
    found = told(
        PhaseStarted(phase="services"),
        service("postgres", ServiceState.STARTING),
        service("redis", ServiceState.RUNNING),
        PhaseStarted(phase="app"),
    )
    assert found[0].waiting == ("the services",)
    assert set(found[-1].waiting) == {"postgres", "the app"}
    assert found[-1].done == ("redis",)


def test_service_that_fails_is_told_with_its_reason_until_it_is_better() -> None:
    found = told(service("postgres", ServiceState.BACKOFF, "exited with 1"), service("postgres", ServiceState.RUNNING))
    assert [holding.reason for holding in found] == ["exited with 1", ""]


def test_app_that_fails_to_start_is_told_with_its_reason() -> None:
    assert told(failed("exited with 3"))[-1].reason == "the app: exited with 3"


@pytest.mark.parametrize("end", [BootFinished(elapsed_seconds=1.0, addresses={}), AppHeld(app="app", reason="why")])
def test_nothing_is_told_once_the_boot_is_over(end: Event) -> None:
    assert told(end, PhaseStarted(phase="app"), failed("later")) == []


def test_other_events_are_nothing_to_tell() -> None:
    assert told(Notice(message="hello")) == []
