"""The private engine comes, is shared, and leaves nothing, whatever is killed. One beside that of the session."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_rig import private, record, residue
from tests.engine_rig.engine import Engine
from tests.engine_rig.places import REPOSITORY, EngineRigError, Places

pytestmark = pytest.mark.engine


@pytest.fixture
def places(engine: Engine) -> Iterator[Places]:
    """A folder of its own; `engine` has installed what is needed, where it could."""
    if os.geteuid() != 0 or not shutil.which("dockerd", path="/usr/sbin:/usr/bin"):
        pytest.skip("a private engine needs root and dockerd")
    made = Places(Path(tempfile.mkdtemp(prefix="svt-")) / "engine")
    try:
        yield made
    finally:
        private.end(made)
        shutil.rmtree(made.folder.parent)


def traces(places: Places) -> list[str]:
    """What is left on the machine."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True, env={"PATH": "/usr/sbin"})
    left = [line for line in rules.stdout.splitlines() if places.bridge in line]
    left += [name for name in residue.interfaces() if name == places.bridge]
    for pattern in (places.cgroup[1:], f"*{places.cgroup}"):  # version 2, version 1
        left += [str(path) for path in Path("/sys/fs/cgroup").glob(pattern)]
    left += [line for line in Path("/proc/mounts").read_text().splitlines() if str(places.folder) in line]
    left += [str(path) for path in (places.socket, places.pid_file, places.record) if path.exists()]
    return left + [" ".join(argv) for _, argv in private.processes(places)]


def engine_in(places: Places) -> Engine:
    return Engine(places.host, private=True, cache=places.folder.parent)


def start_container(places: Places, engine: Engine) -> None:
    """On an image of the session's engine."""
    archive = places.folder / "base.tar"
    engine.run("save", "--output", archive, engine.image("base"))
    engine_in(places).run("load", "--input", archive)
    engine_in(places).run("run", "--detach", engine.image("base"), "sleep", "1000")


def network_bridges(places: Places) -> list[str]:
    """Makes a network, so that there is a bridge besides the first."""
    name = engine_in(places).output("network", "create", "one")
    return [each for each in residue.interfaces() if each == f"br-{name[:12]}"]


def test_the_last_to_leave_ends_the_engine_with_all_its_traces(places: Places) -> None:
    first, second = private.use(places), private.use(places)
    assert (first.fresh, second.fresh) == (True, False)
    bridges = network_bridges(places)
    assert bridges
    assert traces(places)
    first.leave()
    assert private.answers(places.socket)
    second.leave()
    assert traces(places) == []
    assert not residue.interfaces() & set(bridges)


def test_a_user_that_crashes_leaves_no_engine(places: Places) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path\n"
        "from tests.engine_rig import private; from tests.engine_rig.places import Places\n"
        f"private.use(Places(Path({str(places.folder)!r}))); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    private.wait_until(lambda: not places.record.exists(), "gone")
    assert traces(places) == []


def test_a_killed_keeper_takes_the_engine_with_it_and_the_next_clears_up(places: Places, engine: Engine) -> None:
    first = private.use(places)
    bridges = network_bridges(places)
    start_container(places, engine)
    found = record.read(places.record)
    assert found
    os.kill(found.pid, signal.SIGKILL)
    private.wait_until(lambda: not private.answers(places.socket), "gone")
    with pytest.raises(EngineRigError):
        private.wait_until(lambda: not traces(places), "clear", limit_seconds=0.2)
    again = private.use(places)
    assert again.fresh
    assert len([name for name in residue.interfaces() if name == places.bridge]) == 1
    first.leave()
    again.leave()
    assert traces(places) == []
    assert not residue.interfaces() & set(bridges)


def test_one_started_to_stay_outlives_its_users_until_it_is_ended(places: Places) -> None:
    private.use(places, stay=True).leave()
    assert private.answers(places.socket)
    assert private.end(places)
    assert traces(places) == []
    assert not private.end(places)


def test_a_killed_dockerd_comes_back_and_one_of_a_user_is_not_killed(places: Places) -> None:
    use = private.use(places)
    before = private.dockerd_pid(places)
    engine_in(places).restart(signal.SIGKILL)
    assert private.dockerd_pid(places) != before
    with pytest.raises(EngineRigError, match="not the tests' own"):
        Engine(places.host, private=False, cache=places.folder.parent).restart()
    use.leave()
    assert traces(places) == []


def test_addresses_of_an_earlier_run_do_not_come_back(places: Places) -> None:
    gateway = ("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
    found = []
    for wish in ("172.30.21.0/26", "172.30.21.64/26"):
        use = private.use(places, wish=wish)
        found.append(engine_in(places).output(*gateway))
        use.leave()
    assert found == ["172.30.21.1", "172.30.21.65"]
