"""Good archives that were damaged, cut, or exchanged on their way."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil

import pytest

from supervisor.releases.model import Compression, ReleaseError
from supervisor.releases.unpack.extract import extract
from tests.releases.unpack.archives import archive, file, folder, link
from tests.releases.unpack.rig import Rig

BOTH = pytest.mark.parametrize("compression", list(Compression))
FLIPS, FLIPS_WITH_SOAK = 300, 5_000


def good(compression: Compression) -> bytes:
    """Some 150 KB that hardly compress, so that every part of the file matters."""
    noise = random.Random(6)
    files = [file(f"app/d{number % 5}/f{number}", noise.randbytes(noise.randrange(9_000))) for number in range(30)]
    return archive(folder("app"), *files, link("app/l", "d1/f1"), compression=compression)


@BOTH
def test_archive_cut_at_each_percent_is_refused(compression: Compression, rig: Rig) -> None:
    whole = good(compression)
    rig.extract(whole, compression)
    for percent in range(100):
        rig.tree = rig.tree.with_name(f"cut-{percent}")
        with pytest.raises(ReleaseError, match=r"it is cut off: the file ends at byte \d+|it is empty"):
            rig.extract(whole[: len(whole) * percent // 100], compression)


@BOTH
def test_archive_with_a_flipped_byte_is_refused(compression: Compression, rig: Rig, soak: bool) -> None:
    whole = good(compression)
    job = rig.job(whole, compression)
    before = rig.around()
    noise = random.Random(7)
    offsets = noise.sample(range(len(whole)), FLIPS_WITH_SOAK if soak else FLIPS)
    for number, offset in enumerate((*range(40), *range(len(whole) - 40, len(whole)), *offsets)):
        broken = bytearray(whole)
        broken[offset] ^= 1 << noise.randrange(8)
        rig.archive.write_bytes(broken)
        spot = dataclasses.replace(job, destination=str(rig.tree.with_name(f"flip-{number}")))
        with pytest.raises(ReleaseError, match=r"cannot unpack the archive: .*; "):
            extract(spot, lambda made, files: None)
        shutil.rmtree(spot.destination, ignore_errors=True)
    rig.archive.write_bytes(whole)
    assert before.keys() == rig.around().keys()


@BOTH
@pytest.mark.parametrize("more", [b"\0", b"x", b"\0" * 512, b"\x1f\x8b\x08\0" * 99])
def test_archive_with_more_than_announced_is_refused(compression: Compression, more: bytes, rig: Rig) -> None:
    whole = good(compression)
    job = rig.job(whole, compression)
    rig.archive.write_bytes(whole + more)
    with pytest.raises(ReleaseError, match=f"the file has {len(whole + more)} bytes, not the {len(whole)}"):
        extract(job, lambda made, files: None)


@BOTH
def test_archive_of_another_digest_is_refused_though_it_is_good(compression: Compression, rig: Rig) -> None:
    job = dataclasses.replace(rig.job(good(compression), compression), sha256="0" * 64)
    with pytest.raises(ReleaseError, match=r"the file has the SHA-256 [0-9a-f]{64}, not 0{64} as announced; copy"):
        extract(job, lambda made, files: None)


def test_archive_that_is_a_link_or_a_fifo_is_not_read(rig: Rig) -> None:
    job = rig.job(good(Compression.ZSTD))
    rig.archive.rename(rig.root / "real")
    rig.archive.symlink_to("real")
    assert "Too many levels of symbolic links" in rig.run_child(job).reason
    rig.archive.unlink()
    os.mkfifo(rig.archive)
    assert "it is no regular file" in rig.run_child(job).reason


def test_destination_that_is_there_is_not_unpacked_into(rig: Rig) -> None:
    rig.tree.mkdir()
    with pytest.raises(ReleaseError, match=r"its place '.*' is taken; delete what is there"):
        rig.extract(good(Compression.ZSTD))
    assert list(rig.tree.iterdir()) == []


def test_destination_that_is_a_link_is_not_followed(rig: Rig) -> None:
    rig.tree.symlink_to(rig.outside)
    job = rig.job(good(Compression.ZSTD))
    before = rig.around()
    with pytest.raises(ReleaseError, match="is taken"):
        extract(job, lambda made, files: None)
    assert rig.around() == before
