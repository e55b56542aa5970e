"""Which kind of migrations a folder holds."""

from __future__ import annotations

from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.migrations.drizzle import JOURNAL, DrizzleFolder
from supervisor.migrations.sql_folder import SqlFolder


def open_folder(
    folder: Path, dsn: Secret, *, lock_name: str, deadline_seconds: float, app: str = "app", apart: str = ""
) -> SqlFolder | DrizzleFolder:
    """A Drizzle folder when it has a journal, else plain SQL; looks at the disk, opens no connection.

    Raises ConfigurationError for a folder that is missing, unreadable or holds no migration.
    """
    try:
        names = [path.name for path in folder.iterdir()]
        if (folder / JOURNAL).exists():
            return DrizzleFolder(folder, dsn, lock_name=lock_name, deadline_seconds=deadline_seconds, apart=apart)
    except OSError as error:
        why = "it does not exist" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"cannot use migrations folder {str(folder)!r}: {why}; correct or unset SUPERVISOR_MIGRATE_DIR"
        ) from error
    if not any(name.lower().endswith(".sql") for name in names):
        held = "it is empty" if not names else f"none of its {len(names)} entries is a migration"
        raise ConfigurationError(
            f"cannot use migrations folder {str(folder)!r}: {held}; put NNNN_name.sql files there, or name a Drizzle "
            f"folder (with {JOURNAL}), or unset SUPERVISOR_MIGRATE_DIR"
        )
    return SqlFolder(folder, dsn, lock_name=lock_name, deadline_seconds=deadline_seconds, app=app, apart=apart)
