"""The reader in real situations: real sockets, folders, processes, users, namespaces, capabilities and engines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode, Owner
from supervisor.core.settings import Settings
from supervisor.engine import privileges
from supervisor.engine.decision import CleanupKind, Decision, Wait
from supervisor.engine.dockerd.mounts import parse_mounts
from supervisor.engine.endpoint import Named, parse
from supervisor.engine.facts import (
    Connected,
    Facts,
    PathKind,
    PidFileState,
    Pinged,
    Privileges,
    Probed,
    RuntimeRecord,
    SocketPath,
    Tls,
)
from supervisor.engine.interview import engine_info
from supervisor.engine.mode import decide, detect
from supervisor.engine.own_container import Traces, candidates, found_in_list, is_us, local_addresses, stop_seconds
from supervisor.engine.processes import ProcessTable, read_record
from supervisor.engine.reader import FactReader, Sources
from supervisor.engine.sockets import look
from supervisor.engine.transport import Answer, ConnectError, ask, connect
from tests.engine.daemons import Daemon, private_daemon, save_image
from tests.engine.fake_engine import answering, answering_tcp, as_engine, as_filter, saying
from tests.process.namespaces import UNSHARE, kill_tree, require_namespaces

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "tests/engine/programs/read_facts.py")]
FAKE_ENGINE = [sys.executable, str(ROOT / "tests/engine/fake_engine.py")]
LIMIT_SECONDS = 30.0
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket's path, and open to other users."""
    with tempfile.TemporaryDirectory(prefix="facts-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def sources(folder: Path) -> Sources:
    return Sources(default_socket=str(folder / "docker.sock"), config_folder=folder)


def hasty(sources: Sources) -> Sources:
    """For what will not answer anyway."""
    return replace(sources, limit_seconds=0.3)


async def facts_of(sources: Sources) -> Facts:
    with anyio.fail_after(LIMIT_SECONDS):
        return await FactReader(sources).read()


def unmounted(facts: Facts) -> Facts:
    """As on a machine whose /tmp is no mount of its own."""
    assert facts.socket is not None
    return replace(facts, socket=replace(facts.socket, mount=""), processes=())


def capable(facts: Facts) -> Facts:
    """As in a privileged container with dockerd."""
    return replace(
        unmounted(facts), privileges=Privileges(effective=(1 << 41) - 1), programs={"dockerd": "/usr/bin/dockerd"}
    )


def code_of(facts: Facts) -> str:
    with pytest.raises(EngineError) as caught:
        decide(facts)
    return caught.value.code


def row_of(facts: Facts) -> int:
    return decide(facts).row


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {LIMIT_SECONDS:g} s"
        time.sleep(0.01)


def read_in(before: Sequence[str], *arguments: str | Path) -> dict[str, Any]:
    """What the reader finds where `before` puts it."""
    words = [*before, *PROGRAM, *map(str, arguments)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ, cwd="/")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()


# What is at the path


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _full_folder(path: Path) -> None:
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "kind", "outcome"),
    [
        (lambda path: None, PathKind.ABSENT, 12),
        (Path.mkdir, PathKind.DIRECTORY, 14),
        (_full_folder, PathKind.DIRECTORY, "E10"),
        (Path.touch, PathKind.FILE, 15),
        (lambda path: path.write_text("x"), PathKind.FILE, "E10"),
        (lambda path: path.symlink_to("nowhere"), PathKind.DANGLING_LINK, 15),
        (_loop, PathKind.DANGLING_LINK, 15),
        (_fifo, PathKind.OTHER, "E10"),
        (dead_socket, PathKind.SOCKET, 20),
    ],
)
async def test_what_is_at_the_path_is_seen_and_decided_on(
    sources: Sources, make: Callable[[Path], Any], kind: PathKind, outcome: int | str
) -> None:
    make(Path(sources.default_socket))
    facts = await facts_of(sources)
    assert facts.socket is not None
    assert facts.socket.kind is kind
    assert facts.unread == ()
    assert (code_of if isinstance(outcome, str) else row_of)(capable(facts)) == outcome


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, dead_socket])
def test_a_folder_a_file_and_a_dead_socket_all_refuse_so_the_look_must_come_first(
    sources: Sources, make: Callable[[Path], Any]
) -> None:
    """The kernel's behaviour the order of reading rests on."""
    make(Path(sources.default_socket))
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(sources.default_socket)


async def test_a_link_to_a_live_socket_is_followed(sources: Sources, folder: Path) -> None:
    Path(sources.default_socket).symlink_to(folder / "real.sock")
    with answering(str(folder / "real.sock")):
        facts = await facts_of(sources)
    assert facts.socket is not None
    assert (facts.socket.kind, facts.socket.real_path) == (PathKind.SOCKET, str(folder / "real.sock"))
    assert facts.ping.result is Pinged.OK


