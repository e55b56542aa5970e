"""The errors callers branch on and the one table of exit codes, for daemon and command line alike."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes; the numbers follow sysexits(3) from 64 on, and keep clear of 125 to 127 and 128+n."""

    OK = 0
    REJECTED = 1
    """A request was rejected, rolled back or cancelled; the reason is in the text and the JSON."""
    NOT_RUNNING = 3
    """`status` only: no supervisor answers (the LSB number)."""
    APP_GAVE_UP = 10
    MIGRATION_FAILED = 12
    RELEASE_FAILED = 13
    USAGE = 64
    UNREACHABLE = 69
    INTERNAL = 70
    BOOT_DEADLINE = 75
    PRIVILEGE = 77
    CONFIGURATION = 78
    NOT_EXECUTABLE = 126
    """`init` only, as tini and the shell have it."""
    NOT_FOUND = 127


class SupervisorError(Exception):
    """Base of all our errors. The text reads `cannot <verb> <thing>: <why>` and says what the reader can do.

    `exit_code` is what the process ends with when nothing handles the error.
    """

    exit_code: ExitCode = ExitCode.INTERNAL


class ConfigurationError(SupervisorError):
    """Settings, a missing binary, a taken port: nothing helps but a change by the user."""

    exit_code = ExitCode.CONFIGURATION


class PrivilegeError(SupervisorError):
    """The system does not let us do what the configuration asks for."""

    exit_code = ExitCode.PRIVILEGE


class UnreachableError(SupervisorError):
    """A service or the engine did not become, or stay, usable."""

    exit_code = ExitCode.UNREACHABLE


class EngineError(SupervisorError):
    """There is no engine we can use. `code` (E01 to E99) is stable and stands first in the text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.exit_code = _ENGINE_EXITS.get(code, ExitCode.UNREACHABLE)


_ENGINE_EXITS = {
    **dict.fromkeys(("E01", "E02", "E05"), ExitCode.CONFIGURATION),
    **dict.fromkeys(("E07", "E11", "E21", "E22"), ExitCode.PRIVILEGE),
}


class BootDeadlineError(SupervisorError):
    """The boot as a whole took too long; trying again may help."""

    exit_code = ExitCode.BOOT_DEADLINE


class MigrationError(SupervisorError):
    """A migration failed; the database is as the failing step left it, which the text says."""

    exit_code = ExitCode.MIGRATION_FAILED


class AppGaveUpError(SupervisorError):
    """The app did not become healthy, or crashed more often than its restart policy allows."""

    exit_code = ExitCode.APP_GAVE_UP


class TransientError(SupervisorError):
    """The system lacks something just now (memory, processes, descriptors, disk); trying again may help."""

    exit_code = ExitCode.UNREACHABLE


class RejectedError(SupervisorError):
    """A request cannot be carried out now; nothing was changed."""

    exit_code = ExitCode.REJECTED


class StoppingError(SupervisorError):
    """The supervisor stops: what was begun stays as it is, and the next start finishes or undoes it."""

    exit_code = ExitCode.REJECTED


class RolledBackError(SupervisorError):
    """What was asked for was done and did not hold; all is again as it was before."""

    exit_code = ExitCode.REJECTED
