"""What is remembered of accepted releases: it only rises, each key for itself, and survives."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.releases.model import ReleaseError
from supervisor.releases.sequences import UNSIGNED, Accepted, SequenceFile, Sequences

KEY, OTHER = "1" * 16, "2" * 16
steps = st.tuples(st.sampled_from([KEY, OTHER, UNSIGNED]), st.sampled_from(["shop", "bank"]), st.integers(1, 6))


def accepted(sequence: int, manifest: str = "a") -> Accepted:
    return Accepted(sequence=sequence, manifest=manifest * 64)


@settings(max_examples=200, deadline=None)
@given(history=st.lists(steps, max_size=20))
def test_each_key_keeps_the_highest_it_had_for_each_app(history: list[tuple[str, str, int]]) -> None:
    sequences = Sequences()
    for key, app, sequence in history:
        sequences = sequences.after([key], app, accepted(sequence))
    for key in (KEY, OTHER, UNSIGNED):
        for app in ("shop", "bank"):
            highest = max((step[2] for step in history if step[:2] == (key, app)), default=0)
            found = sequences.of(key, app)
            assert (found.sequence if found else 0) == highest
            assert sequences.is_new(key, app, accepted(highest + 1))
            assert not highest or not sequences.is_new(key, app, accepted(highest, "b"))


def test_several_keys_are_raised_together_and_apart_from_others() -> None:
    sequences = Sequences().after([KEY], "shop", accepted(9)).after([KEY, OTHER], "shop", accepted(5))
    assert sequences.of(KEY, "shop") == accepted(9)
    assert sequences.of(OTHER, "shop") == accepted(5)
    assert sequences.of(UNSIGNED, "shop") is None


def test_the_record_survives_and_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "sequences.json"
    assert SequenceFile(path).read() == Sequences()
    SequenceFile(path).accept([KEY], "shop", accepted(3))
    SequenceFile(path).accept([], "shop", accepted(4))
    again = SequenceFile(path).read()
    assert again.of(KEY, "shop") == accepted(3)
    assert again.of(UNSIGNED, "shop") == accepted(4)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_is_forgotten_by_command_only_and_once(tmp_path: Path) -> None:
    file = SequenceFile(tmp_path / "sequences.json")
    file.accept([KEY, OTHER], "shop", accepted(3))
    assert file.forget(KEY)
    assert not file.forget(KEY)
    assert set(file.read().highest) == {OTHER}


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=200))
@example(junk=b"")
@example(junk=b"{}")
@example(junk=b"[" * 10_000)
@example(junk=b'{"format": 0, "highest": {}}')
@example(junk=b'{"format": 1, "highest": {}, "later": 1}')
@example(junk=b'{"format": 1, "highest": {"a": {"b": {"sequence": 0, "manifest": ""}}}}')
@example(junk=json.dumps({"format": 1, "highest": {"a": {"b": {"sequence": True, "manifest": "a" * 64}}}}).encode())
def test_a_broken_record_accepts_nothing_and_says_what_it_is_for(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("record") / "sequences.json"
    path.write_bytes(junk)
    with pytest.raises(ReleaseError, match="it remembers the newest releases accepted here: restore it from a backup"):
        SequenceFile(path).read()
    with pytest.raises(ReleaseError):
        SequenceFile(path).accept([KEY], "shop", accepted(1))
    assert path.read_bytes() == junk


def test_a_record_of_a_newer_version_accepts_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "sequences.json"
    path.write_text('{"format": 2, "highest": {}}')
    with pytest.raises(ReleaseError, match=r"written by a newer version \(format 2, this one knows 1\); update the"):
        SequenceFile(path).accept([KEY], "shop", accepted(1))
    assert path.read_text() == '{"format": 2, "highest": {}}'


def test_a_record_that_cannot_be_written_is_an_error_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "none" / "sequences.json"
    with pytest.raises(ReleaseError, match=r"cannot write '.*/none/sequences.json': No such file .*make its folder"):
        SequenceFile(path).accept([KEY], "shop", accepted(1))


def test_a_link_in_the_records_place_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "sequences.json"
    os.symlink("nowhere", path)
    with pytest.raises(ReleaseError, match="No such file"):
        SequenceFile(path).read()
