"""A reload of all apps: what is read, what is applied, and what the caller is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.app.reload import Report
from supervisor.app_reload import ROUTE_SECONDS, AppReload
from supervisor.core.errors import (
    AppGaveUpError,
    ConfigurationError,
    MigrationError,
    RejectedError,
    RolledBackError,
    SupervisorError,
)
from supervisor.core.requests import Canary, Result
from supervisor.core.settings import Loaded
from supervisor.migrations.model import Migrations
from supervisor.planning.part import AppPart

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Read:
    """Settings that say something else of each app."""

    disk: str
    app_names: tuple[str, ...] = ("app",)

    @property
    def settings(self) -> Read:
        return self

    def for_app(self, name: str) -> str:
        return self.disk


class World:
    """The wiring's parts as far as a reload sees them; `did` is what was done, in order."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.disk = "one"
        self.unreadable: SupervisorError | None = None
        self.migration: SupervisorError | None = None
        self.error: SupervisorError | None = None
        self.overs = 0
        self.spec = "spec before"
        self.last_reload = Report({"gate": 1.5}, 1, 2, 4)
        self.part = SimpleNamespace(name="app", app=self, plan="before", plan_again=self._plan_again)

    @property
    def reload_all(self) -> AppReload:
        apps = {"app": cast(AppPart, self.part)}
        return AppReload(apps, reread=self._reread, migrate=self._migrate, prove_routes=self._prove_routes)

    async def _reread(self) -> Loaded:
        self.did.append("read")
        if self.unreadable is not None:
            raise self.unreadable
        return cast(Loaded, Read(self.disk))

    def _plan_again(self, settings: str) -> Any:
        return SimpleNamespace(spec=f"spec {settings}", migrations=f"migrations {settings}")

    async def _migrate(self, app: str, migrations: Migrations | None) -> None:
        self.did.append(str(migrations))
        if self.migration is not None:
            raise self.migration

    async def _prove_routes(self, within_seconds: float) -> None:
        assert within_seconds == ROUTE_SECONDS
        self.did.append("route")

    async def reload(self, spec: str, canary: Canary | None, *, renew: Callable[[], Awaitable[Any]]) -> None:
        """The app's."""
        self.did.append(spec if canary is None else f"{spec} {canary.percent:g} %")
        for _ in range(self.overs):
            self.disk = "two"
            self.did.append(await renew())
        if self.error is not None:
            raise self.error

    def start_over(self) -> bool:
        """The app's."""
        return self.overs > 0


async def test_reload_reads_then_migrates_then_brings_the_code_then_proves_the_route() -> None:
    world = World()
    outcome = await world.reload_all.run()
    assert outcome.ok
    assert world.did == ["read", "migrations one", "spec one", "route"]
    assert list(outcome.phases) == ["settings", "migrations", "gate", "route"]
    assert outcome.phases["gate"] == 1.5
    assert outcome.detail == {"apps": {"app": {"generation_before": 1, "generation": 2, "most_waiting": 4}}}
    assert world.part.plan.spec == "spec one"


async def test_canary_is_handed_to_the_app() -> None:
    world = World()
    await world.reload_all.run("", Canary(5, 60))
    assert "spec one 5 %" in world.did


@pytest.mark.parametrize("error", [ConfigurationError("cannot read '.env': line 3"), SupervisorError("cannot read it")])
async def test_settings_that_cannot_be_read_reject_it_before_anything_is_done(error: SupervisorError) -> None:
    world = World()
    world.unreadable = error
    outcome = await world.reload_all.run()
    assert outcome.result is Result.REJECTED
    assert outcome.reason == f"the reload is rejected, the running app untouched: {error}"
    assert world.did == ["read"]
    assert world.part.plan == "before"


async def test_migration_that_fails_rejects_it_and_the_code_is_not_brought() -> None:
    world = World()
    world.migration = MigrationError("cannot apply 0002_b.sql: syntax error")
    outcome = await world.reload_all.run()
    assert outcome.result is Result.REJECTED
    assert "0002_b.sql" in outcome.reason
    assert "spec one" not in world.did
    assert "settings" in outcome.phases


@pytest.mark.parametrize(
    ("error", "result", "reason"),
    [
        (RejectedError("no"), Result.REJECTED, "the reload is rejected, the running app untouched: no"),
        (RolledBackError("back"), Result.ROLLED_BACK, "back"),
        (AppGaveUpError("gone"), Result.FAILED, "gone"),
    ],
)
async def test_what_the_app_made_of_it_is_told_with_phases_and_generations(
    error: SupervisorError, result: Result, reason: str
) -> None:
    world = World()
    world.error = error
    outcome = await world.reload_all.run()
    assert (outcome.result, outcome.reason) == (result, reason)
    assert outcome.phases["gate"] == 1.5
    assert outcome.detail["apps"]["app"]["generation_before"] == 1
    assert "route" not in world.did
    assert world.part.plan == "before"


async def test_start_over_reads_and_migrates_again_and_the_last_plan_counts() -> None:
    world = World()
    world.overs = 1
    assert (await world.reload_all.run()).ok
    assert world.did == ["read", "migrations one", "spec one", "read", "migrations two", "spec two", "route"]
    assert world.part.plan.spec == "spec two"


async def test_outcome_has_nothing_of_the_reload_before() -> None:
    world = World()
    reload_all = world.reload_all
    await reload_all.run()
    world.unreadable = ConfigurationError("no")
    outcome = await reload_all.run()
    assert list(outcome.phases) == ["settings"]
    assert outcome.detail == {"apps": {}}


@pytest.mark.parametrize("overs", [0, 1])
def test_start_over_is_asked_of_the_apps(overs: int) -> None:
    world = World()
    world.overs = overs
    assert world.reload_all.start_over("") is bool(overs)
