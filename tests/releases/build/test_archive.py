"""The archive: the same bytes for the same input, whole for other readers, flat in memory."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from supervisor.releases import zstd
from supervisor.releases.build.archive import write_archive
from supervisor.releases.build.collect import collect
from supervisor.releases.model import Compression, Entry, Kind, ReleaseError
from supervisor.releases.tree import tree_digest, walk_tree
from tests.releases.build.rig import make_tree, run

MAX_CHILD_MIB = 130
BOTH = pytest.mark.parametrize("compression", list(Compression))
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="there is no zstd here")

# Packs a folder and prints its own peak memory in KiB.
PACKER = """
import sys
from pathlib import Path
from supervisor.releases.build.archive import write_archive
from supervisor.releases.build.collect import collect
from supervisor.releases.model import Compression
folder = Path(sys.argv[1])
with open(sys.argv[2], "wb") as target:
    packed = write_archive(folder, collect(folder).entries, target, compression=Compression(sys.argv[3]))
# Not getrusage: its maximum goes back to before exec, to the memory of the process that started this one.
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
print(peak.split()[1], packed.size)
"""


def packed(folder: Path, compression: Compression = Compression.ZSTD, **options: int) -> bytes:
    target = BytesIO()
    made = write_archive(folder, collect(folder).entries, target, compression=compression, **options)
    data = target.getvalue()
    assert (made.size, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return data


def unpacked(data: bytes, compression: Compression) -> bytes:
    return zstd.ZstdDecompressor().decompress(data) if compression is Compression.ZSTD else gzip.decompress(data)


def rich_tree(folder: Path) -> Path:
    """Of all that may be in a release."""
    make_tree(
        folder,
        {
            "a-b": "",
            "a/b": "content\n" * 1000,
            "big": os.urandom(3 * 1024 * 1024 + 17),
            "empty/": "",
            "ünï/ço∂e": "x",
            "n" * 120 + "/" + "m" * 120: "a long path",
            "line\nbreak": "x",
            "block": "y" * 512,
        },
    )
    (folder / "a" / "run").write_text("#!/bin/sh\n")
    (folder / "a" / "run").chmod(0o700)
    (folder / "link").symlink_to("a/b")
    (folder / "far").symlink_to("m" * 150)
    (folder / os.fsdecode(b"latin-\xe9")).write_text("not UTF-8")
    return folder


@BOTH
def test_the_tree_comes_out_as_it_went_in(tmp_path: Path, compression: Compression) -> None:
    """By GNU tar, and by the digest that was counted while writing."""
    folder = rich_tree(tmp_path / "app-folder")
    entries = collect(folder).entries
    with (tmp_path / "it").open("wb") as target:
        made = write_archive(folder, entries, target, compression=compression)
    (tmp_path / "out").mkdir()
    (tmp_path / "plain.tar").write_bytes(unpacked((tmp_path / "it").read_bytes(), compression))
    run("tar", "-xf", tmp_path / "plain.tar", "-C", tmp_path / "out", "--no-same-owner")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"app"}
    assert list(walk_tree(tmp_path / "out" / "app")) == list(walk_tree(folder))
    assert tree_digest(made.entries) == tree_digest(walk_tree(folder))
    assert made.tree_bytes == sum(entry.size for entry in walk_tree(folder))


@needs_zstd
def test_zstd_reads_it_with_its_size_check_and_a_small_window(tmp_path: Path) -> None:
    folder = rich_tree(tmp_path / "app")
    file = tmp_path / "it.zst"
    file.write_bytes(packed(folder))
    run("zstd", "--test", "--memory=128MB", file)
    said = run("zstd", "--list", "--verbose", file).stdout
    assert "Frames: 1\n" in said
    assert "Check: XXH64" in said
    assert (
        f"({len(zstd.ZstdDecompressor().decompress(file.read_bytes()))} B)"
        in said.split("Decompressed Size:")[1].splitlines()[0]
    )


def test_tar_reads_gzip_by_itself(tmp_path: Path) -> None:
    (tmp_path / "it.tar.gz").write_bytes(packed(make_tree(tmp_path / "folder"), Compression.GZIP))
    names = run("tar", "-tzf", tmp_path / "it.tar.gz").stdout.splitlines()
    assert [name.rstrip("/") for name in names] == sorted(name.rstrip("/") for name in names)
    assert all(name.startswith("app/") for name in names)


@BOTH
def test_only_what_has_no_room_has_a_pax_header(tmp_path: Path, compression: Compression) -> None:
    folder = rich_tree(tmp_path / "app")
    with tarfile.open(fileobj=BytesIO(unpacked(packed(folder, compression, mtime=7), compression))) as archive:
        members = {member.name: member for member in archive}
        assert archive.pax_headers == {}
    with_pax = {os.fsencode(name.removeprefix("app/")) for name, member in members.items() if member.pax_headers}
    long = b"n" * 120
    assert with_pax == {b"latin-\xe9", "ünï".encode(), "ünï/ço∂e".encode(), b"far", long, long + b"/" + b"m" * 120}
    assert {key for member in members.values() for key in member.pax_headers} <= {"path", "linkpath", "hdrcharset"}
    assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members.values()} == {
        (0, 0, "", "", 7)
    }
    assert {oct(member.mode) for member in members.values()} == {"0o755", "0o644"}
    assert members["app/a/run"].mode == 0o755
    assert members["app/a/b"].mode == 0o644


@BOTH
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path, compression: Compression) -> None:
    """Made in another order, by another owner, at another time, with other modes that mean the same."""
    first = rich_tree(tmp_path / "one" / "app")
    second = tmp_path / "another-name"
    second.mkdir()
    for path in sorted(first.rglob("*"), key=lambda path: (len(path.parts), hashlib.sha256(bytes(path)).digest())):
        copy = second / path.relative_to(first)
        if path.is_symlink():
            copy.symlink_to(os.readlink(path))
        elif path.is_dir():
            copy.mkdir(mode=0o700)
        else:
            shutil.copyfile(path, copy)
            copy.chmod(0o777 if path.stat().st_mode & 0o100 else 0o660)
        os.utime(copy, (1, 1), follow_symlinks=False)
        if os.geteuid() == 0:
            os.chown(copy, 12345, 54321, follow_symlinks=False)
    assert packed(first, compression) == packed(second, compression)


def test_another_tree_gives_other_bytes(tmp_path: Path) -> None:
    """The negative control of the test above."""
    first = make_tree(tmp_path / "app")
    before = packed(first)
    (first / "server.js").chmod(0o755)
    assert packed(first) != before


def test_gzip_names_neither_file_nor_time(tmp_path: Path) -> None:
    data = packed(make_tree(tmp_path / "app"), Compression.GZIP)
    assert data[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


@BOTH
def test_memory_stays_flat_however_large_a_file_is(tmp_path: Path, compression: Compression) -> None:
    folder = make_tree(tmp_path / "app")
    with (folder / "sparse").open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    said = run(sys.executable, "-c", PACKER, folder, tmp_path / "it", compression.value).stdout.split()
    assert int(said[0]) < MAX_CHILD_MIB * 1024
    assert (tmp_path / "it").stat().st_size == int(said[1]) < 1024 * 1024


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "a link now", "a fifo now", "a folder now"])
def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path: Path, change: str) -> None:
    make_tree(tmp_path, {"a": "", "log": "12345"})
    entries = collect(tmp_path).entries
    log = tmp_path / "log"
    if change in ("longer", "shorter"):
        log.write_text("123456" if change == "longer" else "1234")
    else:
        log.unlink()
    if change == "a link now":
        log.symlink_to("a")
    elif change == "a fifo now":
        os.mkfifo(log)
    elif change == "a folder now":
        log.mkdir()
    with pytest.raises(ReleaseError, match=r"cannot pack 'log': it changed while the release was built; let end"):
        write_archive(tmp_path, entries, BytesIO(), compression=Compression.ZSTD)


class _Meddler(BytesIO):
    """Changes a file once, when a MiB of it has arrived."""

    def __init__(self, file: Path, content: bytes) -> None:
        super().__init__()
        self._file = file
        self._content = content

    def write(self, data: object, /) -> int:
        if self._content and self.tell() > 1024 * 1024:
            self._file.write_bytes(self._content)
            self._content = b""
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [5 * 1024 * 1024, 6 * 1024 * 1024, 100])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "db").write_bytes(os.urandom(5 * 1024 * 1024))
    entries = collect(tmp_path).entries
    with pytest.raises(ReleaseError, match=r"cannot pack 'db': it changed"):
        write_archive(tmp_path, entries, _Meddler(tmp_path / "db", b"y" * size), compression=Compression.GZIP)


def test_an_entry_without_a_file_is_no_file_of_zero_bytes(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot pack 'gone'"):
        write_archive(tmp_path, [Entry("gone", Kind.FILE)], BytesIO(), compression=Compression.ZSTD)
