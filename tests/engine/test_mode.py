"""The decision table, row by row on recorded facts; the loop around it; what holds for any facts at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.errors import EngineError, ExitCode
from supervisor.core.mode import Mode, Owner, Where, traits
from supervisor.engine.decision import Cleanup, CleanupKind, Decision, Wait
from supervisor.engine.evidence import evidence
from supervisor.engine.facts import (
    NEEDED_CAPABILITIES,
    Chosen,
    Connected,
    Connection,
    EngineAddress,
    EngineInfo,
    Facts,
    OwnContainer,
    PathKind,
    Peer,
    Ping,
    Pinged,
    Privileges,
    Probe,
    Probed,
    Process,
    RuntimeRecord,
    Scheme,
    Self,
    SocketPath,
    Tls,
)
from supervisor.engine.mode import decide, detect
from supervisor.engine.mode_table import HOST_SECONDS, START_SECONDS

pytestmark = pytest.mark.anyio

PATH = "/var/run/docker.sock"
UNIX = EngineAddress(Scheme.UNIX, path=PATH)
TCP = EngineAddress(Scheme.TCP, host="engine.example", port=2375)
ROOT = Privileges(effective=(1 << 41) - 1, mount=Probe(Probed.OK), cgroup=Probe(Probed.OK))
PLAIN = Privileges(effective=0xA80425FB)  # what Docker gives a container by default
PROGRAMS = {"dockerd": "/usr/bin/dockerd"}
LINUX = EngineInfo(name="host", version="20.10.24", api_version="1.41", least_api_version="1.12", os_type="linux")
US = Self(pid=1, hostname="box", boot_id="this boot", instance="uuid-1")
DOCKERD = Process(90, "dockerd", start_ticks=500, ppid=5, parent="s6", same_mounts=True, command=("dockerd",))
RECORD = RuntimeRecord(90, 500, "this boot")
FOUND = OwnContainer(("abc",), "abc")
ANSWERS = Ping(Pinged.OK, 200, "1.41")
SILENT = Ping(Pinged.TIMEOUT, detail="silent for 2 s")


def at(kind: PathKind = PathKind.SOCKET, **values: Any) -> SocketPath:
    return SocketPath(PATH, kind, **{"real_path": "/run/docker.sock", **values})


def facts(**values: Any) -> Facts:
    """A privileged container with dockerd and no socket, but for what is given."""
    ground: dict[str, Any] = {
        "chosen": Chosen(UNIX),
        "socket": at(PathKind.ABSENT),
        "privileges": ROOT,
        "programs": PROGRAMS,
        "us": US,
    }
    return Facts(**{**ground, **values})


def connected(peer: Peer | None, **values: Any) -> Facts:
    """A socket whose listener answers as an engine."""
    ground: dict[str, Any] = {
        "socket": at(),
        "connection": Connection(Connected.OK, peer=peer),
        "ping": ANSWERS,
        "engine": LINUX,
    }
    return facts(**{**ground, **values})


def tcp(result: Connected = Connected.OK, **values: Any) -> Facts:
    """An engine named by DOCKER_HOST across TCP, which answers."""
    ground: dict[str, Any] = {
        "chosen": Chosen(TCP, "DOCKER_HOST", TCP.url, configured=True),
        "socket": None,
        "connection": Connection(result, peer=values.pop("peer", None)),
        "ping": ANSWERS if result is Connected.OK else Ping(),
        "engine": LINUX,
    }
    return facts(**{**ground, **values})


HOST = Peer(0, 0)
LOCAL = Peer(90, 0, DOCKERD)
RELAY = Peer(70, 0, Process(70, "socat", same_mounts=True))
ELSEWHERE = Peer(90, 0, replace(DOCKERD, same_mounts=False))
CONFIGURED = Chosen(EngineAddress(Scheme.UNIX, path="/x.sock"), "DOCKER_HOST", "unix:///x.sock", configured=True)
REFUSED = Connection(Connected.REFUSED)

Expected = tuple[int, Mode, Owner | None]

DECISIONS: dict[str, tuple[Facts, Expected]] = {
    "1 embedded by name": (facts(forced=Mode.EMBEDDED), (1, Mode.EMBEDDED, None)),
    "1 none by name": (facts(forced=Mode.NONE, chosen=Chosen(None, code="E02")), (1, Mode.NONE, None)),
    "1 dind by name": (facts(forced=Mode.DIND), (1, Mode.DIND, Owner.OWN)),
    "1 socket by name": (connected(HOST, forced=Mode.SOCKET, own_container=FOUND), (1, Mode.SOCKET, None)),
    "1 remote by name": (tcp(forced=Mode.REMOTE), (1, Mode.REMOTE, None)),
    "4 ours by record": (tcp(peer=LOCAL, record=RECORD), (4, Mode.DIND, Owner.OWN)),
    "4 ours by label": (
        tcp(peer=LOCAL, engine=replace(LINUX, labels=("com.container-supervisor.install=uuid-1",))),
        (4, Mode.DIND, Owner.OWN),
    ),
    "4 local, another's": (tcp(peer=LOCAL), (4, Mode.DIND, Owner.FOREIGN)),
    "5 a proxy to our parent": (tcp(own_container=FOUND), (5, Mode.SOCKET, None)),
    "5 remote": (tcp(), (5, Mode.REMOTE, None)),
    "8 a context's unix socket": (
        connected(HOST, chosen=replace(CONFIGURED, source="DOCKER_CONTEXT")),
        (27, Mode.REMOTE, None),
    ),
    "12 dind": (facts(), (12, Mode.DIND, Owner.OWN)),
    "12 beside a zombie dockerd": (
        facts(processes=(replace(DOCKERD, state="Z"),)),
        (12, Mode.DIND, Owner.OWN),
    ),
    "12 beside one that listens elsewhere": (
        facts(processes=(replace(DOCKERD, command=("dockerd", "-H", "unix:///other.sock")),)),
        (12, Mode.DIND, Owner.OWN),
    ),
    "14 empty directory": (facts(socket=at(PathKind.DIRECTORY)), (14, Mode.DIND, Owner.OWN)),
    "15 empty file": (facts(socket=at(PathKind.FILE)), (15, Mode.DIND, Owner.OWN)),
    "15 dangling link": (facts(socket=at(PathKind.DANGLING_LINK)), (15, Mode.DIND, Owner.OWN)),
    "20 dead leftover": (facts(socket=at(), connection=REFUSED), (20, Mode.DIND, Owner.OWN)),
    "26 socket": (connected(HOST, own_container=FOUND), (26, Mode.SOCKET, None)),
    "27 a sidecar's": (connected(HOST), (27, Mode.REMOTE, None)),
    "29 adopted by record": (connected(LOCAL, record=RECORD), (29, Mode.DIND, Owner.OWN)),
    "29 adopted by label": (
        connected(LOCAL, engine=replace(LINUX, labels=("a=b", "com.container-supervisor.install=uuid-1"))),
        (29, Mode.DIND, Owner.OWN),
    ),
    "29 our child": (
        connected(Peer(90, 0, replace(DOCKERD, ppid=1))),
        (29, Mode.DIND, Owner.OWN),
    ),
    "30 the host's, by --pid=host": (connected(ELSEWHERE, own_container=FOUND), (30, Mode.SOCKET, None)),
    "30 another's, by a shared PID namespace": (connected(ELSEWHERE), (30, Mode.REMOTE, None)),
    "31 a relay to our parent": (connected(RELAY, own_container=FOUND), (31, Mode.SOCKET, None)),
    "31 a relay elsewhere": (connected(RELAY), (31, Mode.REMOTE, None)),
    "32 another init's": (connected(LOCAL), (32, Mode.DIND, Owner.FOREIGN)),
    "32 socket activation": (
        connected(Peer(1, 0, Process(1, "systemd", same_mounts=True)), processes=(DOCKERD,)),
        (32, Mode.DIND, Owner.FOREIGN),
    ),
    "32 where we may not look": (
        connected(Peer(90, 0, replace(DOCKERD, same_mounts=None)), engine=replace(LINUX, name="box")),
        (32, Mode.DIND, Owner.FOREIGN),
    ),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_row_decides(case: str) -> None:
    given_facts, expected = DECISIONS[case]
    outcome = decide(given_facts)
    assert isinstance(outcome, Decision)
    assert (outcome.row, outcome.mode, outcome.owner) == expected
    assert outcome.reason
    assert outcome.headline == f"Docker Mode: Running in {outcome.mode.value.upper()} mode"


WAITS: dict[str, tuple[Facts, int, float, str]] = {
    "6 remote unreachable": (tcp(Connected.REFUSED), 6, HOST_SECONDS, "E03"),
    "6 remote silent": (tcp(ping=SILENT), 6, HOST_SECONDS, "E03"),
    "7 a configured path is absent": (facts(chosen=CONFIGURED), 7, HOST_SECONDS, "E03"),
    "9 another's dockerd without its socket": (facts(processes=(DOCKERD,)), 9, HOST_SECONDS, "E06"),
    "18 mounted and refused": (
        facts(socket=at(mount="/run/docker.sock"), connection=REFUSED),
        18,
        HOST_SECONDS,
        "E12",
    ),
    "19 refused, but dockerd lives": (
        facts(socket=at(), connection=REFUSED, processes=(DOCKERD,)),
        19,
        START_SECONDS,
        "E06",
    ),
    "20 a configured socket refuses": (
        facts(chosen=CONFIGURED, socket=at(), connection=REFUSED),
        20,
        HOST_SECONDS,
        "E03",
    ),
    "21 dockerd starts": (connected(LOCAL, ping=SILENT), 21, START_SECONDS, "E13"),
    "22 the host's engine is silent": (connected(HOST, ping=SILENT), 22, HOST_SECONDS, "E13"),
    "22 it hangs up": (connected(RELAY, ping=Ping(Pinged.CLOSED)), 22, HOST_SECONDS, "E13"),
    "22 a proxy without its engine": (connected(HOST, ping=Ping(Pinged.HTTP_ERROR, 503)), 22, HOST_SECONDS, "E13"),
    "22 nobody accepts": (facts(socket=at(), connection=Connection(Connected.TIMEOUT)), 22, HOST_SECONDS, "E13"),
}


@pytest.mark.parametrize("case", WAITS)
def test_row_waits_and_then_ends_in_its_error(case: str) -> None:
    given_facts, row, seconds, code = WAITS[case]
    for waited in (0.0, seconds - 0.1):
        outcome = decide(given_facts, waited)
        assert isinstance(outcome, Wait)
        assert (outcome.row, outcome.seconds, outcome.error.code) == (row, seconds, code)
    with pytest.raises(EngineError, match=f"^{code}: cannot "):
        decide(given_facts, seconds)


TLS_CHOSEN = Chosen(replace(TCP, tls=Tls("/certs", True, ("ca.pem",))), "DOCKER_HOST", "", True)
ERRORS: dict[str, tuple[Facts, str, tuple[str, ...]]] = {
    "2 dind by name, unprivileged": (
        facts(forced=Mode.DIND, privileges=PLAIN),
        "E01",
        ("mode dind", "missing capabilities SYS_ADMIN, NET_ADMIN", "--privileged", "unset SUPERVISOR_MODE"),
    ),
    "2 dind by name, no dockerd": (facts(forced=Mode.DIND, programs={}), "E01", ("no dockerd on PATH",)),
    "2 socket by name, absent": (facts(forced=Mode.SOCKET), "E01", ("nothing at '/var/run/docker.sock'", "-v ")),
    "2 remote by name, a socket found": (
        connected(HOST, forced=Mode.REMOTE, own_container=FOUND),
        "E01",
        ("what is here is socket",),
    ),
    "2 dind by name, DOCKER_HOST elsewhere": (tcp(forced=Mode.DIND), "E01", ("what is here is remote",)),
    "2 dind by name, DOCKER_HOST dead": (
        tcp(Connected.REFUSED, forced=Mode.DIND),
        "E01",
        ("'tcp://engine.example:2375'", "unset DOCKER_HOST"),
    ),
    "3 no such scheme": (
        facts(chosen=Chosen(None, "DOCKER_HOST", "npipe:////./pipe/x", True, "E02", "named pipes are of Windows")),
        "E02",
        ("'npipe:////./pipe/x'", "named pipes"),
    ),
    "6 certificates missing": (
        tcp(chosen=TLS_CHOSEN, connection=Connection(Connected.TLS, "cannot read ca.pem in /certs"), ping=Ping()),
        "E04",
        ("ca.pem", "'/certs'", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    ),
    "6 plain HTTP to a TLS port": (
        tcp(ping=Ping(Pinged.HTTP_ERROR, 400, detail="Client sent an HTTP request to an HTTPS server.")),
        "E04",
        ("no TLS is set",),
    ),
    "8 context unreadable": (
        facts(chosen=Chosen(None, "DOCKER_CONTEXT", "lab", True, "E05", "there is no such context")),
        "E05",
        ("'lab'", "DOCKER_CONTEXT", "set DOCKER_HOST"),
    ),
    "10 no privileges": (
        facts(privileges=PLAIN),
        "E07",
        ("SYS_ADMIN", f":{PATH}", "--privileged", "--mode embedded", "sysbox-runc"),
    ),
    "10 privileges refused by the system": (
        facts(privileges=replace(ROOT, mount=Probe(Probed.FAILED, "mount a tmpfs: Permission denied"))),
        "E07",
        ("refused: mount a tmpfs",),
    ),
    "11 no dockerd": (facts(programs={}), "E08", ("image has no dockerd", "--mode embedded")),
    "13 a mounted directory": (
        facts(socket=at(PathKind.DIRECTORY, mount="/run/docker.sock")),
        "E09",
        ("stop docker, remove that directory", "--mount type=bind"),
    ),
    "16 a directory with entries": (facts(socket=at(PathKind.DIRECTORY, entries=3)), "E10", ("3 entries",)),
    "16 an empty directory, unprivileged": (
        facts(socket=at(PathKind.DIRECTORY), privileges=PLAIN),
        "E10",
        ("a directory", "empty"),
    ),
    "16 a file with text": (facts(socket=at(PathKind.FILE, size=12, uid=7)), "E10", ("12 bytes", "owner 7:0")),
    "16 a mounted empty file": (facts(socket=at(PathKind.FILE, mount="/run/docker.sock")), "E10", ("on the mount",)),
    "16 a pipe": (facts(socket=at(PathKind.OTHER)), "E10", ("neither a socket",)),
    "17 permission denied": (
        facts(
            socket=at(mode=0o660, gid=998),
            connection=Connection(Connected.DENIED),
            us=replace(US, uid=1000, groups=(1000,), selinux=True),
        ),
        "E11",
        ("0660, owner 0:998", "--group-add 998", "uid 1000, groups 1000", "label=disable"),
    ),
    "17 a folder in the way": (
        facts(socket=at(PathKind.UNSEARCHABLE, blocked_at="/run/locked")),
        "E11",
        ("'/run/locked'",),
    ),
    "20 dead leftover, unprivileged": (
        facts(socket=at(), connection=REFUSED, privileges=PLAIN),
        "E07",
        ("nobody listens on",),
    ),
    "22 garbage": (connected(HOST, ping=Ping(Pinged.GARBAGE, detail="it answered b'SSH-2.0'")), "E14", ("SSH-2.0",)),
    "22 another server": (connected(HOST, ping=Ping(Pinged.HTTP_ERROR, 404)), "E14", ("404",)),
    "23 Podman": (connected(HOST, engine=replace(LINUX, components=("Podman Engine",))), "E14", ("Podman Engine",)),
    "23 Windows": (connected(HOST, engine=replace(LINUX, os_type="windows")), "E14", ("windows",)),
    "23 no answer to /info": (connected(HOST, engine=EngineInfo()), "E14", ()),
    "24 rootless": (connected(HOST, engine=replace(LINUX, security_options=("name=rootless",))), "E15", ("overlay",)),
    "25 too old": (connected(HOST, engine=replace(LINUX, api_version="1.40")), "E16", ("1.12 to 1.40", "1.41")),
    "25 too new": (connected(HOST, engine=replace(LINUX, api_version="2.1", least_api_version="2.0")), "E16", ()),
    "28 a filter": (
        connected(HOST, refusals=("GET /services: 403",), own_container=FOUND),
        "E17",
        ("GET /services: 403", "secrets"),
    ),
    "28 a filter that refuses the ping": (connected(HOST, ping=Ping(Pinged.HTTP_ERROR, 403)), "E17", ("403",)),
    "28 a filter that refuses /info": (
        connected(HOST, engine=EngineInfo(), refusals=("GET /info: 403",)),
        "E17",
        ("GET /info: 403",),
    ),
    "5 a filter on TCP": (tcp(refusals=("GET /swarm: 403",)), "E17", ()),
    "33 a connect that fits nothing": (
        facts(socket=at(), connection=Connection(Connected.FAILED, "too odd")),
        "E99",
        ("too odd", '"chosen"'),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_row_is_an_error_that_says_what_to_do(case: str) -> None:
    given_facts, code, words = ERRORS[case]
    with pytest.raises(EngineError) as caught:
        decide(given_facts)
    text = str(caught.value)
    assert caught.value.code == code
    assert text.startswith(f"{code}: cannot ")
    assert "; " in text
    for word in words:
        assert word in text


def test_every_code_of_detection_is_made_by_a_row() -> None:
    made = {code for _, code, _ in ERRORS.values()} | {code for *_, code in WAITS.values()}
    assert made == {f"E{number:02}" for number in range(1, 18)} | {"E99"}


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("E01", 78), ("E02", 78), ("E05", 78), ("E07", 77), ("E11", 77), ("E03", 69), ("E09", 69), ("E99", 69)],
)
def test_codes_end_in_the_exit_code_of_their_family(code: str, exit_code: int) -> None:
    assert EngineError(code, "cannot").exit_code == ExitCode(exit_code)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (PathKind.DIRECTORY, CleanupKind.REMOVE_EMPTY_DIRECTORY),
        (PathKind.FILE, CleanupKind.UNLINK_FILE),
        (PathKind.DANGLING_LINK, CleanupKind.UNLINK_FILE),
        (PathKind.SOCKET, CleanupKind.UNLINK_STALE_SOCKET),
    ],
)
def test_what_is_in_the_way_of_our_own_engine_is_named_for_removal(kind: PathKind, step: CleanupKind) -> None:
    outcome = decide(facts(socket=at(kind), connection=REFUSED))
    assert isinstance(outcome, Decision)
    assert outcome.start_engine
    assert outcome.cleanup == (Cleanup(step, PATH),)


def test_our_own_engine_that_stays_silent_is_replaced_and_a_foreign_one_never() -> None:
    silent = connected(LOCAL, ping=SILENT)
    outcome = decide(replace(silent, record=RECORD), START_SECONDS)
    assert isinstance(outcome, Decision)
    assert (outcome.owner, outcome.start_engine) == (Owner.OWN, True)
    assert outcome.cleanup[0] == Cleanup(CleanupKind.KILL_SILENT_ENGINE, pid=90)
    with pytest.raises(EngineError, match=r"^E13: .*dockerd, pid 90"):
        decide(silent, START_SECONDS)


@pytest.mark.parametrize(
    "record",
    [
        RuntimeRecord(91, 500, "this boot"),
        RuntimeRecord(90, 501, "this boot"),
        RuntimeRecord(90, 500, "an earlier boot"),
    ],
)
def test_a_record_proves_nothing_unless_pid_start_and_boot_agree(record: RuntimeRecord) -> None:
    outcome = decide(connected(LOCAL, record=record))
    assert isinstance(outcome, Decision)
    assert (outcome.row, outcome.owner) == (32, Owner.FOREIGN)


def test_our_label_on_an_engine_outside_does_not_make_it_ours() -> None:
    engine = replace(LINUX, labels=("com.container-supervisor.install=uuid-1",))
    outcome = decide(connected(HOST, engine=engine, record=RECORD))
    assert isinstance(outcome, Decision)
    assert (outcome.row, outcome.mode) == (27, Mode.REMOTE)


def test_a_mounted_socket_wins_over_privileges_and_says_so() -> None:
    outcome = decide(connected(HOST, own_container=FOUND))
    assert isinstance(outcome, Decision)
    assert outcome.mode is Mode.SOCKET
    assert "privileged" in outcome.warnings[0]
    unprivileged = decide(connected(HOST, own_container=FOUND, privileges=PLAIN))
    assert isinstance(unprivileged, Decision)
    assert unprivileged.warnings == ()


@pytest.mark.parametrize(("addresses", "warned"), [(("127.0.0.1",), False), (("192.0.2.1",), True), ((), True)])
def test_tcp_without_tls_is_warned_about_off_this_machine(addresses: tuple[str, ...], warned: bool) -> None:
    outcome = decide(tcp(connection=Connection(Connected.OK, addresses=addresses)))
    assert isinstance(outcome, Decision)
    assert any("without TLS" in warning for warning in outcome.warnings) is warned


def test_a_dockerd_of_the_host_seen_by_a_shared_pid_namespace_is_not_waited_for() -> None:
    seen = (replace(DOCKERD, same_mounts=None),)
    outcome = decide(facts(processes=seen, us=replace(US, shares_host_pids=True)))
    assert isinstance(outcome, Decision)
    assert outcome.row == 12
    assert isinstance(decide(facts(processes=seen)), Wait)


def test_facts_as_json_leave_command_lines_out() -> None:
    secret = replace(DOCKERD, command=("dockerd", "--token=s3cret"))
    text = json.dumps(connected(Peer(90, 0, secret), processes=(secret,)).as_dict())
    assert "s3cret" not in text
    assert '"comm": "dockerd"' in text


def test_evidence_tells_what_the_decision_rests_on() -> None:
    lines = "\n".join(evidence(connected(HOST, own_container=FOUND, processes=(replace(DOCKERD, state="Z"),))))
    for part in ("(default)", "outside our PID namespace", "ping: ok", "API 1.41", "abc", "pid 90, a zombie"):
        assert part in lines


class Readings:
    """A reader that gives one set of facts after the other, then the last for ever."""

    def __init__(self, *given_facts: Facts) -> None:
        self.left = list(given_facts)

    async def read(self) -> Facts:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


class Clock:
    """Time that passes only while one waits."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.waits: list[Wait] = []

    def now(self) -> float:
        return self.seconds

    async def wait(self, wait: Wait) -> None:
        self.waits.append(wait)
        assert len(self.waits) < 10, "it waits for ever"
        self.seconds += 25


