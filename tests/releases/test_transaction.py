"""An update, step by step: what fails leaves the old release serving, and says at which step and why."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.core.errors import MigrationError, RejectedError, RolledBackError
from supervisor.releases import seal
from supervisor.releases.history import History
from supervisor.releases.journal import JournalFile
from supervisor.releases.model import BAKED, ReleaseError
from supervisor.releases.seal import why_damaged
from supervisor.releases.snapshots import kept
from supervisor.releases.state import State, StateFile
from supervisor.releases.transaction import Apply
from tests.releases.rig import Place, sent

pytestmark = pytest.mark.anyio
STEPS = ["receive", "verify", "space", "unpack", "check", "fill", "seal", "snapshot", "migrations", "try"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "app")


def state(place: Place) -> State:
    return StateFile(place.layout).read()[0]


def lines(place: Place) -> list[tuple[str, str]]:
    return [(line.outcome, line.reason) for line in History(place.layout.history).read()]


def nothing_left(place: Place) -> None:
    assert not place.layout.staging.exists() or not list(place.layout.staging.iterdir())
    assert JournalFile(place.layout).read() is None


async def refused(place: Place, apply: Apply, blocks: AsyncIterator[bytes], match: str) -> str:
    with pytest.raises(RejectedError, match=match) as caught:
        await apply.run(blocks)
    nothing_left(place)
    assert place.serving.tree is None
    assert (state(place).active, state(place).trial) == (BAKED, False)
    ((outcome, reason),) = lines(place)
    assert outcome == "rejected"
    assert reason in str(caught.value)
    return str(caught.value)


async def test_a_good_release_comes_into_service_on_trial(place: Place) -> None:
    admitted, archive = place.release("1.0")
    apply = place.apply(admitted)
    await apply.run(sent(archive))
    found = state(place)
    assert (found.active, found.good, found.trial) == (admitted.release, BAKED, True)
    tree = place.layout.tree(admitted.release)
    assert place.serving.tree == tree
    assert place.layout.current.resolve() == tree.resolve()
    assert (tree / "server.js").read_text() == "serve('1.0')"
    assert (tree / ".release/manifest.json").read_bytes() == admitted.data
    assert why_damaged(tree) == ""
    assert list(apply.report.phases) == STEPS
    assert place.database.expanded == ["1.0"]


async def test_the_commit_is_on_the_disk_before_traffic_moves(place: Place) -> None:
    admitted, archive = place.release("1.0")
    seen: list[str] = []

    async def try_out(tree: Path | None, manifest: Any, commit: Callable[[], Any]) -> None:
        seen.append(state(place).active)
        await commit()
        seen.append(state(place).active)
        seen.append(os.readlink(place.layout.current))

    place.serving.try_out = try_out  # type: ignore[method-assign]
    await place.apply(admitted).run(sent(archive))
    assert seen == [BAKED, admitted.release, f"releases/{admitted.release}"]


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ("space", "no room"),
        ("unpack", "a device in it"),
        ("fill", "no image"),
        ("migrations", "relation"),
        ("try", "500"),
    ],
)
async def test_a_step_that_fails_leaves_the_old_release(place: Place, step: str, match: str) -> None:
    parts: dict[str, Any] = {
        "space": place.room,
        "unpack": place.unpacking,
        "fill": place.filling,
        "migrations": place.database,
    }
    if step == "try":
        place.serving.before = RejectedError(match)
    else:
        parts[step].fails = MigrationError(match) if step == "migrations" else ReleaseError(match)
    admitted, archive = place.release("1.0")
    apply = place.apply(admitted)
    await refused(place, apply, sent(archive), match)
    assert list(apply.report.phases) == STEPS[: STEPS.index(step) + 1]


async def test_a_longer_archive_is_refused_before_it_is_whole(place: Place) -> None:
    admitted, archive = place.release("1.0")
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield archive

    await refused(place, place.apply(admitted), endless(), "more than the")
    assert taken == 2


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
async def test_another_archive_is_refused_before_it_is_unpacked(place: Place, change: Callable[[bytes], bytes]) -> None:
    admitted, archive = place.release("1.0")
    place.unpacking.fails = AssertionError("it must not come so far")
    await refused(place, place.apply(admitted), sent(change(archive)), "the manifest says")


async def test_a_tree_that_is_not_what_the_manifest_says_is_refused(place: Place) -> None:
    admitted, archive = place.release("1.0")
    place.unpacking.trees[archive]["lib/a.js"] = "evil"
    await refused(place, place.apply(admitted), sent(archive), "the manifest says")


async def test_a_release_that_turns_bad_is_rolled_back_and_remembered(place: Place) -> None:
    admitted, archive = place.release("1.0")
    place.serving.after = RolledBackError("3 of 3 answers were 5xx")
    with pytest.raises(RolledBackError):
        await place.apply(admitted).run(sent(archive))
    nothing_left(place)
    assert lines(place) == [("rolled_back", "3 of 3 answers were 5xx")]
    assert (state(place).active, state(place).trial) == (BAKED, False)
    assert state(place).releases[admitted.release].failed == "3 of 3 answers were 5xx"
    assert not place.layout.current.is_symlink()


async def test_a_switch_that_fails_after_the_commit_takes_it_back(place: Place) -> None:
    admitted, archive = place.release("1.0")
    place.serving.after = RejectedError("HAProxy does not answer")
    with pytest.raises(RejectedError):
        await place.apply(admitted).run(sent(archive))
    assert (state(place).active, state(place).trial) == (BAKED, False)
    assert lines(place) == [("rejected", "HAProxy does not answer")]


async def test_the_same_release_tried_again_is_not_sent_again(place: Place) -> None:
    admitted, archive = place.release("1.0")
    place.serving.before = RejectedError("it answers 500")
    with pytest.raises(RejectedError):
        await place.apply(admitted).run(sent(archive))
    place.serving.before = None
    again = place.apply(admitted, "t2")
    await again.run(sent(b""))
    assert "receive" not in again.report.phases
    assert state(place).active == admitted.release


async def test_a_second_release_waits_for_the_end_of_a_trial(place: Place) -> None:
    admitted, archive = place.release("1.0")
    await place.apply(admitted).run(sent(archive))
    newer, its = place.release("2.0")
    with pytest.raises(RejectedError, match="still on trial"):
        await place.apply(newer, "t2").run(sent(its))
    assert state(place).active == admitted.release


async def test_the_active_release_is_not_applied_again(place: Place) -> None:
    admitted, archive = place.release("1.0")
    await place.apply(admitted).run(sent(archive))
    StateFile(place.layout).write(replace(state(place), good=admitted.release, trial=False))
    with pytest.raises(RejectedError, match="active already"):
        await place.apply(admitted, "t2").run(sent(archive))


@pytest.mark.parametrize("where", ["unpack", "journal"])
async def test_a_full_disk_refuses_and_is_told(place: Place, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    admitted, archive = place.release("1.0")
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    if where == "unpack":
        place.unpacking.fails = full
    else:
        real, calls = JournalFile.write, []

        def write(self: JournalFile, journal: Any) -> None:
            calls.append(journal)
            if len(calls) == 2:
                raise full
            real(self, journal)

        monkeypatch.setattr(JournalFile, "write", write)
    text = await refused(place, place.apply(admitted), sent(archive), "no space left")
    assert "/data/x" in text
    assert not place.layout.reserve.exists(), "given back, so that this could be written"


async def test_a_disk_that_loses_what_was_written_refuses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    admitted, archive = place.release("1.0")
    calls: list[Path] = []

    def sync(tree: Path) -> None:
        calls.append(tree)
        if len(calls) == 1:  # as the kernel does: an error is given back once
            raise OSError(errno.EIO, "Input/output error", str(tree))

    monkeypatch.setattr(seal, "_sync_filesystem", sync)
    await refused(place, place.apply(admitted), sent(archive), "input/output error")


async def test_cancelled_before_the_commit_the_next_start_undoes_it(place: Place) -> None:
    admitted, archive = place.release("1.0")
    reached = anyio.Event()

    async def try_out(tree: Path | None, manifest: Any, commit: Callable[[], Any]) -> None:
        reached.set()
        await anyio.sleep_forever()

    place.serving.try_out = try_out  # type: ignore[method-assign]
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(place.apply(admitted).run, sent(archive))
            await reached.wait()
            group.cancel_scope.cancel()
    recovered = place.boot()
    assert recovered.state.active == BAKED
    assert "cut short" in recovered.told[0]
    nothing_left(place)
    assert [outcome for outcome, _ in lines(place)] == ["aborted"]


async def test_shared_folders_are_one_for_all_releases(place: Place) -> None:
    first, archive = place.release("1.0", shared=["uploads", "lib/deep"])
    await place.apply(first).run(sent(archive))
    tree = place.layout.tree(first.release)
    (tree / "uploads" / "photo").write_text("mine")
    StateFile(place.layout).write(replace(state(place), good=first.release, trial=False))
    second, its = place.release("2.0", shared=["uploads", "lib/deep"])
    await place.apply(second, "t2").run(sent(its))
    tree = place.layout.tree(second.release)
    assert (tree / "uploads" / "photo").read_text() == "mine"
    assert (tree / "lib/deep/b.js").read_text() == "1.0", "the first release's content is theirs"


async def test_shared_folders_belong_to_whom_the_app_runs_as(place: Place) -> None:
    place.steps = replace(place.steps, owner=(12345, 23456))
    admitted, archive = place.release("1.0", shared=["uploads", "lib/deep"])
    await place.apply(admitted).run(sent(archive))
    tree = place.layout.tree(admitted.release)
    for path in (tree / "uploads", tree / "lib/deep"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)
    begun = list((tree / "lib/deep").rglob("*"))
    assert begun
    assert {path.stat().st_uid for path in begun} == {12345}
    assert (tree / "server.js").stat().st_uid == os.geteuid()


async def test_a_file_where_a_shared_folder_should_be_is_refused(place: Place) -> None:
    admitted, archive = place.release("1.0", shared=["server.js"])
    await refused(place, place.apply(admitted), sent(archive), "it is no folder")


async def test_a_snapshot_is_taken_before_the_migrations(place: Place) -> None:
    place.database.saves = True
    place.database.fails = MigrationError("relation exists")
    admitted, archive = place.release("1.0")
    why = await refused(place, place.apply(admitted), sent(archive), "relation exists")
    (saved,) = kept(place.layout)
    assert (saved.release, Path(saved.file).read_text()) == (admitted.release, "all of it")
    assert place.layout.snapshots.stat().st_mode & 0o777 == 0o700
    assert saved.how_to_restore in why


async def test_a_release_that_turns_bad_says_how_the_database_comes_back(place: Place) -> None:
    place.database.saves = True
    place.serving.after = RolledBackError("it answers worse")
    admitted, archive = place.release("1.0")
    with pytest.raises(RolledBackError, match=r"it answers worse; the database of before is saved in .*pg_restore"):
        await place.apply(admitted).run(sent(archive))


async def test_files_that_older_pages_ask_for_are_carried_along(place: Place) -> None:
    first, archive = place.release("1.0", keep_assets=["lib"])
    await place.apply(first).run(sent(archive))
    (known,) = state(place).releases.values()
    releases = {first.release: replace(known, confirmed=True)}
    (place.layout.tree(first.release) / "lib" / "old-chunk.js").write_text("old")
    (place.layout.tree(first.release) / ".release" / "assets.json").write_text('["lib/old-chunk.js"]')
    StateFile(place.layout).write(replace(state(place), good=first.release, trial=False, releases=releases))
    second, its = place.release("2.0", keep_assets=["lib"])
    await place.apply(second, "t2").run(sent(its))
    tree = place.layout.tree(second.release)
    assert (tree / "lib/old-chunk.js").read_text() == "old"
    assert (tree / "lib/deep/b.js").read_text() == "2.0"
    assert why_damaged(tree) == ""
