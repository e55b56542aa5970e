"""Swarm: every state's answer, and the real states made on private engines: worker, locked, a lost address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.errors import ConfigurationError, EngineError, ExitCode, SupervisorError, UnreachableError
from supervisor.engine.address_pool import free_pool, network_ranges, parse_fib_trie, read_used
from supervisor.engine.client import Endpoint, Engine
from supervisor.engine.errors import EngineRefused, NotAManager, Unavailable
from supervisor.engine.network import NetworkSpec, ensure_network
from supervisor.engine.resources import Networks, Swarm
from supervisor.engine.swarm import Membership, RestartPlan, SwarmRoom
from supervisor.engine.swarm_plan import (
    Action,
    Initialise,
    Refuse,
    RepairAddress,
    Situation,
    SwarmFacts,
    SwarmInit,
    SwarmSettings,
    Use,
    Wait,
    init_request,
    opened_by_init,
    plan_swarm,
)
from tests.engine.daemons import BUSYBOX, UPLINK, Daemon, eventually, private_daemon, save_image

pytestmark = pytest.mark.anyio
OWN = Situation("this container's own engine", restartable=True)
HOST = Situation("the host's engine")
LOST = (
    "manager stopped: failed to listen on remote API address: "
    "listen tcp 192.0.2.7:2377: bind: cannot assign requested address"
)
WAL = "failed to load WAL: wal: crc mismatch"


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (SwarmFacts("inactive", False), Initialise()),
        (SwarmFacts("active", True, "n", "127.0.0.1"), Use("n", "127.0.0.1")),
        (SwarmFacts("active", True, "n", "127.0.0.1", live_restore=True), Use("n", "127.0.0.1")),
        (SwarmFacts("pending", False), Wait("it is joining its cluster")),
        (SwarmFacts("pending", False, error="no leader"), Wait("no leader")),
        (SwarmFacts("error", False, error=LOST), RepairAddress("192.0.2.7")),
        (SwarmFacts("error", False, error=LOST.replace("192.0.2.7", "[2001:db8::7]")), RepairAddress("2001:db8::7")),
        (
            SwarmFacts("error", False, node_address="192.0.2.9", error="x: cannot assign requested address"),
            RepairAddress("192.0.2.9"),
        ),
    ],
)
def test_state_that_can_be_used_or_mended_gets_its_action(facts: SwarmFacts, expected: Action) -> None:
    assert plan_swarm(facts, SwarmSettings(), OWN) == expected


@pytest.mark.parametrize(
    ("facts", "code", "words"),
    [
        (SwarmFacts("inactive", False, live_restore=True), "E18", ("live-restore", "daemon.json", "DATABASE_URL")),
        (SwarmFacts("error", False, error="x", live_restore=True), "E18", ("live-restore",)),
        (SwarmFacts("locked", False), "E19", ("docker swarm unlock", "autolock")),
        (SwarmFacts("active", False), "E20", ("worker", "docker node promote", "DOCKER_HOST")),
    ],
)
@pytest.mark.parametrize("situation", [OWN, HOST])
def test_state_for_the_owner_to_mend_is_refused_by_code(
    facts: SwarmFacts, code: str, words: tuple[str, ...], situation: Situation
) -> None:
    action = plan_swarm(facts, SwarmSettings(), situation)
    assert isinstance(action, Refuse)
    assert isinstance(action.error, EngineError)
    assert (action.error.code, action.error.exit_code) == (code, ExitCode.UNREACHABLE)
    for word in (*words, situation.whose):
        assert word in str(action.error)


def test_worker_is_offered_a_reset_only_where_the_engine_is_ours() -> None:
    texts = [refused(SwarmFacts("active", False), situation) for situation in (OWN, HOST)]
    assert ["docker swarm leave" in text for text in texts] == [True, False]


def refused(facts: SwarmFacts, situation: Situation, *, waited: bool = False) -> str:
    action = plan_swarm(facts, SwarmSettings(), situation, waited=waited)
    assert isinstance(action, Refuse)
    return str(action.error)


def test_never_forbids_beginning_one_and_nothing_else() -> None:
    never = SwarmSettings(init=SwarmInit.NEVER)
    action = plan_swarm(SwarmFacts("inactive", False), never, HOST)
    assert isinstance(action, Refuse)
    assert isinstance(action.error, ConfigurationError)
    assert "SWARM_INIT=never forbids" in str(action.error)
    assert plan_swarm(SwarmFacts("active", True, "n"), never, HOST) == Use("n", "")


def test_pending_that_was_waited_for_is_refused_with_what_it_said() -> None:
    assert "it has been 'pending' for 60 s" in refused(SwarmFacts("pending", False), OWN, waited=True)
    assert "no leader" in refused(SwarmFacts("pending", False, error="no leader"), HOST, waited=True)


def test_lost_address_of_an_engine_not_ours_is_refused_with_the_steps() -> None:
    text = refused(SwarmFacts("error", False, error=LOST), HOST)
    assert "ip address add 192.0.2.7/32 dev lo" in text
    assert "--force-new-cluster" in text


def test_unreadable_state_is_refused_with_the_way_that_keeps_volumes() -> None:
    text = refused(SwarmFacts("error", False, error=WAL), OWN)
    assert text.startswith("cannot use Swarm on this container's own engine: failed to load WAL")
    assert "volumes stay" in text


@pytest.mark.parametrize(
    ("address", "local", "warned"),
    [
        ("192.0.2.7", {"192.0.2.9", "127.0.0.1"}, True),
        ("192.0.2.7", {"192.0.2.7"}, False),
        ("127.0.0.1", {"192.0.2.7"}, False),
        ("192.0.2.7", None, False),
    ],
)
def test_advertised_address_that_is_gone_is_warned_of(address: str, local: set[str] | None, warned: bool) -> None:
    seen = None if local is None else frozenset(local)
    action = plan_swarm(SwarmFacts("active", True, "n", address), SwarmSettings(), Situation("x", local_addresses=seen))
    assert isinstance(action, Use)
    assert bool(action.warning) is warned


def test_every_state_has_an_answer() -> None:
    for state in ("inactive", "pending", "active", "error", "locked", "something new"):
        for manager in (True, False):
            assert plan_swarm(SwarmFacts(state, manager), SwarmSettings(), OWN)


def test_facts_are_read_from_info() -> None:
    info = {
        "LiveRestoreEnabled": True,
        "Swarm": {"LocalNodeState": "error", "ControlAvailable": False, "NodeAddr": "192.0.2.7", "Error": LOST},
    }
    assert SwarmFacts.parse(info) == SwarmFacts("error", False, "", "192.0.2.7", LOST, True)
    assert SwarmFacts.parse({}) == SwarmFacts("inactive", False)


def test_request_names_addresses_pool_and_port() -> None:
    assert init_request(SwarmSettings(data_path_port=7789), IPv4Network("10.254.0.0/16")) == {
        "ListenAddr": "127.0.0.1:2377",
        "AdvertiseAddr": "127.0.0.1:2377",
        "ForceNewCluster": False,
        "Spec": {},
        "DataPathPort": 7789,
        "DefaultAddrPool": ["10.254.0.0/16"],
        "SubnetSize": 24,
    }
    assert init_request(SwarmSettings(listen_address="::1"), None)["ListenAddr"] == "[::1]:2377"


def test_what_was_opened_is_said_exactly() -> None:
    settings = SwarmSettings(listen_address="0.0.0.0", advertise_address="192.0.2.7", data_path_port=7789)
    text = opened_by_init(settings, HOST, IPv4Network("10.254.0.0/16"))
    for part in ("the host's engine", "0.0.0.0", "2377/tcp", "7946/tcp+udp", "7789/udp", "192.0.2.7", "10.254.0.0/16"):
        assert part in text


# --- the pool -----------------------------------------------------------------------------------------------------

NETWORKS = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@given(st.lists(NETWORKS, max_size=30))
def test_pool_overlaps_nothing_that_is_used(used: list[IPv4Network]) -> None:
    pool = free_pool(used)
    if pool is None:
        assert any(network.prefixlen < 16 for network in used)
    else:
        assert pool.is_private
        assert not any(pool.overlaps(network) for network in used if network.prefixlen)


def test_pool_is_none_where_all_private_ranges_are_routed() -> None:
    assert free_pool([IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")]) is None
    assert free_pool([IPv4Network("10.0.0.0/8")]) == IPv4Network("172.31.0.0/16")
    assert free_pool([IPv4Network("0.0.0.0/0")]) == IPv4Network("10.254.0.0/16")


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/8 2 0 2
        |-- 10.254.0.0
           /17 universe UNICAST
     |-- 172.30.30.0
        /24 link UNICAST
Id 51820:
  +-- 10.0.0.0/8 2 0 2
     |-- 10.253.4.0
        /22 universe BLACKHOLE
Local:
  +-- 127.0.0.0/8 2 0 2
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 127.255.255.255
        /32 link BROADCAST
  |-- 172.30.30.2
     /32 host LOCAL
"""