async def test_detect_waits_until_the_facts_decide() -> None:
    clock = Clock()
    reader = Readings(connected(HOST, ping=SILENT), connected(HOST, own_container=FOUND))
    with anyio.fail_after(5):
        decision = await detect(reader, clock.wait, now=clock.now)
    assert decision.mode is Mode.SOCKET
    assert [wait.row for wait in clock.waits] == [22]


async def test_detect_gives_up_when_the_row_has_had_its_time() -> None:
    clock = Clock()
    with anyio.fail_after(5), pytest.raises(EngineError, match=r"^E13: .* tried for 75 s"):
        await detect(Readings(connected(HOST, ping=SILENT)), clock.wait, now=clock.now)
    assert len(clock.waits) == 3


async def test_detect_does_not_start_the_clock_anew_when_the_row_changes() -> None:
    clock = Clock()
    reader = Readings(facts(processes=(DOCKERD,)), connected(HOST, ping=SILENT))
    with anyio.fail_after(5), pytest.raises(EngineError, match=r"^E13: "):
        await detect(reader, clock.wait, now=clock.now)
    assert len(clock.waits) == 3


@pytest.mark.parametrize(
    ("mode", "owner", "place", "supervises", "outlives", "failure"),
    [
        (Mode.DIND, Owner.OWN, Where.HERE, True, False, "hold"),
        (Mode.DIND, None, Where.HERE, True, False, "hold"),
        (Mode.DIND, Owner.FOREIGN, Where.HERE, False, True, "hold"),
        (Mode.SOCKET, None, Where.HOST, False, True, "exit"),
        (Mode.REMOTE, None, Where.THERE, False, True, "exit"),
        (Mode.EMBEDDED, None, Where.HERE, False, False, "exit"),
        (Mode.NONE, None, Where.HERE, False, True, "exit"),
    ],
)
def test_traits_say_what_a_mode_implies(
    mode: Mode, owner: Owner | None, place: Where, supervises: bool, outlives: bool, failure: str
) -> None:
    found = traits(mode, owner)
    assert (found.bind_paths, found.ports) == (place, place)
    assert (found.supervises_engine, found.data_outlives_stop, found.on_app_failure) == (supervises, outlives, failure)
    assert found.has_engine is (mode not in (Mode.EMBEDDED, Mode.NONE))


