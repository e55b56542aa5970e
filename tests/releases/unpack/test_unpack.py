"""Unpacking in a child of the supervisor: what comes back, what is not believed, and how it is ended."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

import supervisor
from supervisor.process.reaper import Reaper
from supervisor.releases.manifest import Archive, Manifest, Tree
from supervisor.releases.model import Compression, Entry, Kind, ReleaseError
from supervisor.releases.tree import tree_digest, walk_tree
from supervisor.releases.unpack.report import Progress
from supervisor.releases.unpack.unpack import Unpacked, UnpackJob, ready, unpack
from tests.releases.unpack.archives import archive, file, hard_link
from tests.releases.unpack.rig import Rig

pytestmark = pytest.mark.anyio
DATA = archive(file("app/a/b", b"hello"), file("deployment-info.json", b'{"version": "1.2"}'))
TREE = Tree(
    digest=tree_digest(
        [Entry("a", Kind.FOLDER), Entry("a/b", Kind.FILE, hashlib.sha256(b"hello").hexdigest(), 5)],
    ),
    bytes=5,
    entries=2,
)


def manifest(data: bytes = DATA, tree: Tree = TREE) -> Manifest:
    sha256 = hashlib.sha256(data).hexdigest()
    about = Archive(file="app.tar.zst", sha256=sha256, size=len(data), compression=Compression.ZSTD)
    return Manifest(format=1, app="app", version="1", sequence=1, created=datetime.now(UTC), archive=about, tree=tree)


def job(rig: Rig, data: bytes = DATA, tree: Tree = TREE, **options: Any) -> UnpackJob:
    rig.archive.write_bytes(data)
    return UnpackJob.of(manifest(data, tree), rig.archive, rig.tree, **options)


async def run(reaper: Reaper, job: UnpackJob, *, limit_seconds: float = 30) -> Unpacked:
    return await unpack(reaper, job, on_progress=lambda progress: None, limit_seconds=limit_seconds)


def stand_in(rig: Rig, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in the child's place: one that an archive has taken over."""
    program = rig.root / "stand-in"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


async def test_archive_of_its_manifest_becomes_its_tree(rig: Rig, reaper: Reaper) -> None:
    done = await run(reaper, job(rig))
    assert (done.entries, done.bytes, done.digest) == (TREE.entries, TREE.bytes, TREE.digest)
    assert done.info == {"version": "1.2"}
    assert tree_digest(walk_tree(rig.tree)) == TREE.digest
    assert done.elapsed_seconds < 30


async def test_archive_without_a_manifest_is_bounded_by_what_is_given(rig: Rig, reaper: Reaper) -> None:
    rig.archive.write_bytes(DATA)
    free = UnpackJob(rig.archive, len(DATA), hashlib.sha256(DATA).hexdigest(), Compression.ZSTD, rig.tree, max_bytes=9)
    assert (await run(reaper, free)).digest == TREE.digest


async def test_record_of_64_kib_comes_through_whole(rig: Rig, reaper: Reaper) -> None:
    text = '{"text": "' + "é" * 32_500 + '\\n\\u0001"}'
    data = archive(file("app/a/b", b"hello"), file("deployment-info.json", text.encode()))
    done = await run(reaper, job(rig, data))
    assert done.info == {"text": "é" * 32_500 + "\n\x01"}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (TREE.model_copy(update={"digest": "0" * 64}), "its manifest says 0{64}"),
        (TREE.model_copy(update={"bytes": 6}), "it holds 2 entries and 5 bytes, its manifest says 2 and 6"),
        (TREE.model_copy(update={"entries": 3}), "it holds 2 entries and 5 bytes, its manifest says 3 and 5"),
        (TREE.model_copy(update={"bytes": 4}), "its files have more than 4 bytes"),
        (TREE.model_copy(update={"entries": 1}), "it has more than 1 entries"),
    ],
)
async def test_tree_that_its_manifest_does_not_name_is_refused(
    tree: Tree, words: str, rig: Rig, reaper: Reaper
) -> None:
    with pytest.raises(ReleaseError, match=words):
        await run(reaper, job(rig, tree=tree))


async def test_archive_that_changed_since_it_was_verified_is_refused(rig: Rig, reaper: Reaper) -> None:
    unpacking = job(rig)
    rig.archive.write_bytes(archive(file("app/a/b", b"hellO"), file("deployment-info.json", b'{"version": "1.2"}')))
    with pytest.raises(ReleaseError, match=r"SHA-256|bytes, not"):
        await run(reaper, unpacking)