def test_routes_of_every_table_and_addresses_are_read_and_branches_are_not() -> None:
    assert {str(network) for network in parse_fib_trie(FIB_TRIE)} == {
        "0.0.0.0/0",
        "10.254.0.0/17",
        "172.30.30.0/24",
        "10.253.4.0/22",
        "127.0.0.0/8",
        "172.30.30.2/32",
    }
    assert free_pool(parse_fib_trie(FIB_TRIE)) == IPv4Network("10.252.0.0/16")


def test_loopback_is_among_what_is_read_here(tmp_path: Path) -> None:
    assert any(network.overlaps(IPv4Network("127.0.0.1/32")) for network in read_used() if network.prefixlen)
    assert read_used(tmp_path / "none") == set()


def test_ranges_of_networks_are_taken_where_they_are_ipv4() -> None:
    networks: list[dict[str, Any]] = [
        {"IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}, {"Subnet": "2001:db8::/64"}, {}]}},
        {"IPAM": {"Config": None}},
        {"IPAM": None},
    ]
    assert network_ranges(networks) == {IPv4Network("172.17.0.0/16")}


# --- an engine of words -------------------------------------------------------------------------------------------


class Script:
    """An engine whose `/info` gives one state after another; the last for ever."""

    def __init__(self, *states: dict[str, Any] | SupervisorError, refuses: EngineRefused | None = None) -> None:
        self._states = list(states)
        self._refuses = refuses
        self.requests: list[str] = []
        self.swarm = Swarm(self)
        self.networks = Networks(self)

    async def info(self) -> dict[str, Any]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, SupervisorError):
            raise state
        return {"Swarm": state}

    async def call(self, method: str, path: str, **more: Any) -> Any:
        self.requests.append(path)
        if path == "/swarm/init" and self._refuses is not None:
            raise self._refuses
        return [] if method == "GET" else "node"

    def stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def state(name: str, **more: Any) -> dict[str, Any]:
    return {"LocalNodeState": name, "ControlAvailable": name == "active", "NodeID": "n", "NodeAddr": "a", **more}


