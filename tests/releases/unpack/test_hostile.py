"""Archives that want out, or want too much: each refused in its own words, by the child under its limits."""

from __future__ import annotations

import lzma
import os
import signal
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from backports import zstd

from supervisor.releases.model import Compression
from supervisor.releases.unpack.limits import MIB
from tests.releases.unpack import archives
from tests.releases.unpack.archives import (
    BLOCK,
    END,
    GNU,
    RECORD,
    archive,
    base256,
    file,
    folder,
    gnu_long,
    hard_link,
    header,
    link,
    pack,
    pax,
    pax_file,
    record,
    tar,
)
from tests.releases.unpack.rig import Rig

OUT = "../../../outside"
GZIP, ZSTD = Compression.GZIP, Compression.ZSTD
MAX_CPU_SECONDS = 6.0
MAX_PEAK_MIB = 160


@dataclass(frozen=True)
class Case:
    """An archive file and the words it is refused with."""

    name: str
    make: Callable[[], bytes]
    words: str
    compression: Compression = ZSTD
    options: tuple[tuple[str, Any], ...] = ()


def of(name: str, words: str, *parts: bytes, **options: Any) -> Case:
    """A case whose entries are these, after a good one."""
    return Case(name, lambda: archive(file("app/good"), *parts), words, options=tuple(options.items()))


def stream(name: str, words: str, data: bytes) -> Case:
    """A case whose unpacked stream is this."""
    return Case(name, lambda: pack(data), words)