async def test_progress_is_told_on_the_way(rig: Rig, reaper: Reaper) -> None:
    data = archive(file("app/one"), *(hard_link(f"app/{number}", "app/one") for number in range(15_000)))
    heard: list[Progress] = []
    rig.archive.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    free = UnpackJob(rig.archive, len(data), sha256, Compression.ZSTD, rig.tree, max_bytes=10**9)
    done = await unpack(reaper, free, on_progress=heard.append, limit_seconds=60)
    assert heard
    assert heard == sorted(heard, key=lambda progress: progress.bytes)
    assert heard[-1].bytes <= done.bytes
    assert len(heard) <= 4 * done.elapsed_seconds + 1


async def test_child_that_takes_too_long_is_ended(rig: Rig, reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(rig, monkeypatch, "exec sleep 1000")
    with pytest.raises(ReleaseError, match=r"it was not done within 0.2 s; look how busy the disk is"):
        await run(reaper, job(rig), limit_seconds=0.2)
    assert reaper.children == []


async def test_cancelling_ends_the_child(rig: Rig, reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    up = rig.root / "up"
    stand_in(rig, monkeypatch, f"echo $$ > {up}.new; mv {up}.new {up}; trap '' TERM; while :; do sleep 1; done")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(run, reaper, job(rig))
            await _there(up)
            group.cancel_scope.cancel()
    assert reaper.children == []
    assert not Path("/proc", up.read_text().strip()).exists()


async def test_child_that_is_not_used_ends_with_its_block(rig: Rig, reaper: Reaper) -> None:
    async with ready(reaper):
        assert len(reaper.children) == 1
    assert reaper.children == []


async def test_child_that_is_gone_before_its_job_says_how(rig: Rig, reaper: Reaper) -> None:
    async with ready(reaper) as unpacker:
        (child,) = reaper.children
        child.signal(signal.SIGKILL)
        await child.wait()
        with pytest.raises(ReleaseError, match="the program that unpacks it was killed by SIGKILL"):
            await unpacker.unpack(job(rig), on_progress=lambda progress: None, limit_seconds=30)


async def _there(place: Path) -> None:
    while not place.exists():
        await anyio.sleep(0.01)


OK = f'{{"result": "ok", "entries": 2, "bytes": 5, "digest": "{TREE.digest}", "sha256": "'


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo hello", "is not itself any more \\(it says 'hello'\\)"),
        ('yes \'{"bytes": 1, "files": 1}\'', "is not itself any more \\(it says too much\\)"),
        ("yes >&2", "is not itself any more \\(it says too much\\)"),
        ("yes | tr -d '\\n'", "is not itself any more \\(it says 'yyyyyy"),
        ('echo \'{"bytes": -1, "files": 1}\'; exec sleep 1000', "is not itself any more"),
        (f"echo '{OK}{'0' * 64}\"}}'", "the file has the SHA-256 0{64}, not"),
        (f"echo '{OK}'", "is not itself any more"),
        ("exit 3", "the program that unpacks it exited with 3 \\(it said nothing\\); try again"),
        ("echo oops >&2; exit 3", "exited with 3 \\(oops\\)"),
        ("exit 0", "exited with 0"),
        ("kill -KILL $$", "was killed by SIGKILL; look whether the container is out of memory"),
        ("kill -XCPU $$", "it took more processor time than it may"),
    ],
)
async def test_child_that_is_not_itself_is_not_believed(
    script: str, words: str, rig: Rig, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(rig, monkeypatch, script)
    with pytest.raises(ReleaseError, match=f"^cannot unpack the archive: .*{words}"):
        await run(reaper, job(rig))
    assert reaper.children == []


async def test_child_that_says_ok_and_fails_is_not_believed(
    rig: Rig, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(DATA).hexdigest()
    stand_in(rig, monkeypatch, f"echo '{OK}{sha256}\"}}'; exit 1")
    with pytest.raises(ReleaseError, match="exited with 1"):
        await run(reaper, job(rig))


async def test_program_that_cannot_start_is_said(rig: Rig, reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(rig.root / "gone"))
    with pytest.raises(ReleaseError, match="cannot start 'unpack'"):
        await run(reaper, job(rig))


async def test_child_holds_none_of_our_environment_and_is_limited(
    rig: Rig, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "secret")
    told = rig.root / "told"
    stand_in(rig, monkeypatch, f"env > {told}; exit 0")
    with pytest.raises(ReleaseError):
        await run(reaper, job(rig))
    assert "secret" not in told.read_text()


def test_child_loads_nothing_heavy() -> None:
    """With all that the supervisor loads it would need a second before it begins."""
    code = "import sys, supervisor.releases.unpack.child; print(*sys.modules)"
    environment = {"PYTHONPATH": str(Path(supervisor.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment, timeout=30)
    heavy = {b"pydantic", b"anyio", b"asyncio", b"typer", b"tarfile", b"lzma", b"subprocess", b"socket"}
    assert heavy.isdisjoint(done.stdout.split())