def test_a_socket_below_a_mount_is_a_mounted_one_and_one_on_the_root_is_not() -> None:
    table = parse_mounts(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 8:1 /run/docker.sock /srv/docker.sock rw - tmpfs tmpfs rw\n"
        "3 1 8:1 / /var\\040lib rw - ext4 /dev/sdb rw\n"
    )
    assert look("/srv/docker.sock", table).mount == "/srv/docker.sock"
    assert look("/var lib/run/docker.sock", table).mount == "/var lib"
    assert not look("/srv/docker.sock.d/x", table).is_mounted


@as_root
@pytest.mark.namespaces
def test_a_folder_mounted_over_the_socket_is_e09_whatever_the_privileges(folder: Path) -> None:
    for name in ("there", "docker.sock"):
        (folder / name).mkdir()
    script = f'mount --bind {folder}/there {folder}/docker.sock && exec "$@"'
    found = read_in(["unshare", "--mount", "sh", "-c", script, "sh"], folder / "docker.sock")
    assert found["facts"]["socket"]["mount"] == f"{folder}/docker.sock"
    assert found["code"] == "E09"


@as_root
@pytest.mark.namespaces
def test_a_dead_socket_behind_a_mount_is_waited_for(folder: Path) -> None:
    dead_socket(folder / "host.sock")
    (folder / "docker.sock").touch()
    script = f'mount --bind {folder}/host.sock {folder}/docker.sock && exec "$@"'
    found = read_in(["unshare", "--mount", "sh", "-c", script, "sh"], folder / "docker.sock")
    assert found["waits"] == 18
    assert found["text"].startswith("E12: ")


@as_root
@pytest.mark.namespaces
def test_dind_by_name_beside_a_mounted_socket_listens_elsewhere(folder: Path) -> None:
    """Nothing can be bound over a mount."""
    (folder / "docker.sock").touch()
    with answering(f"{folder}/host.sock"):
        script = f'mount --bind {folder}/host.sock {folder}/docker.sock && exec "$@"'
        forced = ["--forced", "dind", "--own-socket", f"{folder}/own.sock"]
        found = read_in(["unshare", "--mount", "sh", "-c", script, "sh"], folder / "docker.sock", *forced)
    assert found["facts"]["chosen"]["endpoint"]["path"] == f"{folder}/own.sock"
    assert found["facts"]["connection"]["result"] == "not tried"
    # E01 where this machine has no dockerd, or not the rights for one.
    assert found.get("code", found.get("decision", {}).get("mode")) in ("dind", "E01")


@as_root
def test_a_socket_of_another_user_is_e11_with_the_group_to_add(folder: Path) -> None:
    path = folder / "docker.sock"
    with answering(str(path)):
        path.chmod(0o660)
        os.chown(path, 0, 4711)
        found = read_in([], path, "--uid", str(NOBODY))
    assert found["facts"]["connection"]["result"] == "denied"
    assert found["code"] == "E11"
    assert "--group-add 4711" in found["text"]
    assert f"uid {NOBODY}" in found["text"]


@as_root
def test_a_socket_below_a_locked_folder_is_e11_naming_the_folder(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o700)
    with answering(str(locked / "docker.sock")):
        found = read_in([], locked / "docker.sock", "--uid", str(NOBODY))
    assert found["facts"]["socket"]["kind"] == PathKind.UNSEARCHABLE
    assert found["facts"]["socket"]["blocked_at"] == str(locked)
    assert found["code"] == "E11"


# Who listens


async def test_a_listener_in_our_pid_namespace_shows_its_pid(sources: Sources) -> None:
    with answering(sources.default_socket):
        facts = await facts_of(sources)
    assert facts.connection.peer is not None
    assert facts.connection.peer.pid == os.getpid()
    assert facts.connection.peer.process is not None
    assert facts.connection.peer.process.same_mounts
    assert (facts.ping.result, facts.ping.api_version) == (Pinged.OK, "1.41")
    outcome = decide(capable(facts))
    assert isinstance(outcome, Decision)
    assert (outcome.row, outcome.mode, outcome.start_engine) == (31, Mode.REMOTE, False)


@pytest.mark.namespaces
def test_a_listener_outside_our_pid_namespace_shows_pid_zero(folder: Path) -> None:
    """As the host's engine does to a container."""
    require_namespaces()
    with answering(str(folder / "docker.sock")):
        found = read_in(UNSHARE, folder / "docker.sock")
    peer = found["facts"]["connection"]["peer"]
    assert (peer["pid"], peer["process"]) == (0, None)
    assert found["facts"]["engine"]["version"] == "20.10.24"
    assert (found["decision"]["row"], found["decision"]["mode"]) == (27, "remote")


