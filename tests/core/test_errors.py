"""Our errors, their exit codes, and how they leave a task group."""

from __future__ import annotations

import anyio
import pytest

from supervisor.core import errors
from supervisor.core.errors import (
    ConfigurationError,
    EngineError,
    ExitCode,
    MigrationError,
    SupervisorError,
    UnreachableError,
)
from supervisor.core.groups import first_of_ours, plain_errors

OURS = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, SupervisorError)]


def test_the_exit_codes_are_those_that_were_promised() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "REJECTED": 1,
        "NOT_RUNNING": 3,
        "APP_GAVE_UP": 10,
        "MIGRATION_FAILED": 12,
        "RELEASE_FAILED": 13,
        "USAGE": 64,
        "UNREACHABLE": 69,
        "INTERNAL": 70,
        "BOOT_DEADLINE": 75,
        "PRIVILEGE": 77,
        "CONFIGURATION": 78,
        "NOT_EXECUTABLE": 126,
        "NOT_FOUND": 127,
    }


def test_no_code_of_ours_looks_like_a_death_by_signal() -> None:
    assert all(code <= 127 for code in ExitCode)


@pytest.mark.parametrize("kind", sorted(set(OURS) - {EngineError}, key=str))
def test_an_error_never_ends_the_process_as_a_success(kind: type[SupervisorError]) -> None:
    assert kind.exit_code is not ExitCode.OK
    assert kind("cannot do it: for a test").exit_code is kind.exit_code


@pytest.mark.parametrize(("code", "exit_code"), [("E01", 78), ("E07", 77), ("E12", 69), ("E99", 69)])
def test_an_engine_error_ends_the_process_by_its_code(code: str, exit_code: int) -> None:
    error = EngineError(code, "cannot use it: for a test")
    assert error.exit_code == exit_code
    assert str(error) == f"{code}: cannot use it: for a test"


@pytest.mark.parametrize("kind", OURS)
def test_errors_are_two_levels_deep(kind: type[SupervisorError]) -> None:
    assert kind is SupervisorError or kind.__bases__ == (SupervisorError,)


def test_a_plain_error_of_ours_passes_as_it_is() -> None:
    error = MigrationError("cannot apply it")
    with pytest.raises(MigrationError) as caught, plain_errors():
        raise error
    assert caught.value is error


def test_our_error_leaves_nested_groups_as_itself() -> None:
    error = ConfigurationError("cannot use it")
    with pytest.raises(ConfigurationError) as caught, plain_errors():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [error])])
    assert caught.value is error
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_of_several_errors_of_ours_the_first_one_counts() -> None:
    first, second = UnreachableError("first"), ConfigurationError("second")
    assert first_of_ours(ExceptionGroup("both", [ExceptionGroup("inner", [first]), second])) is first


def test_a_group_with_a_foreign_error_stays_a_group() -> None:
    group = ExceptionGroup("mixed", [UnreachableError("ours"), ExceptionGroup("inner", [KeyError("a bug")])])
    assert first_of_ours(group) is None
    with pytest.raises(ExceptionGroup) as caught, plain_errors():
        raise group
    assert caught.value is group


def test_a_foreign_error_alone_passes_as_it_is() -> None:
    with pytest.raises(KeyError), plain_errors():
        raise KeyError("a bug")


@pytest.mark.anyio
async def test_our_error_leaves_a_real_task_group_and_cancels_what_ran_beside_it() -> None:
    cancelled = False

    async def sleeper() -> None:
        nonlocal cancelled
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled = True
            raise

    async def failing() -> None:
        await anyio.lowlevel.checkpoint()
        raise UnreachableError("cannot reach it")

    async def both() -> None:
        with anyio.fail_after(5), plain_errors():
            async with anyio.create_task_group() as group:
                group.start_soon(sleeper)
                group.start_soon(failing)

    with pytest.raises(UnreachableError, match="cannot reach it"):
        await both()
    assert cancelled
