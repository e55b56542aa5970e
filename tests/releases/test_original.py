"""Archives of the older kind get the manifest that they lack."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any

import pytest
from backports import zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.releases.manifest import Tree, manifest_bytes, manifest_id, parse_manifest
from supervisor.releases.model import Compression, ReleaseError
from supervisor.releases.original import (
    INFO,
    DeploymentInfo,
    Received,
    compression_of,
    original_manifest,
    parse_info,
)

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
RECEIVED = Received("app-1.4.2.tar.gz", 1234, "a" * 64, Compression.GZIP, AT)
TREE = Tree(digest="b" * 64, bytes=5000, entries=12)


def made(info: DeploymentInfo | None = None, name: str = RECEIVED.name) -> Any:
    received = Received(name, RECEIVED.size, RECEIVED.sha256, RECEIVED.compression, RECEIVED.at)
    return original_manifest("shop", received, info or DeploymentInfo(), TREE)


def original_archive(info: dict[str, str]) -> bytes:
    """As `tar -czf` makes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in (("app/server.js", b"serve()"), (INFO, json.dumps(info).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def test_a_real_archive_tells_of_itself() -> None:
    info = {
        "version": "2.1.0",
        "commit": "abc123",
        "branch": "main",
        "buildDate": "2026-11-20T08:00:00Z",
        "builder": "ci",
    }
    data = original_archive(info)
    assert compression_of(data[:8]) is Compression.GZIP
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(INFO)
        assert file is not None
        found = parse_info(file.read())
    assert found == DeploymentInfo("2.1.0", "abc123", "main", "2026-11-20T08:00:00Z", "ci")
    manifest = made(found)
    assert (manifest.app, manifest.version, manifest.git.commit, manifest.git.branch) == (
        "shop",
        "2.1.0",
        "abc123",
        "main",
    )
    assert manifest.created == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert manifest.sequence == int(manifest.created.timestamp())
    assert (manifest.archive.sha256, manifest.archive.size, manifest.tree) == ("a" * 64, 1234, TREE)


def test_its_manifest_is_one_like_any_other() -> None:
    manifest = made(DeploymentInfo(version="2.1.0"))
    data = manifest_bytes(manifest)
    assert parse_manifest(data) == manifest
    assert manifest_id(manifest, data).startswith("2.1.0-")


# Packing.


def test_the_packing_is_known_by_the_first_bytes() -> None:
    assert compression_of(gzip.compress(b"")[:8]) is Compression.GZIP
    assert compression_of(zstd.compress(b"")[:8]) is Compression.ZSTD


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\xfd7zXZ\x00\x00\x04", "it is packed with xz"),
        (b"BZh91AY&", "it is packed with bzip2"),
        (b"PK\x03\x04\x14\x00\x00\x00", "it is packed with zip"),
        (b"app/\x00\x00\x00\x00", "it is not compressed, or no archive at all"),
        (b"", "it is not compressed, or no archive at all"),
        (b"\x1f", "it is not compressed, or no archive at all"),
    ],
)
def test_any_other_packing_is_refused_by_its_name(head: bytes, what: str) -> None:
    with pytest.raises(ReleaseError, match=rf"cannot read the archive: {what}; pack it as \.tar\.gz or \.tar\.zst"):
        compression_of(head)


# The version.


@pytest.mark.parametrize(
    ("told", "name", "version"),
    [
        ("2.1.0", "app.tar.gz", "2.1.0"),
        ("", "app-1.4.2.tar.gz", "app-1.4.2"),
        ("", "shop_v3.TGZ", "shop_v3"),
        ("", "shop (2).tar.zst", "shop-2"),
        ("../../etc", "x.tgz", "etc"),
        ("v 1/2", "x.tgz", "v-1-2"),
        ("///", "-.tar.gz", "20261121-120000"),
        ("", "", "20261121-120000"),
        ("1" * 500, "x.tgz", "1" * 80),
    ],
)
def test_the_version_is_told_or_the_files_name_or_the_time(told: str, name: str, version: str) -> None:
    assert made(DeploymentInfo(version=told), name).version == version


