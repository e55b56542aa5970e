"""A run that is spread over processes: all files of the engine in one of them, and nothing of its end is lost."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.engine_rig.places import REPOSITORY
from tests.spread import DAEMONS, ENGINE, group, rank

ENGINE_FILES = ("tests/engine_rig/test_rig.py", "tests/e2e/docker/test_memory.py", "tests/e2e/docker/test_dind.py")
OTHER_FILES = ("tests/core/test_machine.py", "tests/core/test_errors.py")


def ran(output: str, folder: str) -> set[tuple[str, str, str]]:
    """(process, outcome, test) of the tests below a folder."""
    return set(re.findall(rf"\[(gw\d)\].*? ([A-Z]+) ({folder}.*)", output))


def test_files_of_the_engine_are_one_group_and_begin() -> None:
    engine, end_to_end, other = "tests/e2e/docker/test_dind.py", "tests/e2e/test_stack.py", "tests/core/test_machine.py"
    assert [group(each) for each in (engine, end_to_end, other)] == [ENGINE, end_to_end, other]
    assert group("tests/engine/test_swarm.py") == DAEMONS
    assert sorted((other, end_to_end, engine), key=rank) == [engine, end_to_end, other]


def test_engine_s_tests_run_in_one_process_and_what_was_left_out_is_told() -> None:
    argv = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile"]
    argv += ["--no-loadscope-reorder", "--no-engine", *OTHER_FILES, *ENGINE_FILES]
    output = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False).stdout
    engine, other = ran(output, "tests/e"), ran(output, "tests/core")
    assert {outcome for _, outcome, _ in engine} == {"SKIPPED"}, output
    assert len({process for process, _, _ in engine}) == 1, output
    assert len({test.partition("::")[0] for _, _, test in engine}) == len(ENGINE_FILES), output
    assert {outcome for _, outcome, _ in other} == {"PASSED"}, output
    assert f"{len(engine)} tests on a real Docker engine were left out" in output