REFUSED = EngineRefused("initialise the swarm", 503, "This node is already part of a swarm.")


async def test_refused_init_is_well_where_another_began_it_just_now() -> None:
    engine = Script(state("inactive"), state("pending"), state("active"), refuses=REFUSED)
    assert await SwarmRoom(engine, SwarmSettings(), OWN).ensure() == Membership("n", "a", initialised=False)


async def test_refused_init_is_told_in_the_engines_words_where_none_is_there() -> None:
    engine = Script(state("inactive"), refuses=EngineRefused("initialise the swarm", 500, "port is taken"))
    with pytest.raises(UnreachableError, match=r"cannot initialise Swarm on .*: port is taken; are ports"):
        await SwarmRoom(engine, SwarmSettings(), OWN).ensure()
    assert engine.requests.count("/swarm/init") == 1


async def test_swarm_that_is_begun_and_gone_again_is_not_begun_for_ever() -> None:
    engine = Script(state("inactive"))
    with pytest.raises(UnreachableError, match="it was begun and is gone"):
        await SwarmRoom(engine, SwarmSettings(), OWN).ensure()


async def test_pending_is_waited_for_through_an_engine_that_does_not_answer() -> None:
    engine = Script(state("pending"), state("pending"), Unavailable("no answer"), state("active"))
    told: list[str] = []
    assert (await SwarmRoom(engine, SwarmSettings(), OWN, tell=told.append).ensure()).node_id == "n"
    assert told == ["waiting for the Swarm on this container's own engine: it is joining its cluster"]
    assert "/swarm/init" not in engine.requests


async def test_repair_without_hands_is_refused() -> None:
    with pytest.raises(UnreachableError, match="ip address add"):
        await SwarmRoom(Script(state("error", ControlAvailable=False, Error=LOST)), SwarmSettings(), OWN).ensure()


# --- really -------------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with private_daemon() as made:
        yield made