NAMES = [
    of("dot dot", "has an empty part, `.` or `..`", file(f"{OUT}/victim")),
    of("dot dot within", "has an empty part, `.` or `..`", file(f"app/a/../../{OUT}/victim")),
    of("dot dot at the end", "has an empty part, `.` or `..`", folder("app/a/..")),
    of("absolute", "is empty or absolute", file("/tmp/supervisor-must-not-make-this")),
    of("absolute behind the top", "is empty or absolute", file("app//etc/victim")),
    of("root", "is empty or absolute", header("/", type=b"5")),
    of("empty", "is empty or absolute", file("")),
    of("empty part", "has an empty part, `.` or `..`", file("app/a//b")),
    of("dot part", "has an empty part, `.` or `..`", file("app/./b")),
    of("two dots before", "has an empty part, `.` or `..`", folder("././")),
    of("NUL", "has a NUL", pax_file(b"app/a\0b")),
    of("NUL in a long name", "goes on behind its end", gnu_long(b"L", b"app/a\0b"), file("app/b")),
    of("drive", "is a Windows path", file("app/C:/b")),
    of("drive at the top", "is a Windows path", file("C:\\b")),
    of("backslash", "is a Windows path", file("app/..\\b")),
    of("long part", "has a part of more than 255 bytes", pax_file("app/" + "n" * 256)),
    of("long part of wide letters", "has a part of more than 255 bytes", pax_file("app/" + "é" * 128)),
    of("long path", "is longer than 1024 bytes", pax_file("app/" + "/".join(["n" * 200] * 6))),
    of("deep path", "or deeper than 64 folders", pax_file("app/" + "/".join("n" * 65))),
    of("beside the top", "is not below 'app'/", file("other/b")),
    of("top is a file", "the entry 'app' is a file, not a folder", file("app")),
    of("top is a link", "the entry 'app' is a symbolic link, not a folder", link("app", OUT)),
    of("root is a link", "the entry './' is a symbolic link, not a folder", link(".", OUT)),
    of("top twice", "the entry 'app' is in it twice", folder("app"), folder("app")),
    of("record is a link", "is a symbolic link, not a file", link("deployment-info.json", f"{OUT}/victim")),
    of("record too long", "65537 bytes, 65536 are allowed", file("deployment-info.json", b" " * 65537)),
    of("record no JSON", "'deployment-info.json' is no JSON object", file("deployment-info.json", b"[" * 60_000)),
    of("our records", "has the name of our own records", file("app/.release/manifest.json")),
    of("slash after a file", "has an empty part, `.` or `..`", file("app/b/")),
]
TYPES = [
    of("character device", "is a device", header("app/null", type=b"3")),
    of("block device", "is a device", header("app/disk", type=b"4")),
    of("fifo", "is a fifo", header("app/fifo", type=b"6")),
    of("contiguous", "is a contiguous file", header("app/b", type=b"7")),
    of("socket", "is a socket", header("app/b", type=b"s")),
    of("dumpdir", "is a folder of an incremental archive", header("app/b", type=b"D")),
    of("multi-volume", "is a part of a file that began on another volume", header("app/b", type=b"M")),
    of("label", "is a volume's label", header("app/b", type=b"V")),
    of("unknown type", "is of the unknown type b'Z'", header("app/b", type=b"Z")),
    of("sparse", "the entry 'app/b' is a sparse file", header("app/b", type=b"S", magic=GNU)),
    of("sparse by pax", "is a sparse file", pax(record("GNU.sparse.major", "1")), file("app/b")),
    of("folder with contents", "is a folder and has contents", header("app/b/", type=b"5", size=7), bytes(BLOCK)),
    of("no tar format", "is of no tar format that is read here", header("app/b", magic=b"rats!\x0000")),
]
LINKS = [
    of("file through a link", "lies below 'l', which is a link", link("app/l", OUT), file("app/l/victim")),
    of("file through a link within", "lies below 'l', which is a link", link("app/l", "."), file("app/l/x/b")),
    of("folder through a link", "lies below 'l', which is a link", link("app/l", OUT), folder("app/l/x")),
    of("link through a link", "lies below 'l', which is a link", link("app/l", OUT), link("app/l/x", "y")),
    of("copy through a link", "lies below 'l'", link("app/l", OUT), hard_link("app/l/victim", "app/good")),
    of("folder becomes a link", "'d' is in it twice", folder("app/d"), link("app/d", OUT), file("app/d/victim")),
    of("made folder becomes a link", "'d' is in it twice", file("app/d/b"), link("app/d", OUT)),
    of("link becomes a file", "'l' is in it twice", link("app/l", f"{OUT}/victim"), file("app/l")),
    of("link becomes a folder", "'l' is in it twice", link("app/l", OUT), folder("app/l")),
    of("link out", "to '../../../outside' leads out of the release", link("app/l", OUT)),
    of("link out by its top", "leads out of the release", link("app/l", "../app/good")),
    of("link out and in again", "leads out of the release", link("app/a/l", "../../app/good")),
    of("link absolute", "to '/etc/passwd' is absolute", link("app/l", "/etc/passwd")),
    of("link to nothing", "leads nowhere", link("app/l", "")),
    of("link with a NUL", "has a NUL in its target", pax(record("linkpath", b"a\0b")), link("app/l", "x")),
    of("link too long", "has a target of more than 1024 bytes", gnu_long(b"K", "a/" * 600), link("app/l", "x")),
    of("link to a drive", "leads to a path that is a Windows path", link("app/l", "C:/x")),
    of("through a link", "leads through another link, 'd'", folder("app/x"), link("app/d", "x"), link("app/l", "d/y")),
    of("through a later link", "leads through another link, 'd'", link("app/l", "d/y"), link("app/d", "x")),
    of("back from a link", "leads through another link, 'd'", link("app/d", "x/y"), link("app/l", "d/../../victim")),
    of("back from nothing", "comes back by `..` from 'gone'", link("app/l", "gone/../good")),
    of("back from a file", "comes back by `..` from 'good'", link("app/l", "good/../good")),
    of("circle", "goes in a circle", link("app/a", "b"), link("app/b", "a")),
    of("circle of one", "goes in a circle", link("app/a", "a")),
    of("long chain", "over more than 8 links", *(link(f"app/l{n}", f"l{n + 1}") for n in range(10))),
    of("copy of a link", "leads to 'l', which is a link", link("app/l", "good"), hard_link("app/h", "app/l")),
    of("copy of a folder", "leads to 'd', which is a folder", folder("app/d"), hard_link("app/h", "app/d")),
    of("copy of a later file", "is not an earlier file", hard_link("app/h", "app/later"), file("app/later")),
    of("copy of itself", "is not an earlier file", hard_link("app/h", "app/h")),
    of("copy from outside", "has an empty part, `.` or `..`", hard_link("app/h", f"app/{OUT}/victim")),
    of("copy by an absolute name", "is empty or absolute", hard_link("app/h", "/etc/passwd")),
    of(
        "copy of the record",
        "is not below 'app'/",
        file("deployment-info.json", b"{}"),
        hard_link("app/h", "deployment-info.json"),
    ),
    of("copy with contents", "is a hard link and has contents", header("app/h", type=b"1", target="app/good", size=9)),
    of("file below a file", "lies below 'good', which is a file", file("app/good/b")),
]


