"""Applies migrations and tells what became of them. Wiring."""

from __future__ import annotations

from supervisor.core.events import MigrationsFinished, Publish, Warned
from supervisor.migrations.model import Migrations, Report


async def migrate(migrations: Migrations | None, publish: Publish) -> None:
    """Apply what is pending. Raises MigrationError."""
    if migrations is not None:
        _tell(await migrations.apply(), publish)


async def contract(migrations: Migrations | None, publish: Publish) -> tuple[str, ...]:
    """Apply what is due; gives their names. Raises MigrationError."""
    if migrations is None:
        return ()
    report = await migrations.contract()
    _tell(report, publish)
    return report.applied


def _tell(report: Report, publish: Publish) -> None:
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