# For any facts at all.

TEXT = st.sampled_from(["", "box", "1.41", "x", "linux", "2.0", "1.x", "³"])
PROCESSES = st.builds(
    Process,
    pid=st.sampled_from([1, 70, 90]),
    comm=st.sampled_from(["dockerd", "containerd", "systemd", "socat"]),
    state=st.sampled_from(["S", "Z"]),
    ppid=st.sampled_from([0, 1, 5]),
    start_ticks=st.sampled_from([0, 500]),
    command=st.sampled_from([(), ("dockerd", "-H"), ("dockerd", f"--host=unix://{PATH}"), ("dockerd", "-Hfd://")]),
    same_mounts=st.sampled_from([True, False, None]),
)
PEERS = st.builds(Peer, pid=st.sampled_from([0, 1, 90]), uid=st.just(0), process=st.none() | PROCESSES)
ADDRESSES = st.sampled_from([UNIX, TCP, replace(TCP, tls=Tls("/certs")), EngineAddress(Scheme.UNIX, path="/x.sock")])
CHOSEN = st.builds(
    Chosen,
    endpoint=st.none() | ADDRESSES,
    source=st.sampled_from(["default", "DOCKER_HOST", "DOCKER_CONTEXT"]),
    configured=st.booleans(),
    code=st.sampled_from(["", "E02", "E05"]),
)
PATHS = st.builds(
    SocketPath,
    path=st.just(PATH),
    kind=st.sampled_from(PathKind),
    size=st.integers(0, 1),
    entries=st.integers(0, 1),
    mount=st.sampled_from(["", "/run"]),
)
INFOS = st.builds(
    EngineInfo,
    name=TEXT,
    api_version=TEXT,
    least_api_version=TEXT,
    os_type=TEXT,
    labels=st.sampled_from([(), ("com.container-supervisor.install=uuid-1",)]),
    security_options=st.sampled_from([(), ("name=rootless",)]),
    components=st.sampled_from([(), ("Podman Engine",), ("Engine",)]),
)
ANY_FACTS = st.builds(
    Facts,
    forced=st.none() | st.sampled_from(Mode),
    chosen=CHOSEN,
    socket=st.none() | PATHS,
    connection=st.builds(Connection, result=st.sampled_from(Connected), peer=st.none() | PEERS),
    ping=st.builds(Ping, result=st.sampled_from(Pinged), status=st.sampled_from([0, 200, 403, 404, 503])),
    processes=st.lists(PROCESSES, max_size=2).map(tuple),
    privileges=st.sampled_from([ROOT, PLAIN, Privileges(), replace(ROOT, mount=Probe(Probed.FAILED))]),
    programs=st.sampled_from([{}, PROGRAMS]),
    engine=st.none() | INFOS,
    refusals=st.sampled_from([(), ("GET /services: 403",)]),
    own_container=st.sampled_from([OwnContainer(), FOUND]),
    record=st.sampled_from([None, RECORD]),
    us=st.builds(lambda shared: replace(US, shares_host_pids=shared), st.booleans()),
)
WAITED = st.sampled_from([0.0, HOST_SECONDS, START_SECONDS])


