"""What is blamed for an end, what a run proves, and what a name says: decisions alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from supervisor.detect.judge import Search, advance, blame, is_needed, same_end, settle
from supervisor.detect.model import Ending, Kind, Plain, Read, Reader, Run
from supervisor.detect.names import dummy, is_runtimes, is_secret, kind_of


def run(
    *names: str, output: tuple[str, ...] = ("failed",), status: int = 1, given: Mapping[str, str] | None = None
) -> Run:
    known = dict(given or {})
    reads = tuple(Read(name, Reader.APP, absent=name not in known) for name in names)
    return Run(reads, Ending.EXITED, status, output, known)


def test_a_key_error_names_its_variable_alone() -> None:
    failed = run("A", "B", output=("  a = os.environ['A'] or os.environ['B']", "KeyError: 'B'"))
    assert blame(failed, ()).names == ("B",)


def test_names_in_the_last_words_are_blamed_as_whole_words() -> None:
    failed = run("KEY", "API_KEY", "KEY_2", output=("API_KEY is missing",))
    assert (blame(failed, ()).names, blame(failed, ()).guessed) == (("API_KEY",), False)


def test_without_a_name_the_last_read_is_guessed() -> None:
    assert blame(run("A", "B"), ()) == blame(run("B", "A", "B"), ("A",))
    assert (blame(run("A", "B"), ()).names, blame(run("A", "B"), ()).guessed) == (("B",), True)


@pytest.mark.parametrize("ending", [Ending.QUIET, Ending.BUSY, Ending.FLOODED])
def test_a_run_that_did_not_fail_blames_nobody(ending: Ending) -> None:
    assert blame(Run((Read("A", Reader.APP, absent=True),), ending), ()).names == ()


def test_what_the_runtime_reads_is_never_blamed() -> None:
    failed = Run((Read("NODE_DEBUG", Reader.RUNTIME, absent=True),), Ending.EXITED, 1, ("NODE_DEBUG",))
    assert blame(failed, ()).names == ()


def test_one_that_takes_the_app_further_is_proved() -> None:
    first = run("A", output=("A is missing",))
    search = advance(Search(), None, first)
    assert search is not None
    assert settle(search, first, run("A", status=0, given={"A": "x"})).proved == ("A",)
    assert settle(search, first, run("A", output=("B is missing",), given={"A": "x"})).proved == ("A",)
    assert settle(search, first, run("A", output=("A is missing",), given={"A": "x"})).proved == ()


def test_several_at_once_stay_doubtful() -> None:
    first = run("A", "B", output=("A and B",))
    search = advance(Search(), None, first)
    assert search is not None
    assert settle(search, first, run("A", "B", status=0, given=search.given)).doubtful == ("A", "B")


def test_guesses_end_after_four() -> None:
    search, before, failed = Search(), None, run(*"ABCDEFG")
    for names in ("G", "GF", "GFE", "GFED"):
        further = advance(search, before, failed)
        assert further is not None
        assert set(further.given) == set(names)
        search, before, failed = further, failed, run(*"ABCDEFG", given=further.given)
    assert advance(search, before, failed) is None


def test_ends_are_the_same_but_for_numbers() -> None:
    assert same_end(run(output=("at 0x7f3a: pid 12",)), run(output=("at 0x1: pid 9", "")))
    assert not same_end(run(status=1), run(status=2))
    assert not same_end(run(status=0), run(status=0))
    assert not is_needed(run(), run())
    assert is_needed(run(status=0), run())


@pytest.mark.parametrize(
    ("name", "type_name", "default", "kind", "value"),
    [
        ("DATABASE_URL", "", None, Kind.URL, "postgres://user:password@127.0.0.1:9/database"),
        ("MYSQL_URL", "", None, Kind.URL, "mysql://user:password@127.0.0.1:9/database"),
        ("REDIS_URL", "", None, Kind.URL, "redis://127.0.0.1:9/0"),
        ("BETTER_AUTH_URL", "", None, Kind.URL, "http://127.0.0.1:9"),
        ("UPSTREAM", "AnyHttpUrl", None, Kind.URL, "http://127.0.0.1:9"),
        ("PORT", "", None, Kind.PORT, "39127"),
        ("SMTP_PORT", "int", 25, Kind.PORT, "39127"),
        ("ADMIN_EMAIL", "", None, Kind.EMAIL, "user@example.com"),
        ("POOL_SIZE", "", None, Kind.INT, "10"),
        ("N", "int", None, Kind.INT, "10"),
        ("N", "", 5, Kind.INT, "10"),
        ("ENABLE_X", "", None, Kind.BOOL, "true"),
        ("X", "", False, Kind.BOOL, "true"),
        ("AUTH_SECRET", "", None, Kind.TEXT, "0123456789abcdef" * 4),
        ("AUTH_SECRET_FILE", "", None, Kind.TEXT, "/proc/version"),
        ("DB_HOST", "", None, Kind.TEXT, "127.0.0.1"),
        ("LEVEL", "", None, Kind.TEXT, "detect"),
    ],
)
def test_a_name_tells_kind_and_made_up_value(
    name: str, type_name: str, default: Plain | None, kind: Kind, value: str
) -> None:
    assert (kind_of(name, type_name, default), dummy(name, type_name, default)) == (kind, value)


def test_names_of_secrets_and_of_the_runtime_are_known() -> None:
    names = ("JWT_SECRET", "api_key", "DB_PASSWORD", "MONKEY", "KEYBOARD", "TOKEN_URL")
    assert [is_secret(name) for name in names] == [True, True, True, False, False, False]
    others = (
        "PATH",
        "TZ",
        "npm_config_x",
        "PYTHONPATH",
        "NODE_DEBUG",
        "SUPERVISOR_GENERATION",
        "NODE_ENV",
        "PORT",
        "APP_HOME",
    )
    assert [is_runtimes(name) for name in others] == [True] * 6 + [False] * 3