def chain_over_path_max() -> bytes:
    """As for CVE-2025-4517: folders and links to them, until a path by the links resolves to one that is too long."""
    deep, parts, path = "d" * 60, [], "app"
    for step in "abcdefghijklm":
        parts += [
            folder(f"{path}/{deep}") if path == "app" else pax(record("path", f"{path}/{deep}")) + folder("app/x")
        ]
        parts += [pax(record("path", f"{path}/{step}"), record("linkpath", deep)) + link("app/x", "x")]
        path = f"{path}/{deep}"
    by_links = "/".join("abcdefghijklm")
    parts += [link(f"app/{by_links}/{'l' * 40}", "../" * 13)]
    parts += [link("app/escape", f"{by_links}/{'l' * 40}/{OUT}"), file("app/escape/victim")]
    return archive(*parts)


TWINS = [
    of("file twice", "the entry 'good' is in it twice", file("app/good")),
    of("file twice by `./`", "the entry 'good' is in it twice", file("./app/good")),
    of("folder twice", "the entry 'd' is in it twice", folder("app/d"), folder("app/d")),
    of("folder over a file", "the entry 'good' is in it twice", folder("app/good")),
    of("case twins", "are one on a filesystem without case", file("app/GOOD"), case_insensitive=True),
    of("case twins of folders", "'d' and 'D' are one", file("app/d/a"), file("app/D/b"), case_insensitive=True),
    of("sharp s twins", "are one", file("app/straße"), file("app/STRASSE"), case_insensitive=True),
    of("composed twins", "are one", file("app/é"), file("app/e\u0301"), case_insensitive=True),
    of("our records in capitals", "has the name of our own records", file("app/.Release/b"), case_insensitive=True),
    Case("chain over PATH_MAX", chain_over_path_max, "lies below 'a', which is a link"),
]
NUMBERS = [
    of("negative size", "has a negative size", header("app/b", size=base256(-1))),
    of("very negative size", "has a negative size", header("app/b", size=base256(-(2**80)))),
    of("negative size in octal", "is no number (b'-0000000007", header("app/b", size=b"-0000000007\0")),
    of("negative size by pax", "is no number (b'-5')", pax(record("size", "-5")), file("app/b")),
    of("size that is no number", "the size in the header at byte 1024", header("app/b", size=b"0000 000007\0")),
    of("size over all", "its files have more than 67108864 bytes", header("app/b", size=base256(2**80))),
    of("size over all by pax", "its files have more than", pax(record("size", "9" * 18)), header("app/b")),
    of("size with too many digits", "is no number", pax(record("size", "9" * 19)), header("app/b")),
    of("size over the limit", "its files have more than 20 bytes", file("app/b", b"x" * 13), max_bytes=20),
    of(
        "copies over the limit",
        "its files have more than 20 bytes",
        hard_link("app/a", "app/good"),
        hard_link("app/b", "app/good"),
        max_bytes=20,
    ),
    of("entries over the limit", "it has more than 2 entries", file("app/a/b"), max_entries=2),
    of("time that is no number", "the mtime in the pax header", pax(record("mtime", "1e9")), file("app/b")),
    of(
        "pax header of 10 GB",
        "has 10737418240 bytes, 65536 are allowed",
        header("app/x", type=b"x", size=base256(10 * 1024**3)),
    ),
    of(
        "long name of 10 GB",
        "has 10737418240 bytes, 65536 are allowed",
        header("app/x", type=b"L", size=base256(10 * 1024**3)),
    ),
    of("pax header of negative size", "has -1 bytes", header("app/x", type=b"x", size=base256(-1))),
    of("pax header of 64 KiB and one", "has 65537 bytes", pax(record("comment", "c" * (65537 - 15)))),
    of("damaged pax header", "is damaged at its byte 0", pax(b"99 path=app/b\n"), file("app/b")),
    of("pax header without a length", "is damaged at its byte 0", pax(b"path=app/b\n"), file("app/b")),
    of("pax header with a short length", "is damaged at its byte 0", pax(b"3 path=app/b\n"), file("app/b")),
    of("pax header for all with a path", "the pax header for all entries", pax(record("path", "app/b"), type=b"g")),
    of("two pax headers", "two extra headers that contradict", pax(record("path", "app/b")), pax(record("path", "c"))),
    of("pax and GNU", "two extra headers that contradict", pax(record("path", "app/b")), gnu_long(b"L", "app/c")),
    of("GNU and pax", "two extra headers that contradict", gnu_long(b"K", "app/c"), pax(record("path", "app/b"))),
    of("two long names", "two extra headers that contradict", gnu_long(b"L", "app/b"), gnu_long(b"L", "app/c")),
    of("pax header at the end", "it ends where an entry was announced", pax(record("path", "app/b"))),
]
ENDS = [
    stream("no end mark", "ends in the middle of a header, with no end mark before, at byte 1024", file("app/good")),
    stream("half an end mark", "ends in the middle of its end mark", file("app/good") + bytes(BLOCK)),
    stream("one block of zeros", "one block of zeros, not two", file("app/good") + bytes(BLOCK) + file("app/b") + END),
    stream("data behind the end", "data behind its end mark", tar(file("app/good"))[:-1] + b"x"),
    stream("archive behind the end", "data behind its end mark", file("app/good") + END + tar(file("app/b"))),
    stream("zeros behind the record", "data behind its end mark", tar(file("app/good")) + bytes(RECORD)),
    stream("cut in contents", "ends in the middle of the entry 'app/b'", header("app/b", size=5000) + bytes(700)),
    stream("cut in padding", "ends in the middle of the entry 'app/b'", header("app/b", size=5) + b"hello"),
    stream("empty stream", "ends in the middle of a header", b""),
    stream("no entry", "there is nothing below 'app'/", tar()),
    stream("only the top", "there is nothing below 'app'/", tar(folder("app"))),
    stream("only the record", "there is nothing below 'app'/", tar(file("deployment-info.json", b"{}"))),
    stream(
        "wrong checksum",
        "the checksum of the header at byte 0 of the stream is wrong",
        tar(header("app/b").replace(b"b", b"c", 1)),
    ),
]


