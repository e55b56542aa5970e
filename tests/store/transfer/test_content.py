"""What a document may have in it: files of a state, and no way out of the folder."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from supervisor.store.formats import NewerFormat
from supervisor.store.transfer.content import Export, why_not_carried
from tests.store.transfer.rig import AT, state_files


def document(*files: dict[str, Any] | object, **changed: object) -> bytes:
    return json.dumps({"format": 1, "install": "a", "at": AT, "by": "1.0", "files": list(files), **changed}).encode()


def file(path: object, data: bytes = b"x") -> dict[str, Any]:
    return {"path": path, "base64": base64.b64encode(data).decode()}


def test_document_gives_back_what_went_into_it() -> None:
    export = Export("a", AT, "1.0", {**state_files("one"), "secrets/binary": bytes(range(256))})
    assert Export.parse(export.render(), "x") == export


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../install.json", "secrets/../../etc/passwd", "secrets/./redis", "secrets//redis"),
        *("secrets/", "secrets", "", ".", "..", "secrets/..", "secrets/.redis.tmp", ".import/plan.json", "lock"),
        *("spawned/1.json", "postgres/data/PG_VERSION", "releases/app/journal.json", "releases/app/releases/a/x"),
        *("releases/state.json", "releases/../state.json", "releases/app/state.json/x", "install.json/x"),
        *("secrets/a\0b", "secrets/a\nb", "secrets/" + "a" * 256, "secrets/" + "a/" * 6 + "b", "secrets/\udc80"),
        "state-before-import-1/install.json",
    ],
)
def test_path_that_is_none_of_a_state_is_refused(path: str) -> None:
    assert why_not_carried(path)
    with pytest.raises(ValueError, match="it has "):
        Export.parse(document(file("install.json"), file(path)), "x")


@pytest.mark.parametrize("path", state_files("one"))
def test_path_of_a_state_is_carried(path: str) -> None:
    assert why_not_carried(path) == ""


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (document(file("secrets/a"), file("secrets/a")), "a file twice"),
        (document(file("secrets/a"), file("secrets/a/b")), "below a file of its own"),
        (document({"path": "secrets/a"}), "lacks or has what it should not: 'base64'"),
        (document({"path": "secrets/a", "base64": "!!"}), "lacks or has what it should not"),
        (document({"path": "secrets/a", "base64": 7}), "lacks or has what it should not"),
        (document("secrets/a"), "lacks or has what it should not"),
        (document(files=7), "lacks or has what it should not"),
        (b'{"format": 1}', "lacks or has what it should not: 'files'"),
        (b"[]", "it is no record"),
        (b"", "Expecting value"),
        (b"\xff", "can't decode|Expecting"),
        (b"[" * 100_000, "nested too deep"),
        (document(*(file(f"secrets/{number}") for number in range(10_001))), "more than 10,000"),
    ],
)
def test_document_that_is_none_says_why(made: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Export.parse(made, "x")


def test_document_of_a_newer_version_is_refused() -> None:
    with pytest.raises(NewerFormat, match=r"cannot use 'x': it was written by a newer version \(format 2, this one "):
        Export.parse(document(format=2), "x")
