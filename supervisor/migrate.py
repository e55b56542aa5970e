"""Applies pending migrations and tells what became of them. Wiring."""

from __future__ import annotations

from supervisor.core.events import MigrationsFinished, Publish, Warned
from supervisor.migrations.model import Migrations


async def migrate(migrations: Migrations | None, publish: Publish) -> None:
    """Apply what is pending. Raises MigrationError."""
    if migrations is None:
        return
    report = await migrations.apply()
    for warning in report.warnings:
        publish(Warned(message=warning))
    publish(
        MigrationsFinished(
            kind=report.kind,
            applied=report.applied,
            already=report.already,
            due=report.due,
            elapsed_seconds=round(report.elapsed_seconds, 3),
        )
    )
