"""Archives as programs write them become the tree they were made of."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from backports import zstd

from supervisor.releases.model import Compression
from supervisor.releases.tree import tree_digest, walk_tree
from tests.releases.unpack.archives import archive, file, folder, hard_link, header, link, pack, pax, record, tar
from tests.releases.unpack.rig import Rig

FILES, FILES_WITH_SOAK = 5_000, 20_000


def make_app(root: Path, *, files: int = 40) -> Path:
    """A folder `app` with what releases hold."""
    app = root / "app"
    for number in range(files):
        place = app / f"d{number % 37}" / f"f{number}.js"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(f"file {number}\n".encode() * (number % 50))
    (app / "empty folder").mkdir()
    (app / "empty file").touch()
    (app / "run").write_text("#!/bin/sh\n")
    (app / "run").chmod(0o755)
    (app / "größe-日本語.txt").write_text("unicode")
    os.close(os.open(os.fsencode(app) + b"/not-utf8-\xff", os.O_CREAT | os.O_WRONLY, 0o644))
    (app / "bin").mkdir()
    (app / "bin" / "run").symlink_to("../run")
    (app / "lib.so").symlink_to("lib.so.1")
    (app / "lib.so.1").symlink_to("run")
    os.link(app / "run", app / "run-too")
    return app


def add_long_names(app: Path) -> None:
    """Names beyond the 100 and 256 bytes that ustar has room for."""
    deep = app.joinpath(*["long-" * 10] * 10)
    deep.mkdir(parents=True)
    (deep / ("n" * 150)).write_text("deep")
    (app / "long link").symlink_to("/".join([*["long-" * 10] * 10, "n" * 150]))


def test_archives_of_gnu_tar_become_the_tree_they_were_made_of(rig: Rig, soak: bool) -> None:
    if shutil.which("tar") is None:
        pytest.skip("needs tar")
    app = make_app(rig.root / "source", files=FILES_WITH_SOAK if soak else FILES)
    wanted = tree_digest(walk_tree(app))
    for form in ("ustar", "posix", "gnu"):
        if form == "posix":
            add_long_names(app)
            wanted = tree_digest(walk_tree(app))
        rig.tree = rig.tree.with_name(form)
        words = ["tar", f"--format={form}", "-C", str(app.parent), "-cf", "-", "app"]
        made = subprocess.run(words, check=True, capture_output=True).stdout
        done = rig.extract(pack(made), max_entries=30_000)
        assert (done.digest, tree_digest(walk_tree(rig.tree))) == (wanted, wanted)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_archives_of_tarfile_become_the_tree_they_were_made_of(form: int, rig: Rig) -> None:
    app = make_app(rig.root / "source")
    if form != tarfile.USTAR_FORMAT:
        add_long_names(app)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=form) as writer:
        writer.add(app, "app")
    done = rig.extract(packed.getvalue(), Compression.GZIP)
    entries = list(walk_tree(rig.tree))
    assert done.digest == tree_digest(walk_tree(app)) == tree_digest(entries)
    assert (done.entries, done.bytes) == (len(entries), sum(entry.size for entry in entries))


def test_dot_slash_before_names_and_the_record_beside_the_tree_are_taken(rig: Rig) -> None:
    info = {"version": "1.2", "git": {"commit": "abc", "branch": "größe"}}
    record_of = file("./deployment-info.json", json.dumps(info).encode())
    done = rig.extract(archive(folder("./"), folder("./app"), record_of, file("./app/b")))
    assert json.loads(done.info) == info
    assert [entry.path for entry in walk_tree(rig.tree)] == ["b"]


@pytest.mark.parametrize("taken", [1_000_000_000, 4_321])
def test_large_file_and_its_copy_are_written_whole(taken: int, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several pieces, and where the system takes less than it is given."""
    content, write = os.urandom(2_500_000), os.write
    monkeypatch.setattr("supervisor.releases.unpack.writer.os.write", lambda to, data: write(to, data[:taken]))
    done = rig.extract(archive(file("app/large", content), hard_link("app/copy", "app/large"), file("app/last")))
    monkeypatch.undo()
    assert (rig.tree / "large").read_bytes() == (rig.tree / "copy").read_bytes() == content
    assert done.digest == tree_digest(walk_tree(rig.tree))


def test_folders_that_are_missing_are_made_and_may_come_later(rig: Rig) -> None:
    done = rig.extract(archive(file("app/a/b/c"), folder("app/a/b"), folder("app/a")))
    assert sorted(entry.path for entry in walk_tree(rig.tree)) == ["a", "a/b", "a/b/c"]
    assert done.entries == 3


