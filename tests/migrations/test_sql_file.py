"""Names, directives, checksums and the plan of a folder of plain files."""

from __future__ import annotations

import pytest

from supervisor.core.errors import MigrationError
from supervisor.migrations.sql_file import LedgerRow, SqlFile, decide, parse_directives, parse_file, parse_names


def file(name: str, text: str = "SELECT 1;") -> SqlFile:
    return parse_file(name, text.encode())


def row(name: str, text: str = "SELECT 1;", *, applied: bool = True) -> LedgerRow:
    return LedgerRow(name, file(name, text).sha256, applied)


def test_names_are_ordered_by_number_and_not_as_text() -> None:
    names = ["10_c.sql", "9_b.sql", "0001_a.sql", "README.md", ".0002_x.sql.swp", "._0003_x.sql"]
    assert list(parse_names(names, "f").items()) == [("0001_a.sql", 1), ("9_b.sql", 9), ("10_c.sql", 10)]


@pytest.mark.parametrize("name", ["init.sql", "0001.sql", "0001-a.sql", "0001_.sql", "0002_B.SQL", "x1_a.sql"])
def test_names_that_give_no_place_in_the_order_are_named(name: str) -> None:
    with pytest.raises(MigrationError, match=f"{name}' is not named NNNN_name.sql"):
        parse_names(["0007_fine.sql", name], "f")


def test_names_that_share_a_number_are_named_with_the_next_free_one() -> None:
    with pytest.raises(MigrationError, match=r"'0002_b.sql', '2_a.sql' share number 2.*free number, 4"):
        parse_names(["0002_b.sql", "2_a.sql", "3_c.sql"], "f")


def test_names_of_down_migrations_are_refused_as_migrations_only_go_forward() -> None:
    with pytest.raises(MigrationError, match=r"'0001_a.down.sql' would undo.*only go forward"):
        parse_names(["0001_a.down.sql", "0001_a.up.sql"], "f")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("", set()),
        ("-- a comment\n", set()),
        ("-- supervisor: contract\n", {"contract"}),
        ("--supervisor:no-transaction, idempotent\r\n", {"no-transaction", "idempotent"}),
        ("-- supervisor: no-transaction\n-- Supervisor: Contract\n", {"no-transaction", "contract"}),
        ("-- supervisor: expand", {"expand"}),
    ],
)
def test_directives_are_read_from_the_first_lines(head: str, expected: set[str]) -> None:
    assert parse_directives("0001_a.sql", head + "\nSELECT 1;") == expected


def test_directive_with_a_slip_is_refused_with_the_likely_word() -> None:
    with pytest.raises(MigrationError, match=r"'0001_a.sql': unknown directive 'no-transactions'.*did you mean 'no-tr"):
        parse_directives("0001_a.sql", "-- supervisor: no-transactions\n")
    with pytest.raises(MigrationError, match="expand and contract"):
        parse_directives("0001_a.sql", "-- supervisor: contract, expand\n")


def test_directive_further_down_is_refused_and_not_ignored() -> None:
    with pytest.raises(MigrationError, match=r"line 3: .*first lines"):
        parse_directives("0001_a.sql", "-- drops\n\n-- supervisor: contract\nDROP TABLE t;")


def test_checksum_does_not_see_line_ends_or_a_byte_order_mark() -> None:
    plain = parse_file("1_a.sql", b"SELECT 1;\nSELECT 2;\n")
    windows = parse_file("1_a.sql", b"\xef\xbb\xbfSELECT 1;\r\nSELECT 2;\r\n")
    assert plain.sha256 == windows.sha256
    assert windows.text == "SELECT 1;\r\nSELECT 2;\r\n"
    assert plain.sha256 != parse_file("1_a.sql", b"SELECT 1;\nSELECT 3;\n").sha256


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"SELECT 1;\nSELECT '\xe9';", r"line 2: byte 19 \(0xe9\) is not UTF-8"),
        ("SELECT 1;".encode("utf-16-le"), "line 1 holds a NUL sign"),
        ("SELECT 1;".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_place(data: bytes, match: str) -> None:
    with pytest.raises(MigrationError, match=f"'1_a.sql': .*{match}"):
        parse_file("1_a.sql", data)


def test_plan_holds_what_is_pending_due_and_applied() -> None:
    files = [file("1_a.sql"), file("2_b.sql", "-- supervisor: contract\n"), file("3_c.sql")]
    plan = decide(files, [row("1_a.sql")])
    assert ([f.name for f in plan.pending], plan.due, plan.already, plan.warnings) == (["3_c.sql"], ("2_b.sql",), 1, ())


def test_plan_counts_an_applied_contract_file_as_applied() -> None:
    text = "-- supervisor: contract\n"
    plan = decide([file("1_a.sql", text)], [row("1_a.sql", text)])
    assert (plan.due, plan.already) == ((), 1)


def test_plan_refuses_a_changed_file_and_says_what_to_do() -> None:
    with pytest.raises(MigrationError, match=r"'1_a.sql' was changed.*put its old text back.*UPDATE supervisor.migr"):
        decide([file("1_a.sql", "SELECT 2;")], [row("1_a.sql")])


def test_plan_refuses_a_renamed_file_that_would_run_twice() -> None:
    with pytest.raises(MigrationError, match=r"'1_b.sql' has the number of '1_a.sql'"):
        decide([file("1_b.sql")], [row("1_a.sql")])


def test_plan_warns_of_a_late_file_and_of_a_removed_one() -> None:
    plan = decide([file("2_b.sql"), file("3_c.sql")], [row("1_a.sql"), row("3_c.sql")])
    assert [f.name for f in plan.pending] == ["2_b.sql"]
    assert [w.split(",")[0] for w in plan.warnings] == [
        "'2_b.sql' was applied after '3_c.sql'",
        "the database has migrations that are not in the folder: '1_a.sql'",
    ]


def test_plan_stops_at_a_file_that_was_started_and_did_not_end_unless_it_is_idempotent() -> None:
    bare = "-- supervisor: no-transaction\nVACUUM;"
    with pytest.raises(MigrationError, match=r"'1_a.sql', which runs without a transaction, was started.*DELETE FROM"):
        decide([file("1_a.sql", bare)], [row("1_a.sql", bare, applied=False)])
    again = "-- supervisor: no-transaction, idempotent\nVACUUM;"
    plan = decide([file("1_a.sql", again)], [row("1_a.sql", bare, applied=False)])
    assert [f.name for f in plan.pending] == ["1_a.sql"]


def test_started_file_is_pending_without_the_lock_and_an_error_under_it() -> None:
    file = parse_file("1_a.sql", b"-- supervisor: no-transaction\nSELECT 1;")
    rows = [LedgerRow("1_a.sql", file.sha256, False, None, "app")]
    assert decide([file], rows, locked=False).pending == (file,)
    with pytest.raises(MigrationError, match="did not end"):
        decide([file], rows)