def outcome_of(any_facts: Facts, waited: float) -> Decision | Wait | EngineError:
    try:
        return decide(any_facts, waited)
    except EngineError as error:
        return error


def started_engine(any_facts: Facts, waited: float) -> bool:
    outcome = outcome_of(any_facts, waited)
    return isinstance(outcome, Decision) and outcome.start_engine


@settings(max_examples=500, deadline=None)
@given(ANY_FACTS, WAITED)
def test_decide_raises_nothing_but_an_engine_error(any_facts: Facts, waited: float) -> None:
    outcome = outcome_of(any_facts, waited)
    if isinstance(outcome, EngineError):
        assert str(outcome).startswith(f"{outcome.code}: cannot ")


@settings(max_examples=250, deadline=None)
@given(ANY_FACTS, WAITED)
def test_no_engine_of_ours_is_started_beside_a_remote_one(any_facts: Facts, waited: float) -> None:
    remote = replace(any_facts, chosen=Chosen(TCP, "DOCKER_HOST", TCP.url, True))
    assert not started_engine(remote, waited)


@settings(max_examples=250, deadline=None)
@given(ANY_FACTS, WAITED)
def test_no_engine_of_ours_is_started_in_the_stead_of_a_configured_one(any_facts: Facts, waited: float) -> None:
    recorded_or_forced = any_facts.record is not None or any_facts.forced is Mode.DIND
    assert recorded_or_forced or not started_engine(replace(any_facts, chosen=CONFIGURED), waited)