@pytest.mark.namespaces
async def test_a_listener_in_a_namespace_below_ours_is_no_engine_of_ours(sources: Sources, folder: Path) -> None:
    """Our PID namespace shows the processes of those below it, with another mount namespace."""
    require_namespaces()
    (folder / "dockerd").symlink_to(sys.executable)
    words = [*UNSHARE, str(folder / "dockerd"), *FAKE_ENGINE[1:], sources.default_socket]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "listening\n"
            facts = await facts_of(sources)
        finally:
            kill_tree(running.pid)
    assert facts.connection.peer is not None
    process = facts.connection.peer.process
    assert process is not None
    assert (process.comm, process.same_mounts) == ("dockerd", False)
    assert row_of(facts) == 30


async def test_a_silent_listener_is_waited_for(sources: Sources) -> None:
    with saying(sources.default_socket, b"", hang_up=False):
        facts = await facts_of(hasty(sources))
    assert (facts.connection.result, facts.ping.result) == (Connected.OK, Pinged.TIMEOUT)
    assert row_of(facts) == 22


async def test_a_listener_that_never_finishes_its_answer_is_silent(sources: Sources) -> None:
    with saying(sources.default_socket, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nO", hang_up=False):
        facts = await facts_of(hasty(sources))
    assert facts.ping.result is Pinged.TIMEOUT


async def test_a_listener_with_a_full_queue_does_not_hold_us(sources: Sources) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(sources.default_socket)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(sources.default_socket)
        facts = await facts_of(hasty(sources))
    assert facts.connection.result is Connected.TIMEOUT
    assert row_of(facts) == 22


@pytest.mark.parametrize(
    ("data", "result", "outcome"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", Pinged.GARBAGE, "E14"),
        (b"\x00\xff\xfe", Pinged.GARBAGE, "E14"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Pinged.GARBAGE, "E14"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Pinged.HTTP_ERROR, "E14"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Pinged.HTTP_ERROR, "E17"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Pinged.HTTP_ERROR, 22),
        (b"", Pinged.CLOSED, 22),
    ],
)
async def test_a_wrong_answer_is_told_from_a_late_one(
    sources: Sources, data: bytes, result: Pinged, outcome: int | str
) -> None:
    with saying(sources.default_socket, data, hang_up=True):
        facts = await facts_of(sources)
    assert facts.ping.result is result
    assert (code_of if isinstance(outcome, str) else row_of)(facts) == outcome


async def test_a_filtering_proxy_is_e17_with_what_it_refuses(sources: Sources) -> None:
    with answering(sources.default_socket, as_filter):
        facts = await facts_of(sources)
    assert "GET /services: 403" in facts.refusals
    assert "POST /containers/<id>/start: 403" in facts.refusals
    assert code_of(facts) == "E17"


async def test_a_proxy_that_only_lets_us_read_is_e17(sources: Sources) -> None:
    with answering(
        sources.default_socket, lambda method, path: as_engine(method, path) if method == "GET" else (403, {})
    ):
        facts = await facts_of(sources)
    assert facts.refusals == ("POST /containers/<id>/start: 403",)
    assert code_of(facts) == "E17"


async def test_an_engine_that_answers_its_ping_and_nothing_more_counts_as_silent(sources: Sources) -> None:
    with answering(sources.default_socket, lambda method, path: as_engine(method, path) if path == "/_ping" else None):
        facts = await facts_of(sources)
    assert facts.ping.result is Pinged.TIMEOUT
    assert facts.ping.detail == "it answered the ping, but not /info"
    assert row_of(facts) == 22


async def test_our_own_container_is_found_by_its_id_only_where_it_fits_us(sources: Sources) -> None:
    ours = {"Id": "c" * 64, "State": {"Running": True}, "Config": {"Hostname": socket.gethostname(), "StopTimeout": 90}}
    theirs = {**ours, "Config": {"Hostname": "another"}}
    for document, found in ((ours, "c" * 64), (theirs, "")):

        def answer(method: str, path: str, document: object = document) -> tuple[int, object]:
            return (200, document) if path == "/containers/mine/json" else as_engine(method, path)

        with answering(sources.default_socket, answer):
            facts = await facts_of(replace(sources, container_id="mine"))
        assert facts.own_container.found == found
        assert (facts.own_container.stop_seconds == 90) is bool(found)


@pytest.mark.parametrize(("hostname", "found"), [(socket.gethostname(), "d" * 64), ("another", "")])
async def test_our_address_in_the_list_counts_only_with_our_name(
    sources: Sources, folder: Path, hostname: str, found: str
) -> None:
    """A sidecar's engine gives its first container the address, and the MAC address, that ours gave us."""
    (folder / "sys/class/net/eth0").mkdir(parents=True)
    (folder / "sys/class/net/eth0/address").write_text("02:42:ac:11:00:02\n")
    traced = proc_like_ours(folder, fib_trie="  |-- 172.17.0.2\n     /32 host LOCAL\n")
    network = {"Networks": {"bridge": {"IPAddress": "172.17.0.2", "MacAddress": "02:42:ac:11:00:02"}}}
    listed = {"Id": "d" * 64, "NetworkSettings": network}
    document = {**listed, "State": {"Running": True}, "Config": {"Hostname": hostname}}

    def answer(method: str, path: str) -> tuple[int, object]:
        known = {"/containers/json": [listed], f"/containers/{'d' * 64}/json": document}
        return (200, known[path]) if path in known else as_engine(method, path)

    with answering(sources.default_socket, answer):
        facts = await facts_of(replace(sources, sys=folder / "sys", places=privileges.Places(proc=traced)))
    assert facts.own_container.found == found


def proc_like_ours(folder: Path, *, fib_trie: str = "", init: str = "sh", second: str = "") -> Path:
    """A /proc of recorded texts."""
    proc = folder / "proc"
    texts = {
        "self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
        "self/status": "CapEff:\t0000000000000000\nNSpid:\t77\n",
        "net/fib_trie": fib_trie,
        "1/comm": f"{init}\n",
    } | ({"2/comm": f"{second}\n"} if second else {})
    for name, text in texts.items():
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(text)
    return proc


@pytest.mark.parametrize(
    ("init", "second", "own_pid", "shared"),
    [
        ("sh", "", 77, False),
        ("sh", "kthreadd", 77, True),
        ("systemd", "", 77, True),
        ("systemd", "", 1, False),
        ("tini", "sh", 77, False),
    ],
)
def test_a_shared_pid_namespace_of_the_host_is_recognised(
    folder: Path, init: str, second: str, own_pid: int, shared: bool
) -> None:
    table = ProcessTable(proc_like_ours(folder, init=init, second=second))
    assert table.shares_host_pids(own_pid) is shared


async def test_what_cannot_be_read_is_said_and_ends_nothing(sources: Sources, folder: Path) -> None:
    facts = await facts_of(replace(sources, places=privileges.Places(proc=folder / "none")))
    assert "mount table" in facts.unread[0]
    assert facts.socket is not None
    assert facts.socket.kind is PathKind.ABSENT


async def test_detect_waits_for_a_socket_that_appears(sources: Sources) -> None:
    """With the real reader: an engine named by DOCKER_HOST, whose sidecar comes up later."""
    configured = replace(sources, named=Named(f"unix://{sources.default_socket}"), default_socket="/elsewhere.sock")
    with contextlib.ExitStack() as stack:
        waits: list[Wait] = []

        async def appear(wait: Wait) -> None:
            waits.append(wait)
            stack.enter_context(answering(sources.default_socket))

        with anyio.fail_after(LIMIT_SECONDS):
            decision = await detect(FactReader(configured), appear)
    assert [wait.row for wait in waits] == [7]
    assert decision.mode is Mode.REMOTE


async def test_reading_everything_can_be_cancelled(sources: Sources) -> None:
    with saying(sources.default_socket, b"", hang_up=False), anyio.move_on_after(0.05) as scope:
        await FactReader(sources).read()
    assert scope.cancelled_caught


# TCP


async def test_a_tcp_listener_on_this_machine_is_found_by_its_socket(sources: Sources) -> None:
    with answering_tcp() as port:
        facts = await facts_of(replace(sources, named=Named(f"tcp://127.0.0.1:{port}")))
    assert facts.connection.peer is not None
    assert facts.connection.peer.pid == os.getpid()
    assert facts.connection.addresses == ("127.0.0.1",)
    assert row_of(facts) == 5


async def test_a_dockerd_on_a_tcp_port_of_ours_is_ours_to_use_not_to_stop(sources: Sources, folder: Path) -> None:
    (folder / "dockerd").symlink_to(sys.executable)
    words = [str(folder / "dockerd"), *FAKE_ENGINE[1:], "tcp"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            port = running.stdout.readline().split()[1]
            facts = await facts_of(replace(sources, named=Named(f"tcp://localhost:{port}")))
        finally:
            running.kill()
    assert facts.connection.peer is not None
    assert facts.connection.peer.pid == running.pid
    # No child of ours, as far as the table can know.
    outcome = decide(replace(facts, us=replace(facts.us, pid=1)))
    assert isinstance(outcome, Decision)
    assert (outcome.row, outcome.mode, outcome.owner) == (4, Mode.DIND, Owner.FOREIGN)
    assert outcome.warnings == ()


async def test_a_closed_tcp_port_is_waited_for(sources: Sources) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    facts = await facts_of(replace(sources, named=Named(f"tcp://127.0.0.1:{port}")))
    assert facts.connection.result is Connected.REFUSED
    assert row_of(facts) == 6


async def test_a_name_that_does_not_resolve_says_so(sources: Sources) -> None:
    facts = await facts_of(replace(sources, named=Named("tcp://engine.invalid:2375")))
    outcome = decide(facts)
    assert isinstance(outcome, Wait)
    assert "the name does not resolve" in outcome.reason


def make_certificate(folder: Path, name: str) -> None:
    """A self-signed one that is its own authority."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    made += [
        "-addext",
        f"subjectAltName=DNS:{name}",
        "-keyout",
        str(folder / "key.pem"),
        "-out",
        str(folder / "ca.pem"),
    ]
    subprocess.run(made, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    shutil.copy(folder / "ca.pem", folder / "cert.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_a_certificate_for_another_name_is_e04_with_the_reason(sources: Sources, folder: Path) -> None:
    make_certificate(folder, "another.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection, context.wrap_socket(connection, server_side=True):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        facts = await facts_of(
            replace(sources, named=Named(f"tcp://localhost:{port}", tls_verify=True, cert_path=folder))
        )
        thread.join(LIMIT_SECONDS)
    assert facts.connection.result is Connected.TLS
    assert "localhost" in facts.connection.detail
    assert code_of(facts) == "E04"


async def test_missing_and_broken_certificates_are_e04(sources: Sources, folder: Path) -> None:
    named = Named("tcp://127.0.0.1:1", tls_verify=True, cert_path=folder)
    missing = await facts_of(replace(sources, named=named))
    assert missing.connection.detail == f"cannot read ca.pem, cert.pem, key.pem in {folder}"
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).write_text("no certificate")
    broken = await facts_of(replace(sources, named=named))
    assert (code_of(missing), code_of(broken)) == ("E04", "E04")


def test_answers_in_chunks_are_put_together(folder: Path) -> None:
    path = str(folder / "s")
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1,2\r\n2\r\n,3\r\n1\r\n]\r\n0\r\n\r\n"
    with saying(path, data, hang_up=True):
        assert ask(parse(f"unix://{path}"), "/x").json() == [1, 2, 3]
    assert Answer(200, body=b"{").json() is None
    with pytest.raises(ConnectError) as caught:
        connect(parse(f"unix://{path}x"))
    assert caught.value.result is Connected.ABSENT


# Processes and pid files


@contextlib.contextmanager
def running_as(folder: Path, name: str, seconds: str = "60") -> Iterator[subprocess.Popen[bytes]]:
    """A process whose name the kernel has as `name`."""
    program = folder / name
    if not program.exists():
        program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    with subprocess.Popen([program, seconds]) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_live_dockerd_is_seen_and_its_zombie_does_not_count(sources: Sources, folder: Path) -> None:
    with running_as(folder, "dockerd") as dockerd:
        live = await facts_of(sources)
        assert dockerd.pid in [process.pid for process in live.dockerds]
        assert row_of(replace(live, socket=SocketPath("x", PathKind.ABSENT))) == 9
        dockerd.kill()
        eventually(lambda: state_of(dockerd.pid) == "Z", "a zombie")
        dead = await facts_of(sources)
        assert dockerd.pid in [process.pid for process in dead.processes if not process.is_alive]
        assert dockerd.pid not in [process.pid for process in dead.dockerds]
    seen = next(process for process in live.processes if process.pid == dockerd.pid)
    assert (seen.ppid, seen.same_mounts, seen.is_alive) == (os.getpid(), True, True)
    assert 0 <= seen.age_seconds < LIMIT_SECONDS


def test_a_pid_file_is_judged_by_what_it_names(folder: Path) -> None:
    table, path = ProcessTable(), folder / "docker.pid"

    def state(content: str) -> PidFileState:
        path.write_text(content)
        return table.pid_file(path).state

    assert table.pid_file(path).state is PidFileState.ABSENT
    for content in ("", "x", "-1", "0", "1" * 40):
        assert state(content) is PidFileState.GARBAGE, content
    assert state("4194304") is PidFileState.DEAD  # the kernel's PID_MAX_LIMIT, never reached
    assert state(f"{os.getpid()}\n") is PidFileState.STRANGER
    with running_as(folder, "containerd") as containerd:
        # The kernel's name fits, but the program behind it is another.
        eventually(lambda: Path(f"/proc/{containerd.pid}/comm").read_text() == "containerd\n", "exec")
        assert state(str(containerd.pid)) is PidFileState.STRANGER
        containerd.kill()
        eventually(lambda: state_of(containerd.pid) == "Z", "a zombie")
        assert state(str(containerd.pid)) is PidFileState.ZOMBIE


async def test_stale_pid_files_and_the_record_are_among_the_facts(sources: Sources, folder: Path) -> None:
    record = {"pid": 7, "start_ticks": 8, "boot_id": "b", "instance": "u", "more": 1}
    (folder / "docker.pid").write_text(str(os.getpid()))
    (folder / "record.json").write_text(json.dumps(record))
    facts = await facts_of(replace(sources, pid_files=(folder / "docker.pid",), record=folder / "record.json"))
    assert [(file.state, file.pid) for file in facts.pid_files] == [(PidFileState.STRANGER, os.getpid())]
    assert facts.record == RuntimeRecord(7, 8, "b", "u")
    assert row_of(capable(facts)) == 12


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x", "start_ticks": 1, "boot_id": "b"}'])
def test_a_torn_record_is_none(folder: Path, content: str) -> None:
    (folder / "record.json").write_text(content)
    assert read_record(folder / "record.json") is None


# Privileges


@as_root
def test_dropped_capabilities_are_missed_by_name(folder: Path) -> None:
    drop = ["setpriv", "--bounding-set=-sys_admin,-mknod", "--inh-caps=-all"]
    found = read_in(drop, folder / "docker.sock")
    assert found["facts"]["privileges"]["mount"]["result"] == Probed.UNKNOWN
    assert found["code"] == "E07"
    assert "missing capabilities SYS_ADMIN, MKNOD, or" not in found["text"]
    assert "missing capabilities SYS_ADMIN, MKNOD" in found["text"]


@as_root
def test_a_plain_user_is_told_who_he_is(folder: Path) -> None:
    found = read_in([], folder / "docker.sock", "--uid", str(NOBODY))
    assert found["facts"]["privileges"]["effective"] == 0
    assert found["code"] == "E07"
    assert f"we run as uid {NOBODY}" in found["text"]


@pytest.mark.namespaces
def test_capabilities_that_may_not_mount_fail_the_probe(folder: Path) -> None:
    """All bits set, and yet no mount: as under a restrictive security module."""
    require_namespaces()
    script = 'echo 0 >/proc/sys/user/max_mnt_namespaces && exec "$@"'
    found = read_in([*UNSHARE, "sh", "-c", script, "sh"], folder / "docker.sock")
    assert found["facts"]["privileges"]["mount"]["result"] == Probed.FAILED
    assert found["code"] == "E07"
    assert "refused: mount a tmpfs: unshare the mount namespace" in found["text"]


@as_root
def test_the_probes_leave_nothing_behind() -> None:
    before, groups = Path("/proc/self/mountinfo").read_text(), Path("/sys/fs/cgroup")
    found = privileges.read(privileges.Places())
    assert found.mount.result is Probed.OK
    assert Path("/proc/self/mountinfo").read_text() == before
    # By its name: daemons of other tests make and remove groups of theirs.
    own = f"supervisor-probe-{os.getpid()}"
    assert [*groups.glob(own), *groups.glob(f"*/{own}")] == []
    assert Path("/proc/self/stat").exists()


@as_root
def test_nothing_is_mounted_unless_the_mount_namespace_is_proved_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that is not apart is the whole machine's."""
    monkeypatch.setattr(privileges, "_own_mount_namespace", lambda: "mnt:[1]")
    assert privileges.try_mount().result is Probed.UNKNOWN


def test_the_cgroup_probe_makes_and_removes_a_group(tmp_path: Path) -> None:
    assert privileges.try_cgroup(tmp_path).result is Probed.FAILED
    (tmp_path / "devices").mkdir()
    assert privileges.try_cgroup(tmp_path).result is Probed.OK
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / f"supervisor-probe-{os.getpid()}").mkdir()  # of one that was killed
    assert privileges.try_cgroup(tmp_path).result is Probed.OK
    assert sorted(os.listdir(tmp_path)) == ["cgroup.controllers", "devices"]


def test_the_cgroup_version_is_told_from_the_mounts(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:devices,misc:/docker/x\n0::/init\n")
    places = privileges.Places(tmp_path / "proc", tmp_path / "cgroup")
    line = f"1 0 0:1 / {tmp_path}/cgroup/devices ro - cgroup cgroup rw,devices\n"
    legacy = privileges.cgroup(places, parse_mounts(line))
    assert (legacy.version, legacy.read_only, legacy.own_path) == ("v1", True, "/init")
    assert "devices" in legacy.controllers
    hybrid = line + f"2 0 0:2 / {tmp_path}/cgroup/unified rw - cgroup2 cgroup rw\n"
    assert privileges.cgroup(places, parse_mounts(hybrid)).version == "hybrid"
    assert privileges.cgroup(places, []).version == "none"
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cgroup.controllers").write_text("cpu memory pids\n")
    unified = privileges.cgroup(places, parse_mounts(f"1 0 0:1 / {tmp_path}/cgroup rw - cgroup2 cgroup rw\n"))
    assert (unified.version, unified.read_only, unified.controllers) == ("v2", False, ("cpu", "memory", "pids"))


# Our own container, on recorded texts

FIRST, SECOND, LAYER = "a" * 64, "b" * 64, "c" * 64
MOUNTINFO = f"""\
10 1 0:5 /var/lib/docker/overlay2/{LAYER}/merged / rw - overlay overlay rw
11 10 8:1 /var/lib/docker/containers/{FIRST}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw
12 10 8:1 /var/lib/docker/containers/{FIRST}/hostname /etc/hostname rw - ext4 /dev/sda1 rw
"""


def test_candidates_come_from_our_own_files_not_from_layers() -> None:
    traces = Traces(mounts=tuple(parse_mounts(MOUNTINFO)), cgroup=f"5:devices:/docker/{SECOND}\n", hostname="f" * 12)
    assert candidates(traces) == (FIRST, SECOND, "f" * 12)
    assert candidates(Traces(named="mine", hostname="web-1", cgroup="0::/\n")) == ("mine",)


def test_a_container_is_ours_by_files_name_or_address_and_only_while_it_runs() -> None:
    traces = Traces(mounts=tuple(parse_mounts(MOUNTINFO)), hostname="box", addresses=frozenset({"172.17.0.2"}))
    network = {"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2", "MacAddress": "02:42:AC"}}}}
    runs = {"State": {"Running": True}}
    assert is_us({"Id": FIRST, **runs}, traces)
    assert is_us({"Id": SECOND, **runs, "Config": {"Hostname": "box"}}, traces)
    assert is_us({"Id": SECOND, **runs, **network}, traces)
    assert not is_us({"Id": SECOND, **runs}, traces)
    assert not is_us({"Id": FIRST, "State": {"Running": False}}, traces)
    odd: list[Any] = [None, [], {}, {"State": 5}, {"State": {"Running": True}, "Config": []}]
    for document in odd:
        assert not is_us(document, traces)
    assert found_in_list([{"Id": SECOND, **network}], replace(traces, mac_addresses=frozenset({"02:42:ac"}))) == SECOND
    assert found_in_list([{"Id": SECOND, **network}, 5], traces) == ""
    assert found_in_list({"message": "no"}, traces) == ""
    assert stop_seconds({"Config": {"StopTimeout": 30}}) == 30
    assert stop_seconds(None) is None