def bomb(compression: Compression) -> bytes:
    """64 MiB of zeros as one file, 1,000 times smaller than that and more."""
    size = 64 * MIB
    stream_of = file("app/good") + header("app/zeros", size=size) + bytes(size) + END
    return pack(stream_of, compression)


def window_of_2_gib() -> bytes:
    """A zstd frame that asks for 2 GiB of memory (window exponent 31, RFC 8878 section 3.1.1.1.2), and a raw block."""
    data = tar(file("app/good"))
    block = struct.pack("<I", len(data) << 3 | 1)[:3]
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(31 - 10) << 3]) + block + data


def many_frames() -> bytes:
    return pack(tar(file("app/good"))) + pack(b"") * 5000


def many_comments() -> bytes:
    """Headers without end that make no entry."""
    return archive(*(pax(record("comment", os.urandom(32_000).hex()), type=b"g") for _ in range(40)))


ROOMY = (("max_bytes", 1024 * MIB),)
PACKED = [
    Case("zstd bomb", lambda: bomb(ZSTD), "it unpacks to more than 200 times its size", options=ROOMY),
    Case("gzip bomb", lambda: bomb(GZIP), "it unpacks to more than 200 times its size", GZIP, ROOMY),
    Case("bomb behind the end", lambda: pack(tar(file("app/good")) + bytes(64 * MIB)), "data behind its end mark"),
    Case(
        "stream over its limit",
        many_comments,
        "it unpacks to more than the 1130506 bytes",
        options=(("max_bytes", 10), ("max_entries", 10)),
    ),
    Case("window of 2 GiB", window_of_2_gib, "its zstd window is larger than 128 MiB"),
    Case("many frames", many_frames, "it has more than 4096 zstd frames"),
    Case("lzma as zstd", lambda: lzma.compress(tar(file("app/good"))), "it is not packed with zstd"),
    Case("lzma as gzip", lambda: lzma.compress(tar(file("app/good"))), "it is not packed with gzip", GZIP),
    Case("gzip as zstd", lambda: archive(file("app/good"), compression=GZIP), "it is not packed with zstd"),
    Case("no archive", lambda: b"hello", "it is not packed with zstd"),
    Case("nothing", lambda: b"", "it is empty"),
    Case("nothing as gzip", lambda: b"", "it is empty", GZIP),
    Case(
        "gzip of two members",
        lambda: archive(file("app/good"), compression=GZIP) * 2,
        "behind the end of its packed data",
        GZIP,
    ),
    Case(
        "gzip and more",
        lambda: archive(file("app/good"), compression=GZIP) + b"\0\0x",
        "behind the end of its packed data",
        GZIP,
    ),
    Case("zstd and more", lambda: archive(file("app/good")) + b"more", "behind the end of its packed data"),
    Case("zstd and a byte", lambda: archive(file("app/good")) + b"\x28", "behind the end of its packed data"),
    Case("zstd and half a frame", lambda: archive(file("app/good")) + pack(b"")[:-3], "it is cut off"),
    Case(
        "zstd with a dictionary",
        lambda: zstd.compress(tar(file("app/good")), zstd_dict=zstd.ZstdDict(b"app/good" * 99, is_raw=True)),
        "damaged",
    ),
]
CASES = NAMES + TYPES + LINKS + TWINS + NUMBERS + ENDS + PACKED


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_archive_is_refused_in_its_own_words_and_touches_nothing_outside(case: Case, rig: Rig) -> None:
    job = rig.job(case.make(), case.compression, **dict(case.options))
    before = rig.around()
    said = rig.run_child(job)
    assert case.words in said.reason
    assert said.reason.startswith("cannot unpack the archive: ")
    assert "; " in said.reason
    assert rig.around() == before
    assert said.cpu_seconds < MAX_CPU_SECONDS
    assert said.peak_mib < MAX_PEAK_MIB


def test_every_case_has_its_name_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_300000_entries_are_refused_at_the_limit(rig: Rig, soak: bool) -> None:
    limit = 200_000 if soak else 5_000
    template = header("app/00000000/", type=b"5")
    blocks = (archives.signed(template[:4] + b"%08d" % number + template[12:]) for number in range(300_000))
    job = rig.job(archive(*blocks), max_entries=limit)
    said = rig.run_child(job)
    assert f"it has more than {limit} entries" in said.reason
    assert said.peak_mib < MAX_PEAK_MIB
    assert sum(1 for _ in rig.tree.iterdir()) == limit


def test_child_that_needs_more_processor_time_than_it_may_is_killed(rig: Rig) -> None:
    copies = (hard_link(f"app/h{number}", "app/good") for number in range(40_000))
    job = rig.job(archive(file("app/good"), *copies), max_entries=50_000, cpu_seconds=1)
    with pytest.raises(subprocess.CalledProcessError) as killed:
        rig.run_child(job)
    assert killed.value.returncode == -signal.SIGXCPU
