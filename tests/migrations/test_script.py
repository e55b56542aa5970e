"""Cutting SQL into statements, and refusing what a migration cannot hold."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.migrations.script import ScriptError, checked, line_at, split


def texts(sql: str) -> list[str]:
    return [statement.text for statement in split(sql)]


WHOLE = [
    "SELECT ';'",
    "SELECT 'it''s; fine'",
    r"SELECT E'a\'; b'",
    r"SELECT e'a\\'",
    r"SELECT 'a\'",
    'SELECT 1 AS "a;b"',
    'SELECT 1 AS "a"";b"',
    "SELECT $$a;b$$",
    "SELECT $tag$a;$$;b$tag$",
    "SELECT a$b$ FROM t",
    "SELECT /* ; /* nested; */ ; */ 1",
    "SELECT 1 -- not here; nor here\n + 1",
    "SELECT 4 --/* no comment; \n + 2",
    "SELECT 4/-- the slash is an operator; the rest is none\n2",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); INSERT INTO v VALUES (2))",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END",
    "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END",
    "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN RETURN NEW; END $$ LANGUAGE plpgsql",
    "DO $$ BEGIN RAISE NOTICE 'x;'; END $$",
    "SELECT 'é;ü', \"ß;\", $ünï$;$ünï$",
    "SELECT U&'d\\0061t;a', B'1', X'1F', N'a;b'",
    "INSERT INTO t VALUES ($1, $2)",
]


@pytest.mark.parametrize("statement", WHOLE)
def test_split_keeps_a_statement_whole(statement: str) -> None:
    assert texts(f"{statement};SELECT 2;") == [f"{statement};", "SELECT 2;"]
    assert texts(statement) == [statement]


def test_split_leaves_out_comments_between_statements_and_counts_their_lines() -> None:
    sql = "-- first\n\nSELECT 1;\n/* a\n b */ SELECT\n 2;;\n-- the end"
    assert [(s.text, s.line, s.words) for s in split(sql)] == [
        ("SELECT 1;", 3, ("select",)),
        ("SELECT\n 2;", 5, ("select",)),
    ]
    assert [sql[s.offset :].startswith(s.text) for s in split(sql)] == [True, True]


@pytest.mark.parametrize("sql", ["", "  \n", "-- only words", "/* open", ";;"])
def test_split_finds_nothing_where_nothing_is(sql: str) -> None:
    assert texts(sql) == []


@pytest.mark.parametrize(
    "sql", ["SELECT 'open;", "SELECT $$open; $", 'SELECT "open;', "SELECT E'open\\';", "SELECT (1;"]
)
def test_split_runs_an_unfinished_quote_to_the_end(sql: str) -> None:
    assert texts(sql) == [sql]


@given(st.lists(st.sampled_from([*WHOLE, "\n", "-- c;\n", "/* ; */"]), max_size=8))
def test_split_loses_nothing_between_its_statements(parts: list[str]) -> None:
    sql = ";\n".join(parts)
    end = 0
    for statement in split(sql):
        assert statement.offset >= end
        end = statement.offset + len(statement.text)
        assert sql[statement.offset : end] == statement.text
        assert statement.line == sql.count("\n", 0, statement.offset) + 1
    assert sum(len(list(split(part))) for part in parts) == len(texts(sql))


@given(st.text(alphabet="a;'\"$/*-\\ \n()Ee", max_size=40))
def test_split_ends_on_any_text(sql: str) -> None:
    with contextlib.suppress(ScriptError):
        for statement in split(sql):
            assert sql[statement.offset :].startswith(statement.text)


@pytest.mark.parametrize(
    "sql",
    ["BEGIN", "begin work", "START TRANSACTION", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE TRANSACTION 'x'"],
)
def test_transaction_control_is_refused_inside_a_transaction_and_free_outside(sql: str) -> None:
    with pytest.raises(ScriptError, match=r"line 2: .*no-transaction"):
        checked(f"SELECT 1;\n{sql};", own_transaction=False)
    assert len(checked(sql, own_transaction=True)) == 1


@pytest.mark.parametrize(
    "sql",
    ["SAVEPOINT s", "ROLLBACK TO s", "ROLLBACK WORK TO SAVEPOINT s", "RELEASE s", "PREPARE q AS SELECT 1", "SET a = b"],
)
def test_savepoints_are_no_transaction_control(sql: str) -> None:
    assert len(checked(sql, own_transaction=False)) == 1


@pytest.mark.parametrize("sql", ["\\copy t from 'x'", "SELECT 1 \\gexec", "\\restrict abc"])
def test_psql_commands_are_refused_with_their_line(sql: str) -> None:
    with pytest.raises(ScriptError, match=r"line 2: `\\\w+.*is a command of psql"):
        checked(f"SELECT 'a\\b';\n{sql}\n", own_transaction=True)


def test_copy_from_stdin_is_refused_before_its_data_is_read_as_sql() -> None:
    with pytest.raises(ScriptError, match="line 1: COPY"):
        checked("COPY t (a, b) FROM stdin;\nit's\t1\n\\.\n", own_transaction=True)
    assert len(checked("COPY t FROM '/tmp/x'; SELECT 'copy from stdin'", own_transaction=False)) == 2


def test_discard_all_is_refused_as_it_would_release_the_lock() -> None:
    with pytest.raises(ScriptError, match="DISCARD ALL"):
        checked("DISCARD ALL", own_transaction=True)
    assert checked("DISCARD PLANS", own_transaction=True)


def test_line_at_gives_the_line_around_an_offset() -> None:
    assert line_at("a\r\n  bc\n", 5) == (2, "bc")
    assert line_at("", 0) == (1, "")