def test_our_addresses_are_read_without_loopback_and_broadcast() -> None:
    trie = (
        "Local:\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 172.17.0.2\n     /32 host LOCAL\n"
        "  |-- 172.17.255.255\n     /32 link BROADCAST\n"
    )
    assert local_addresses(trie) == {"172.17.0.2"}


@pytest.mark.parametrize("value", [None, [], 5, {"Swarm": [], "Labels": {"a": 1}, "ID": 5}])
def test_an_odd_answer_to_info_has_no_facts(value: Any) -> None:
    found = engine_info(value, value)
    assert (found.id, found.labels, found.os_type) == ("", (), "")


def test_sources_follow_the_settings(folder: Path) -> None:
    given = Settings(mode="dind", docker_host="tcp://h:1", docker_tls_verify=True)
    sources = Sources.of(given, {"HOME": "/home/me", "PATH": "/bin"}, folder)
    assert (sources.forced, sources.named.docker_host, sources.named.tls_verify) == (Mode.DIND, "tcp://h:1", True)
    assert (sources.config_folder, sources.own_socket) == (Path("/home/me/.docker"), f"{folder}/docker.sock")
    assert Sources.of(Settings(), {"DOCKER_CONFIG": "/c"}, folder).config_folder == Path("/c")
    assert Sources.of(Settings(), {}, folder).forced is None
    assert Tls("/x").verify


