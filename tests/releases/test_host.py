"""This machine, and ranges of versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.releases.host import Host, in_range, is_at_least, misfits, platform_facts
from supervisor.releases.manifest import Platform
from supervisor.releases.model import ReleaseError

numbers = st.lists(st.integers(0, 30), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("version", "range_", "fits"),
    [
        ("v20.11.1", ">=20,<23", True),
        ("v23.0.0", ">=20,<23", False),
        ("19.9.9", ">=20,<23", False),
        ("20", ">=20.0.0", True),
        ("20", ">=20.0.1", False),
        ("20.11.1", "20", True),
        ("20.11.1", "20.11", True),
        ("20.11.1", "20.12", False),
        ("20.11.1", "=20.11.1", True),
        ("20.11.1", "==20.11.2", False),
        ("20.11.1", "<=20", True),
        ("20.11.1", ">20", False),
        ("21.0.0", ">20", True),
        ("20.11.1", "!=20.11", False),
        ("20.9", ">=20.10", False),
        ("3.11.2+deb12", " >= v3.11 , < 4 ", True),
        ("22.0.0-rc.1", ">=22", True),
    ],
)
def test_a_version_lies_in_a_range_or_does_not(version: str, range_: str, fits: bool) -> None:
    assert in_range(version, range_) is fits


@pytest.mark.parametrize(
    ("range_", "shown"),
    [
        ("", "''"),
        (">=20,", "''"),
        ("^20", "'^20'"),
        ("20.x", "'20.x'"),
        (">=20 <23", "'>=20 <23'"),
        (">=x", "'>=x'"),
        ("<1,oops", "'oops'"),
        ("9" * 5000, f"'{'9' * 80}'"),
        (">=1," * 60 + "1", "'>=1'"),
    ],
)
def test_a_range_that_cannot_be_read_is_refused_with_its_part(range_: str, shown: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        in_range("20.1", range_)
    assert f"{shown} is none; write it like '>=20,<23'" in str(caught.value)


def test_a_version_without_a_number_is_refused() -> None:
    with pytest.raises(ReleaseError, match="cannot compare version 'unknown' with '>=1': it does not begin with one"):
        in_range("unknown", ">=1")


@settings(max_examples=300, deadline=None)
@given(version=numbers, wanted=numbers, operator=st.sampled_from([">=", "<=", ">", "<", "==", "!=", "=", ""]))
def test_a_clause_compares_as_many_numbers_as_it_gives(version: list[int], wanted: list[int], operator: str) -> None:
    ours = [*version, 0, 0, 0, 0][: len(wanted)]
    below, same = ours < wanted, ours == wanted
    holds = {">=": not below, "<=": below or same, ">": not (below or same), "<": below, "!=": not same}
    range_ = operator + ".".join(map(str, wanted))
    assert in_range(".".join(map(str, version)), range_) is holds.get(operator, same)


@settings(max_examples=200, deadline=None)
@given(version=numbers, ranges=st.lists(st.tuples(st.sampled_from([">=", "<", "!="]), numbers), min_size=1, max_size=4))
def test_a_range_holds_when_all_its_clauses_do(version: list[int], ranges: list[tuple[str, list[int]]]) -> None:
    found = ".".join(map(str, version))
    clauses = [operator + ".".join(map(str, wanted)) for operator, wanted in ranges]
    assert in_range(found, ",".join(clauses)) is all(in_range(found, clause) for clause in clauses)


@settings(max_examples=300, deadline=None)
@given(version=st.text(max_size=40), range_=st.text(max_size=60) | st.text("<>=!,.v0123456789", max_size=40))
@example(version="٣", range_=">=٣")
@example(version="1", range_="," * 100_000)
@example(version="9" * 10_000, range_="1")
def test_no_text_makes_the_matcher_do_anything_but_answer_or_refuse(version: str, range_: str) -> None:
    refused = ""
    try:
        assert in_range(version, range_) in (True, False)
    except ReleaseError as error:
        refused = str(error)
    assert len(refused) < 600


def test_a_minimum_is_reached_by_itself_and_anything_newer() -> None:
    assert is_at_least("0.1.0", "0.1")
    assert is_at_least("0.10", "0.9.9")
    assert not is_at_least("0.9", "0.10")


# The machine.


def no_glibc(name: str) -> str:
    raise ValueError(f"unrecognized configuration name: {name}")


def test_this_machine_is_known() -> None:
    host = platform_facts({"node": "20.1"})
    assert host.os == "linux"
    assert host.arch not in ("x86_64", "aarch64", "")
    assert host.libc in ("glibc", "musl")
    assert host.runtimes == {"node": "20.1"}
    assert misfits(Platform(arch=os.uname().machine, libc=host.libc), host) == []


def test_musl_is_known_by_its_loader(tmp_path: Path) -> None:
    assert platform_facts({}, root=tmp_path, confstr=no_glibc).libc == ""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ld-musl-x86_64.so.1").touch()
    assert platform_facts({}, root=tmp_path, confstr=no_glibc).libc == "musl"
    assert platform_facts({}, root=tmp_path, confstr=lambda name: "glibc 2.36").libc == "glibc"


@pytest.mark.parametrize(
    ("ours", "theirs"), [("x86_64", "amd64"), ("amd64", "x86_64"), ("arm64", "aarch64"), ("X64", "amd64")]
)
def test_one_processor_goes_by_several_names(ours: str, theirs: str) -> None:
    assert misfits(Platform(arch=ours), Host("linux", theirs)) == []


def test_what_runs_anywhere_runs_here() -> None:
    assert misfits(Platform(os="any"), Host("linux", "riscv64")) == []


def test_an_unknown_library_is_not_taken_for_the_right_one() -> None:
    (why,) = misfits(Platform(libc="glibc"), Host("linux", "amd64"))
    assert why == "it is built for libc 'glibc' and this is 'unknown': build it for this platform"