# The time.


@pytest.mark.parametrize(
    "told",
    [
        "2026-11-20T08:00:00Z",
        "2026-11-20T08:00:00.000Z",
        "2026-11-20T10:00:00+02:00",
        "2026-11-20 08:00:00",
        "20261120T08",
        "20261120080000",
        "20261120-080000",
        "20261120_080000",
        "1795161600",
        "1795161600000",
        "1795161600.5",
        "Fri Nov 20 08:00:00 UTC 2026",
        "Fri, 20 Nov 2026 08:00:00 GMT",
    ],
)
def test_the_build_time_is_read_as_people_write_it(told: str) -> None:
    assert made(DeploymentInfo(built=told)).created.replace(microsecond=0) == datetime(2026, 11, 20, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "told", ["", "yesterday", "nan", "inf", "-1e400", "1e30", "-5", "12", "0001-01-01", "2999-01-01", "9" * 200]
)
def test_a_time_that_is_none_or_lies_ahead_is_that_of_the_receipt(told: str) -> None:
    manifest = made(DeploymentInfo(built=told))
    assert manifest.created == AT
    assert manifest.sequence == int(AT.timestamp())


def test_an_older_build_has_a_lower_sequence() -> None:
    older, newer = (made(DeploymentInfo(built=f"2026-11-{day}T08:00:00Z")).sequence for day in (19, 20))
    assert older < newer


# What it says of itself.


@pytest.mark.parametrize(
    ("values", "info"),
    [
        ({}, DeploymentInfo()),
        ({"version": None, "commit": ["x"], "branch": {"a": 1}, "builder": True}, DeploymentInfo()),
        ({"version": 7, "timestamp": 1795161600}, DeploymentInfo(version="7", built="1795161600")),
        ({"version": "  1.0\n", "builder": "\x1b[31mci"}, DeploymentInfo(version="1.0", builder="[31mci")),
        ({"gitCommit": "abc", "git_branch": "dev"}, DeploymentInfo(commit="abc", branch="dev")),
        ({"git": {"commit": "abc", "branch": "dev"}, "branch": "top"}, DeploymentInfo(commit="abc", branch="top")),
        ({"version": "", "tag": "v2"}, DeploymentInfo(version="v2")),
        ({"commit": "x" * 10_000}, DeploymentInfo(commit="x" * 200)),
    ],
)
def test_what_is_known_counts_and_the_rest_is_left_out(values: dict[str, Any], info: DeploymentInfo) -> None:
    assert parse_info(json.dumps(values).encode()) == info


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is no JSON"),
        (b"{", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (b"[]", "it is no JSON object; mend it, or leave it out"),
        (b"[" * 60_000, "it is no JSON"),
        (b" " * 70_000, "it has more than 65536 bytes"),
    ],
)
def test_a_broken_file_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ReleaseError, match=f"cannot read {INFO}: {why}"):
        parse_info(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["version", "commit", "gitBranch", "buildDate", "timestamp", "builder", "git", "else"])


@settings(max_examples=300, deadline=None)
@given(values=st.dictionaries(fields, json_values, max_size=6), name=st.text(max_size=300))
@example(values={"version": "\ud800", "commit": "\ud800"}, name="\ud800")
@example(values={"timestamp": 10**5000}, name="x")
@example(values={"timestamp": 253402300800}, name="x")
def test_whatever_an_archive_says_gives_a_manifest_that_can_be_kept(values: dict[str, Any], name: str) -> None:
    try:
        info = parse_info(_dumped(values))
    except ReleaseError:
        return
    manifest = made(info, name)
    assert parse_manifest(manifest_bytes(manifest)) == manifest


def _dumped(values: dict[str, Any]) -> bytes:
    try:
        return json.dumps(values).encode()
    except ValueError:  # Python itself refuses to write such a number.
        return b'{"timestamp": ' + b"9" * 5000 + b"}"


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_make_the_reader_do_anything_but_answer_or_refuse(data: bytes) -> None:
    for read in (parse_info, compression_of):
        with contextlib.suppress(ReleaseError):
            read(data)
