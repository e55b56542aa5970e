from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console, RenderableType

from supervisor.client import render
from supervisor.core import events
from supervisor.core.events import GenerationState, Health, OverallState, ServiceState
from supervisor.observe.status import StatusFold


def _text(renderable: RenderableType) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def _status(*published: events.Event) -> str:
    fold = StatusFold()
    for event in published:
        fold.publish(event)
    return _text(render.status(fold.as_dict()))


def test_status_before_anything_happened_can_be_shown() -> None:
    assert "initializing" in _status()


def test_status_shows_all_that_matters() -> None:
    text = _status(
        events.SupervisorStarted(version="0.1.0", pid=1, mode="embedded", reaping="none"),
        events.OverallChanged(state=OverallState.DEGRADED, reason="redis: exit code 1"),
        events.PhaseStarted(phase="services"),
        events.PhaseFinished(phase="services", elapsed_seconds=1.25),
        events.ServiceChanged(service="redis", state=ServiceState.BACKOFF, reason="exit code 1"),
        events.GenerationChanged(app="app", generation=3, state=GenerationState.SERVING, pid=99),
        events.RouteChanged(app="app", health=Health.UNHEALTHY, error="502"),
        events.AppHeld(app="app", reason="gave up"),
        events.BootFinished(elapsed_seconds=2.5, addresses={"app": "http://127.0.0.1:3000"}),
        events.ReloadFinished(source="file", result="rejected", reason="bad migration", elapsed_seconds=0.5),
        events.HookFinished(hook="cron", ok=False, detail="exit code 2", elapsed_seconds=0.1),
        events.Warned(message="unknown setting", detail="SUPERVISOR_X"),
        events.FileKept(path="/etc/traefik.yml", difference="-a"),
    )
    for wanted in (
        "supervisor 0.1.0: degraded (mode embedded, pid 1, up 0.0 s, cannot reap orphans)",
        "redis: exit code 1",
        "generation 3, held, route unhealthy: 502, gave up",
        "boot: 2.50 s (services 1.25 s)",
        "last reload: rejected in 0.50 s, asked by file: bad migration (0 ok, 1 failed so far)",
        "app: http://127.0.0.1:3000",
        "hook cron: failed in 0.10 s: exit code 2",
        "warning: unknown setting: SUPERVISOR_X",
        "warning: file.kept path=/etc/traefik.yml",
    ):
        assert wanted in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.9, "59 s"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (273_600, "3 d 4 h")],
)
def test_durations_are_shown_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert render.span(seconds) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"event": "dropped", "count": 3}, "dropped count=3\n"),
        (
            {"event": "x", "at": "2026-03-04T05:06:07.089Z", "n": 5, "note": "a\x1b[2J", "empty": "", "list": [1, 2]},
            '05:06:07.089 x note=a\\x1b[2J empty="" list=1,2\n',
        ),
        ({"event": "x", "addresses": {"app": "http://y"}}, "x addresses=app:http://y\n"),
        ({"event": "x", "text": "[red]no markup[/red]"}, 'x text="[red]no markup[/red]"\n'),
    ],
)
def test_event_is_one_line_without_control_characters(values: dict[str, Any], text: str) -> None:
    assert _text(render.event(values)) == text