def test_modes_become_two_and_owner_ours_and_times_are_kept_within_reason(rig: Rig) -> None:
    future = int(time.time()) + 10**6
    rig.extract(
        archive(
            file("app/setuid", mode=0o6755, mtime=1_000_000_000),
            file("app/closed", mode=0o000, mtime=future),
            pax(record("mtime", "-5.5")),
            file("app/old", mode=0o666),
            header("app/sticky/", type=b"5", mode=0o1777),
        )
    )
    found = {place.name: place.lstat() for place in rig.tree.iterdir()}
    modes = {name: stat.S_IMODE(status.st_mode) for name, status in found.items()}
    assert modes == {"setuid": 0o755, "closed": 0o644, "old": 0o644, "sticky": 0o755}
    assert {status.st_uid for status in found.values()} == {os.geteuid()}
    assert (found["setuid"].st_mtime, found["old"].st_mtime) == (1_000_000_000, 0)
    assert found["closed"].st_mtime <= time.time()


def test_hard_link_becomes_a_copy_of_its_own(rig: Rig) -> None:
    done = rig.extract(archive(file("app/a", b"same", mode=0o755), hard_link("app/d/b", "app/a")))
    first, second = rig.tree / "a", rig.tree / "d" / "b"
    assert second.read_bytes() == b"same"
    assert first.stat().st_ino != second.stat().st_ino
    assert stat.S_IMODE(second.stat().st_mode) == 0o755
    assert done.bytes == 8


def test_links_within_the_tree_are_made_as_they_are_written(rig: Rig) -> None:
    targets = {
        "a/up": "../b/file",
        "a/root": "..",
        "a/here": "./",
        "b/again": "../b/./file",
        "c": "a",
        "dangling": "node_modules/.bin/next",
        "slash": "a/",
        "chain": "c",
    }
    links = [link(f"app/{name}", target) for name, target in targets.items()]
    rig.extract(archive(*links, folder("app/a"), file("app/b/file")))
    assert {name: os.readlink(rig.tree / name) for name in targets} == targets


def test_comment_for_all_entries_and_unknown_records_are_passed_over(rig: Rig) -> None:
    comment = pax(record("comment", "0" * 40), type=b"g")
    more = pax(record("SCHILY.xattr.user.x", b"\0\1=\n"), record("atime", "1.5"), record("uname", "somebody"))
    done = rig.extract(archive(comment, more, file("app/b")))
    assert done.entries == 1


def test_several_frames_skipped_frames_and_zeros_behind_gzip_are_read(rig: Rig) -> None:
    stream = tar(file("app/b", b"b" * 70_000))
    skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    frames = skipped + pack(stream[:1000]) + skipped + pack(b"") + pack(stream[1000:]) + skipped
    assert rig.extract(frames).entries == 1
    rig.tree = rig.tree.with_name("gzip")
    assert rig.extract(gzip.compress(stream) + bytes(100_000), Compression.GZIP).entries == 1


def test_end_of_two_blocks_without_a_full_record_is_enough(rig: Rig) -> None:
    assert rig.extract(pack(file("app/b") + bytes(1024))).entries == 1


def test_names_that_differ_by_case_are_two_unless_asked(rig: Rig) -> None:
    assert rig.extract(archive(file("app/Readme"), file("app/README"))).entries == 2


def packer(out: BinaryIO, compression: Compression) -> zstd.ZstdFile | gzip.GzipFile:
    """Quick rather than small."""
    if compression is Compression.ZSTD:
        return zstd.ZstdFile(out, "wb", level=1)
    return gzip.GzipFile("", "wb", 1, out)


@pytest.mark.parametrize("compression", [Compression.ZSTD, pytest.param(Compression.GZIP, marks=pytest.mark.soak)])
def test_memory_stays_flat_for_a_large_archive(compression: Compression, rig: Rig) -> None:
    """300 MB in 30 files. What compresses well is left out: it would be a bomb."""
    noise = os.urandom(10_000_000)
    with (
        rig.archive.open("wb") as out,
        packer(out, compression) as packed,
        tarfile.open(fileobj=packed, mode="w|") as writer,
    ):
        for number in range(30):
            member = tarfile.TarInfo(f"app/{number}")
            member.size = len(noise)
            writer.addfile(member, io.BytesIO(noise[number:] + noise[:number]))
    said = rig.run_child(rig.job(None, compression, max_bytes=300_000_000))
    assert said.result["result"] == "ok"
    assert said.peak_mib < 160
    assert any("files" in line for line in said.lines[:-1])


def test_memory_holds_the_largest_window(rig: Rig) -> None:
    noise = os.urandom(140 * 1024 * 1024)
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.compression_level: 1}
    rig.archive.write_bytes(zstd.compress(tar(file("app/b", noise)), options=options))
    job = rig.job(None, max_bytes=len(noise))
    said = rig.run_child(job)
    assert said.result["result"] == "ok"
    assert said.peak_mib < 160
    less = dataclasses.replace(job.limits, memory_bytes=130 * 1024 * 1024)
    said = rig.run_child(dataclasses.replace(job, limits=less, destination=str(rig.tree.with_name("less"))))
    assert "it needs more than 130 MiB of memory" in said.reason