@asynccontextmanager
async def connected(daemon: Daemon) -> AsyncIterator[Engine]:
    engine = Engine(Endpoint(daemon.host))
    try:
        yield engine
    finally:
        engine.close()


def loopback_alone(daemon: Daemon) -> None:
    """Manager and gossip come to listen on loopback and nowhere else; a failure says where, with the log."""
    ports = (2377, 7946)
    try:
        eventually(lambda: all(daemon.listeners(port) == {"127.0.0.1"} for port in ports), "loopback alone")
    except AssertionError as error:
        found = {port: daemon.listeners(port) for port in ports}
        raise AssertionError(f"{error}; bound: {found}\n{daemon.log()[-9000:]}") from None


@pytest.mark.engine
async def test_swarm_on_loopback_binds_nothing_else_and_takes_a_free_pool(daemon: Daemon) -> None:
    daemon.inside("ip", "address", "add", "172.30.30.2/24", "dev", UPLINK)
    daemon.inside("ip", "route", "add", "10.254.128.0/17", "dev", UPLINK)
    trie = daemon.inside("cat", "/proc/net/fib_trie")
    told: list[str] = []
    async with connected(daemon) as engine:
        with pytest.raises(NotAManager, match="cannot create network 'early-net'"):
            await ensure_network(engine, NetworkSpec("early-net"))
        room = SwarmRoom(engine, SwarmSettings(), OWN, used=lambda: parse_fib_trie(trie), tell=told.append)
        made = await room.ensure()
        assert (made.node_address, made.initialised, made.repaired) == ("127.0.0.1", True, False)
        assert await room.ensure() == Membership(made.node_id, "127.0.0.1")
        assert len(told) == 1
        network = await ensure_network(engine, NetworkSpec("late-net"))
        ranges = network_ranges([await engine.networks.inspect(network.id)])
    assert all(each.subnet_of(IPv4Network("10.253.0.0/16")) for each in ranges)
    loopback_alone(daemon)


@pytest.mark.engine
async def test_two_that_begin_it_at_once_get_the_same_swarm(daemon: Daemon) -> None:
    results: list[Membership] = []
    async with connected(daemon) as one, connected(daemon) as two, anyio.create_task_group() as group:
        for engine in (one, two):
            room = SwarmRoom(engine, SwarmSettings(), OWN)

            async def ensure(room: SwarmRoom = room) -> None:
                results.append(await room.ensure())

            group.start_soon(ensure)
    assert results[0].node_id == results[1].node_id
    assert sorted(result.initialised for result in results) == [False, True]


@pytest.mark.engine
async def test_never_leaves_the_engine_without_swarm(daemon: Daemon) -> None:
    async with connected(daemon) as engine:
        with pytest.raises(ConfigurationError, match="SWARM_INIT=never"):
            await SwarmRoom(engine, SwarmSettings(init=SwarmInit.NEVER), HOST).ensure()
        assert SwarmFacts.parse(await engine.info()).state == "inactive"


@pytest.mark.engine
async def test_live_restore_is_e18() -> None:
    with private_daemon("--live-restore") as daemon:
        async with connected(daemon) as engine:
            with pytest.raises(EngineError, match=r"^E18: "):
                await SwarmRoom(engine, SwarmSettings(), OWN).ensure()
            assert SwarmFacts.parse(await engine.info()).state == "inactive"


@pytest.mark.engine
async def test_locked_swarm_is_e19(daemon: Daemon) -> None:
    daemon.docker("swarm", "init", "--autolock", "--listen-addr", "127.0.0.1", "--advertise-addr", "127.0.0.1")
    daemon.stop()
    daemon.start()
    async with connected(daemon) as engine:
        assert SwarmFacts.parse(await engine.info()).state == "locked"
        with pytest.raises(EngineError, match=r"^E19: "):
            await SwarmRoom(engine, SwarmSettings(), OWN).ensure()
        with pytest.raises(NotAManager):
            await engine.services.find()


@pytest.mark.engine
async def test_worker_is_e20(daemon: Daemon) -> None:
    with private_daemon() as manager:
        manager.link_to(daemon, "172.30.30.1/24", "172.30.30.2/24")
        manager.docker("swarm", "init", "--listen-addr", "172.30.30.1", "--advertise-addr", "172.30.30.1")
        token = manager.docker("swarm", "join-token", "--quiet", "worker")
        daemon.docker("swarm", "join", "--token", token, "--advertise-addr", "172.30.30.2", "172.30.30.1:2377")
        async with connected(daemon) as engine:
            facts = SwarmFacts.parse(await engine.info())
            assert (facts.state, facts.manager) == ("active", False)
            with pytest.raises(EngineError, match=r"^E20: "):
                await SwarmRoom(engine, SwarmSettings(), OWN).ensure()