@settings(max_examples=250, deadline=None)
@given(ANY_FACTS, WAITED)
def test_a_denied_socket_never_leads_to_dind(any_facts: Facts, waited: float) -> None:
    forced = any_facts.forced if any_facts.forced not in (Mode.EMBEDDED, Mode.NONE) else None
    denied = replace(any_facts, forced=forced, chosen=Chosen(UNIX), socket=at(), ping=Ping())
    outcome = outcome_of(replace(denied, connection=Connection(Connected.DENIED)), waited)
    assert isinstance(outcome, EngineError)
    assert outcome.code == "E11"


@settings(max_examples=250, deadline=None)
@given(ANY_FACTS, WAITED)
def test_embedded_and_none_are_chosen_by_name_only(any_facts: Facts, waited: float) -> None:
    outcome = outcome_of(any_facts, waited)
    if isinstance(outcome, Decision) and outcome.mode in (Mode.EMBEDDED, Mode.NONE):
        assert any_facts.forced is outcome.mode


@settings(max_examples=250, deadline=None)
@given(ANY_FACTS, WAITED)
def test_a_foreign_engine_is_never_killed_or_replaced(any_facts: Facts, waited: float) -> None:
    outcome = outcome_of(replace(any_facts, record=None), waited)
    if isinstance(outcome, Decision):
        assert all(step.kind is not CleanupKind.KILL_SILENT_ENGINE for step in outcome.cleanup)


@settings(max_examples=250, deadline=None)
@given(ANY_FACTS, WAITED)
def test_our_own_engine_needs_privileges_and_dockerd_unless_it_runs(any_facts: Facts, waited: float) -> None:
    without = replace(any_facts, programs={}, record=None)
    assert not started_engine(without, waited)


@pytest.mark.parametrize("name", NEEDED_CAPABILITIES)
def test_each_needed_capability_is_missed_by_name(name: str) -> None:
    lacking = replace(ROOT, effective=ROOT.effective & ~(1 << NEEDED_CAPABILITIES[name]))
    with pytest.raises(EngineError, match=f"^E07: .*missing capabilities {name}"):
        decide(facts(privileges=lacking))


def test_the_one_capability_that_is_often_missing_is_not_needed() -> None:
    lacking = replace(ROOT, effective=ROOT.effective & ~(1 << 24))  # SYS_RESOURCE
    assert isinstance(decide(facts(privileges=lacking)), Decision)
