"""What git says of the source, by its program and real repositories."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from supervisor.process.child import Command, RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.releases.build.git import GitFacts, read_git
from supervisor.services.backend import run_and_quote
from tests.releases.build.rig import LIMIT_SECONDS, make_tree, run

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")]
WHO = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false")


@pytest.fixture
async def programs() -> AsyncIterator[RunProgram]:
    async with anyio.create_task_group() as group:
        reaper = Reaper()
        await group.start(reaper.run)

        async def run_program(command: Command) -> tuple[int, str]:
            return await run_and_quote(reaper, command, Ring(command.name), limit_seconds=LIMIT_SECONDS)

        yield run_program
        group.cancel_scope.cancel()


def git(folder: Path, *words: str) -> str:
    environ = {**os.environ, "GIT_COMMITTER_DATE": "1700000000 +0200", "GIT_CONFIG_GLOBAL": "/dev/null"}
    return run("git", *WHO, "-C", folder, *words, env=environ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """With one commit, on branch `main`."""
    folder = make_tree(tmp_path / "repository", {"a": "1", "app/b": "2"})
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


async def ask(folder: Path, programs: RunProgram, **environ: str) -> GitFacts:
    return await read_git(folder, programs, {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", **environ})


async def test_a_clean_tree_names_its_commit_and_time(repository: Path, programs: RunProgram) -> None:
    facts = await ask(repository, programs)
    commit = git(repository, "rev-parse", "HEAD")
    assert facts == GitFacts(commit, "main", False, 1_700_000_000, commit[:7])


async def test_a_tag_and_a_detached_head_are_told(repository: Path, programs: RunProgram) -> None:
    git(repository, "tag", "v3.0")
    git(repository, "checkout", "--quiet", "--detach")
    facts = await ask(repository, programs)
    assert (facts.branch, facts.described) == ("", "v3.0")


@pytest.mark.parametrize("change", ["changed", "staged", "removed", "new"])
async def test_a_tree_that_differs_from_its_commit_is_dirty(
    repository: Path, programs: RunProgram, change: str
) -> None:
    if change == "removed":
        (repository / "a").unlink()
    else:
        (repository / ("c" if change == "new" else "a")).write_text("other")
    if change == "staged":
        git(repository, "add", ".")
    assert (await ask(repository, programs)).dirty


async def test_what_git_ignores_and_what_is_beside_the_app_makes_nothing_dirty(
    repository: Path, programs: RunProgram
) -> None:
    make_tree(repository, {"app/dist-tarball/.gitignore": "*\n", "app/dist-tarball/x.tar.zst": "", "beside": ""})
    facts = await ask(repository / "app", programs)
    assert facts.commit
    assert not facts.dirty


async def test_a_worktree_is_a_repository_too(repository: Path, programs: RunProgram, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    facts = await ask(tmp_path / "side", programs)
    assert (facts.branch, facts.committed_at, facts.dirty) == ("side", 1_700_000_000, False)


async def test_a_folder_without_a_repository_is_no_surprise(tmp_path: Path, programs: RunProgram) -> None:
    assert await ask(tmp_path, programs, GIT_CEILING_DIRECTORIES=str(tmp_path.parent)) == GitFacts()


async def test_a_repository_without_git_says_why_nothing_is_known(
    repository: Path, programs: RunProgram, tmp_path: Path
) -> None:
    assert await ask(repository / "app", programs, PATH=str(tmp_path)) == GitFacts(why="there is no program 'git' here")


async def test_a_repository_that_git_refuses_says_why(repository: Path, programs: RunProgram) -> None:
    (repository / ".git" / "HEAD").write_text("nonsense")
    facts = await ask(repository, programs, GIT_CEILING_DIRECTORIES=str(repository.parent))
    assert facts.commit == ""
    assert facts.why.startswith("fatal: ")


async def test_what_the_repository_tells_git_to_run_is_not_run(
    repository: Path, programs: RunProgram, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    assert (await ask(repository, programs)).commit
    assert not (tmp_path / "ran").exists()
