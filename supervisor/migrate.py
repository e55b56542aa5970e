"""Applies migrations and tells what became of them. Wiring."""

from __future__ import annotations

from supervisor.core.events import MigrationsFinished, Publish, Warned
from supervisor.migrations.model import Migrations, Report


async def migrate(app: str, migrations: Migrations | None, publish: Publish) -> None:
    """Apply what is pending for `app`. Raises MigrationError."""
    if migrations is not None:
        _tell(app, await migrations.apply(), publish)


async def contract(app: str, migrations: Migrations | None, publish: Publish) -> tuple[str, ...]:
    """Apply what is due for `app`; gives their names. Raises MigrationError."""
    if migrations is None:
        return ()
    report = await migrations.contract()
    _tell(app, report, publish)
    return report.applied


def _tell(app: str, report: Report, publish: Publish) -> None:
    for warning in report.warnings:
        publish(Warned(message=warning))
    publish(
        MigrationsFinished(
            app=app,
            kind=report.kind,
            applied=report.applied,
            already=report.already,
            due=report.due,
            elapsed_seconds=round(report.elapsed_seconds, 3),
        )
    )
