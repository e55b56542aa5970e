"""The reader and the decompressor on random and mutated input: success or a refusal, and nothing outside its folder."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.releases.model import Compression, ReleaseError
from supervisor.releases.tree import tree_digest, walk_tree
from tests.releases.unpack import archives
from tests.releases.unpack.archives import archive, file, folder, gnu_long, hard_link, link, pack, pax, record, tar
from tests.releases.unpack.rig import Rig

SECONDS, SECONDS_WITH_SOAK = 4.0, 60.0
EXAMPLES = 250
NAMES = ("a", "b", "c", "..", ".", "", "app", "A", "l", "x" * 20, "é")
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def good_stream() -> bytes:
    return tar(
        folder("app"),
        folder("app/a"),
        file("app/a/b", b"b" * 700, mode=0o755),
        link("app/l", "a/b"),
        hard_link("app/h", "app/a/b"),
        pax(record("path", "app/" + "p" * 120), record("mtime", "1.5")) + file("app/p"),
        gnu_long(b"L", "app/" + "g" * 120) + file("app/g"),
        gnu_long(b"K", "a/" + "k" * 120) + link("app/k", "k"),
        file("deployment-info.json", b'{"version": 1}'),
        file("app/z/z", b"z" * 20_000),
    )


def check(rig: Rig, data: bytes, compression: Compression) -> bool:
    """Unpack it; True where it was taken. Whatever it was, all around is as before."""
    shutil.rmtree(rig.tree, ignore_errors=True)
    with contextlib.suppress(ReleaseError):
        done = rig.extract(data, compression, max_bytes=4 * 2**20, max_entries=200)
        assert tree_digest(walk_tree(rig.tree)) == done.digest
        assert all(_stays(place, rig.tree) for place in rig.tree.rglob("*"))
        return True
    # Links come last of all, when nothing can be refused any more.
    assert not any(place.is_symlink() for place in rig.tree.rglob("*"))
    return False


def _stays(place: Path, tree: Path) -> bool:
    return place.resolve().is_relative_to(tree.resolve())


def untouched(rig: Rig) -> dict[str, tuple[object, ...]]:
    """All around but the archive, which is another each time."""
    return {path: what for path, what in rig.around().items() if path != str(rig.archive)}


def mutated(noise: random.Random, data: bytes, *, words: tuple[bytes, ...]) -> bytes:
    """Some bytes changed, cut out, doubled, or written over by what a reader looks for."""
    made = bytearray(data)
    for _ in range(noise.randrange(1, 5)):
        at = noise.randrange(len(made) + 1)
        match noise.randrange(5):
            case 0 if at < len(made):
                made[at] ^= 1 << noise.randrange(8)
            case 1:
                del made[at : at + noise.choice((1, 7, 512, 1024))]
            case 2:
                made[at:at] = made[at : at + noise.choice((1, 512, 1024))]
            case 3:
                word = noise.choice(words)
                made[at : at + len(word)] = word
            case _:
                del made[at:]
                made += noise.randbytes(noise.randrange(600))
    return bytes(made)


def resigned(stream: bytes) -> bytes:
    """With right checksums wherever a header seems to be, so that what is behind that check is met too."""
    blocks = [stream[at : at + 512] for at in range(0, len(stream), 512)]
    return b"".join(
        archives.signed(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks
    )


def aligned(noise: random.Random, stream: bytes) -> bytes:
    """Header fields and whole blocks exchanged."""
    blocks = [stream[at : at + 512] for at in range(0, len(stream), 512)]
    for _ in range(noise.randrange(1, 6)):
        at = noise.randrange(len(blocks))
        match noise.randrange(4):
            case 0:
                blocks.insert(at, noise.choice(blocks))
            case 1:
                blocks[at] = noise.choice(blocks)
            case 2:
                start, length = noise.choice(((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8)))
                other = noise.choice(blocks)
                blocks[at] = blocks[at][:start] + other[start : start + length] + blocks[at][start + length :]
            case _:
                mark = noise.choice(b"0123456712512512xgLKSD\0")
                blocks[at] = blocks[at][:156] + bytes([mark]) + blocks[at][157:]
    return resigned(b"".join(blocks))


WORDS = (
    b"app/",
    b"../",
    b"/",
    b"\0",
    b"\xff" * 12,
    b"\x80" + bytes(11),
    b"ustar\x0000",
    bytes(512),
    b"99999 path=",
    b"-",
)
MUTATIONS: dict[str, Callable[[random.Random], tuple[bytes, Compression]]] = {
    "the stream": lambda noise: (pack(mutated(noise, good_stream(), words=WORDS)), Compression.ZSTD),
    "the stream's blocks": lambda noise: (pack(aligned(noise, good_stream())), Compression.ZSTD),
    "the stream and its checksums": lambda noise: (
        pack(resigned(mutated(noise, good_stream(), words=WORDS)), Compression.GZIP),
        Compression.GZIP,
    ),
    "zstd": lambda noise: (mutated(noise, pack(good_stream()), words=(b"\x28\xb5\x2f\xfd",)), Compression.ZSTD),
    "gzip": lambda noise: (
        mutated(noise, pack(good_stream(), Compression.GZIP), words=(b"\x1f\x8b\x08",)),
        Compression.GZIP,
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_mutation_of_a_good_archive_is_unpacked_or_refused(what: str, rig: Rig, soak: bool) -> None:
    seed = random.randrange(2**32)
    noise = random.Random(seed)
    before = untouched(rig)
    deadline = time.monotonic() + (SECONDS_WITH_SOAK if soak else SECONDS)
    number = 0
    while time.monotonic() < deadline:
        number += 1
        data, compression = MUTATIONS[what](noise)
        try:
            check(rig, data, compression)
        except BaseException as error:
            error.add_note(f"seed {seed}, mutation {number} of {what}; the archive is {data.hex()}")
            raise
    assert untouched(rig) == before
    assert number > 10


def test_good_archive_of_the_fuzzer_is_good(rig: Rig) -> None:
    for compression in Compression:
        assert check(rig, pack(good_stream(), compression), compression)
    assert resigned(good_stream()) == good_stream()


paths = st.lists(st.sampled_from(NAMES), min_size=0, max_size=4).map(lambda parts: "/".join(("app", *parts)))
targets = st.lists(st.sampled_from(("..", "..", "a", "b", "l", ".", "")), max_size=5).map("/".join)
entries = st.one_of(
    st.builds(file, paths, st.binary(max_size=600)),
    st.builds(folder, paths),
    st.builds(link, paths, targets),
    st.builds(hard_link, paths, paths),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS, database=None)
@given(parts=st.lists(entries, max_size=8))
def test_entries_in_any_order_stay_in_the_tree(parts: list[bytes], rig: Rig) -> None:
    before = untouched(rig)
    check(rig, archive(*parts), Compression.ZSTD)
    assert untouched(rig) == before


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS, database=None)
@given(data=st.binary(max_size=3_000), compression=st.sampled_from(Compression), packed=st.booleans())
def test_noise_is_refused(data: bytes, compression: Compression, packed: bool, rig: Rig) -> None:
    assert not check(rig, pack(data, compression) if packed else data, compression)