class Hands:
    """Restarts a private daemon as its owner would."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.plans: list[RestartPlan] = []

    async def restart_engine(self, plan: RestartPlan) -> None:
        self.plans.append(plan)
        self._daemon.stop()
        change = "add" if plan.present else "delete"
        self._daemon.inside("ip", "address", change, plan.loopback_address, "dev", "lo")
        self._daemon.start()


async def running_container(engine: Engine, service: str) -> str:
    """The container of the service's running task, on the engine's word and not on the task's record alone."""
    with anyio.fail_after(40):
        while True:
            found = await engine.containers.find({"label": [f"com.docker.swarm.service.name={service}"]})
            for container in found:
                if container["State"] == "running":
                    return str(container["Id"])
            await anyio.sleep(0.05)


def move(daemon: Daemon, old: str, new: str) -> None:
    """Another address for the uplink, as a container gets one when it is made anew."""
    daemon.stop()
    daemon.inside("ip", "address", "del", old, "dev", UPLINK)
    daemon.inside("ip", "address", "add", new, "dev", UPLINK)
    daemon.start()


@pytest.mark.engine
async def test_swarm_bound_to_a_lost_address_is_repaired_and_its_service_survives(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.inside("ip", "address", "add", "172.30.30.2/24", "dev", UPLINK)
    save_image(tmp_path / "busybox.tar", BUSYBOX)
    daemon.docker("load", "--input", str(tmp_path / "busybox.tar"))
    hands = Hands(daemon)
    told: list[str] = []
    async with connected(daemon) as engine:
        bound = SwarmSettings(listen_address="172.30.30.2", advertise_address="172.30.30.2")
        before = await SwarmRoom(engine, bound, OWN).ensure()
        network = await ensure_network(engine, NetworkSpec("kept-net"))
        secret = await engine.secrets.create("kept-word", b"hush")
        service = await engine.services.create(await kept_service(engine, network.id))
        await running_container(engine, "kept")
        move(daemon, "172.30.30.2/24", "172.30.30.9/24")
        assert "cannot assign requested address" in SwarmFacts.parse(await engine.info()).error
        room = SwarmRoom(engine, SwarmSettings(), OWN, hands=hands, tell=told.append)
        after = await room.ensure()
        assert after == Membership(before.node_id, "127.0.0.1", repaired=True)
        assert hands.plans == [RestartPlan("172.30.30.2/32"), RestartPlan("172.30.30.2/32", present=False)]
        # The gossip's listener comes after the state says active.
        loopback_alone(daemon)
        daemon.stop()
        daemon.start()
        assert await room.ensure() == Membership(before.node_id, "127.0.0.1")
        assert [each["ID"] for each in await engine.services.find()] == [service]
        assert [each["ID"] for each in await engine.secrets.find()] == [secret]
        assert (await ensure_network(engine, NetworkSpec("kept-net"))).id == network.id
        await running_container(engine, "kept")
    assert len(hands.plans) == 2


UNTIL_TERM = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


async def kept_service(engine: Engine, network_id: str) -> dict[str, Any]:
    image = (await engine.images.inspect(BUSYBOX))["Id"]
    task = {
        "ContainerSpec": {"Image": image, "Command": ["/bin/sh", "-c", UNTIL_TERM]},
        "Networks": [{"Target": network_id}],
        "RestartPolicy": {"Condition": "any", "Delay": 500_000_000},
    }
    return {"Name": "kept", "TaskTemplate": task, "EndpointSpec": {"Mode": "dnsrr"}}


@pytest.mark.engine
async def test_swarm_on_loopback_outlives_a_change_of_address(daemon: Daemon) -> None:
    daemon.inside("ip", "address", "add", "172.30.30.2/24", "dev", UPLINK)
    async with connected(daemon) as engine:
        before = await SwarmRoom(engine, SwarmSettings(), OWN).ensure()
        move(daemon, "172.30.30.2/24", "172.30.30.9/24")
        assert await SwarmRoom(engine, SwarmSettings(), OWN).ensure() == Membership(before.node_id, "127.0.0.1")