# A real engine


WITHOUT_SYS_RESOURCE = ROOT / "tests/engine_rig/runc_without_sys_resource"
RUNTIME = (f"--add-runtime=tested={WITHOUT_SYS_RESOURCE}", "--default-runtime=tested")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with private_daemon("--bridge=none", "--iptables=false", *RUNTIME) as running:
        yield running


def inside(daemon: Daemon) -> list[str]:
    """Puts a program beside the dockerd: the same PID, mount and network namespaces."""
    return ["nsenter", "--target", str(daemon.init_pid), "--mount", "--net", "--pid", "--"]


@pytest.mark.engine
def test_a_real_engine_outside_our_namespaces_is_remote(daemon: Daemon) -> None:
    found = read_in(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"], daemon.socket)
    assert found["facts"]["connection"]["peer"]["pid"] == 0
    engine = found["facts"]["engine"]
    assert (engine["os_type"], engine["api_version"]) == ("linux", found["facts"]["ping"]["api_version"])
    assert found["facts"]["refusals"] == []
    assert (found["decision"]["row"], found["decision"]["mode"]) == (27, "remote")


@pytest.mark.engine
def test_a_real_engine_beside_us_is_foreign_until_the_record_proves_it_ours(daemon: Daemon, folder: Path) -> None:
    found = read_in(inside(daemon), daemon.socket)
    assert (found["decision"]["row"], found["decision"]["owner"]) == (32, "foreign")
    process = found["facts"]["connection"]["peer"]["process"]
    assert (process["comm"], process["same_mounts"]) == ("dockerd", True)
    record = {name: process[name] for name in ("pid", "start_ticks")} | {"boot_id": found["facts"]["us"]["boot_id"]}
    (folder / "record.json").write_text(json.dumps(record))
    found = read_in(inside(daemon), daemon.socket, "--record", folder / "record.json")
    assert (found["decision"]["row"], found["decision"]["owner"], found["decision"]["start_engine"]) == (
        29,
        "own",
        False,
    )


@pytest.fixture(scope="module")
def in_container(daemon: Daemon) -> Callable[..., dict[str, Any]]:
    """Runs the reader in a container of the real engine, with this machine's programs mounted into it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        save_image(Path(folder) / "image.tar", "supervisor-test/box:1")
        daemon.docker("load", "--input", f"{folder}/image.tar")
    shared = {"/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, str(ROOT)}
    mounts = [f"--volume={path}:{path}:ro" for path in sorted(shared) if Path(path).exists()]
    environ = ["--env=PYTHONDONTWRITEBYTECODE=1", f"--env=PYTHONPATH={ROOT}", "--env=PATH=/usr/sbin:/usr/bin:/bin"]

    def read(*options: str, command: Sequence[str] = ("/var/run/docker.sock",)) -> dict[str, Any]:
        words = ["run", "--rm", "--network=none", *mounts, *environ, *options, "supervisor-test/box:1", *PROGRAM]
        found: dict[str, Any] = json.loads(daemon.docker(*words, *command))
        return found

    return read


@pytest.mark.engine
def test_a_container_with_the_socket_mounted_is_socket_mode(
    daemon: Daemon, in_container: Callable[..., dict[str, Any]]
) -> None:
    found = in_container(f"--volume={daemon.socket}:/var/run/docker.sock", "--stop-timeout=77")
    assert found["facts"]["socket"]["mount"].endswith("/run/docker.sock")
    assert found["facts"]["connection"]["peer"]["pid"] == 0
    assert (found["decision"]["row"], found["decision"]["mode"]) == (26, "socket")
    assert found["decision"]["stop_seconds"] == 77
    assert found["decision"]["warnings"] == []


@pytest.mark.engine
def test_a_container_with_a_name_of_its_own_is_found_all_the_same(
    daemon: Daemon, in_container: Callable[..., dict[str, Any]]
) -> None:
    found = in_container(f"--volume={daemon.socket}:/var/run/docker.sock", "--hostname=web")
    assert (found["decision"]["row"], found["decision"]["mode"]) == (26, "socket")


@pytest.mark.engine
def test_a_privileged_container_with_the_socket_is_socket_mode_with_a_warning(
    daemon: Daemon, in_container: Callable[..., dict[str, Any]]
) -> None:
    found = in_container(f"--volume={daemon.socket}:/var/run/docker.sock", "--privileged")
    assert found["decision"]["mode"] == "socket"
    assert "the socket is used" in found["decision"]["warnings"][0]


@pytest.mark.engine
def test_a_privileged_container_without_a_socket_is_dind(in_container: Callable[..., dict[str, Any]]) -> None:
    found = in_container("--privileged")
    assert (found["decision"]["row"], found["decision"]["mode"], found["decision"]["owner"]) == (12, "dind", "own")
    assert found["facts"]["privileges"]["mount"]["result"] == "ok"
    assert found["facts"]["privileges"]["cgroup"]["result"] == "ok"


@pytest.mark.engine
def test_a_plain_container_is_e07_with_the_three_ways_out(in_container: Callable[..., dict[str, Any]]) -> None:
    found = in_container()
    assert found["code"] == "E07"
    for way in ("-v /var/run/docker.sock:/var/run/docker.sock", "--privileged", "--mode embedded"):
        assert way in found["text"]


@pytest.mark.engine
def test_a_socket_that_was_not_there_is_a_mounted_directory_and_e09(
    in_container: Callable[..., dict[str, Any]], folder: Path
) -> None:
    """Made the way it happens: `-v` of a path that the host has not."""
    found = in_container(f"--volume={folder}/absent.sock:/var/run/docker.sock", "--privileged")
    assert found["code"] == "E09"


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that is stopped for the length of the block; so is the nsenter that waits for it, by itself."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        eventually(lambda: state_of(parent) == "T", "nsenter stopped too")
        for each in (parent, pid):
            os.kill(each, signal.SIGCONT)


@pytest.mark.engine
async def test_a_dockerd_is_waited_for_when_silent_and_cleaned_after_when_killed(
    sources: Sources,
) -> None:
    with private_daemon("--bridge=none", "--iptables=false") as running:
        seen = await facts_of(replace(sources, default_socket=str(running.socket)))
        assert seen.connection.peer is not None
        with frozen(seen.connection.peer.pid):
            silent = read_in(inside(running), running.socket)
        assert silent["waits"] == 21
        assert "dockerd, pid " in silent["text"]
        running.kill()
        dead = read_in(inside(running), running.socket)
        assert dead["facts"]["connection"]["result"] == "refused"
        assert [one["comm"] for one in dead["facts"]["processes"] if one["comm"] == "dockerd"] == []
        if not dead["facts"]["socket"]["mount"]:
            assert dead["decision"]["cleanup"][0]["kind"] == CleanupKind.UNLINK_STALE_SOCKET
