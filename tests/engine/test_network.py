"""The overlay and who is on it: judged from recorded answers, and really made, verified, joined on a private engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.engine import network as rooms
from supervisor.engine.client import Endpoint, Engine
from supervisor.engine.errors import Conflict, EngineRefused
from supervisor.engine.labels import INSTALL, STACK, Ownership, owned, ownership
from supervisor.engine.network import (
    Allocating,
    Attach,
    Attached,
    CannotAttach,
    Differs,
    NetworkSpec,
    OverlayNetwork,
    attach_container,
    ensure_gateway,
    ensure_network,
    judge_network,
    kept_endpoint,
    plan_attachment,
    services_on,
)
from supervisor.engine.resources import Containers, Networks, Services
from tests.engine.daemons import BUSYBOX, Daemon, private_daemon, save_image

pytestmark = pytest.mark.anyio
OURS = owned("uuid-1", "dokploy")
NETWORK = OverlayNetwork("n1", "net", Ownership.OURS)


def found(**more: Any) -> dict[str, Any]:
    """An overlay as the API lists one."""
    whole = {"Id": "n1", "Name": "net", "Driver": "overlay", "Scope": "swarm", "Attachable": True, "Labels": OURS}
    return whole | more


# --- decisions ----------------------------------------------------------------------------------------------------


def test_labels_tell_whose_an_object_is() -> None:
    assert OURS == {INSTALL: "uuid-1", STACK: "dokploy"}
    assert ownership(OURS, "uuid-1") is Ownership.OURS
    assert ownership(OURS, "uuid-2") is Ownership.OTHER
    assert ownership({"a": "b"}, "uuid-1") is Ownership.UNLABELLED
    assert ownership(None, "uuid-1") is Ownership.UNLABELLED


@pytest.mark.parametrize(
    ("more", "reasons"),
    [
        (
            {"Driver": "bridge", "Scope": "local"},
            ("its driver is bridge, not overlay", "its scope is local, not swarm"),
        ),
        ({"Scope": "local"}, ("its scope is local, not swarm",)),
        ({"Attachable": False}, ("its attachable is False, not True",)),
    ],
)
def test_network_that_cannot_serve_says_every_reason(more: dict[str, Any], reasons: tuple[str, ...]) -> None:
    assert judge_network(found(**more), NetworkSpec("net", OURS)) == Differs("n1", reasons)


@pytest.mark.parametrize(
    ("labels", "owner"),
    [(OURS, Ownership.OURS), ({}, Ownership.UNLABELLED), (owned("uuid-2", "dokploy"), Ownership.OTHER)],
)
def test_network_that_serves_tells_whose_it_is(labels: dict[str, str], owner: Ownership) -> None:
    assert judge_network(found(Labels=labels), NetworkSpec("net", OURS)) == OverlayNetwork("n1", "net", owner)


def test_network_that_swarm_has_not_allocated_yet_is_no_wrong_one() -> None:
    assert judge_network(found(Driver=""), NetworkSpec("net")) == Allocating()


@pytest.mark.parametrize(
    ("has", "wanted", "noted"),
    [(None, None, False), ("1400", None, False), ("1400", 1400, False), ("1400", 1300, True), (None, 1400, True)],
)
def test_other_packet_size_is_noted_and_does_not_hinder(has: str | None, wanted: int | None, noted: bool) -> None:
    options = {"com.docker.network.driver.mtu": has} if has else None
    judged = judge_network(found(Options=options), NetworkSpec("net", OURS, mtu=wanted))
    assert isinstance(judged, OverlayNetwork)
    assert bool(judged.notes) is noted


def test_request_names_the_packet_size_only_where_it_is_known() -> None:
    assert NetworkSpec("net", OURS, mtu=1400).request() == {
        "Name": "net",
        "Driver": "overlay",
        "Attachable": True,
        "Labels": OURS,
        "Options": {"com.docker.network.driver.mtu": "1400"},
    }
    assert NetworkSpec("net").request()["Options"] == {}


def container(mode: str = "bridge", labels: dict[str, str] | None = None, **networks: Any) -> dict[str, Any]:
    """A container as the API shows one."""
    return {
        "HostConfig": {"NetworkMode": mode},
        "Config": {"Labels": labels or {}},
        "NetworkSettings": {"Networks": networks},
    }


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (container(bridge={"NetworkID": "b1", "Aliases": None}), Attach()),
        (container(net={"NetworkID": "n1", "Aliases": ["app", "c1"]}), Attached()),
        (container(net={"NetworkID": "n1", "Aliases": ["c1"]}), Attach(reconnect=True)),
        (container(net={"NetworkID": "n1", "Aliases": None}), Attach(reconnect=True)),
        (container(net={"NetworkID": "", "Aliases": ["app"]}), Attached()),
        (container(net={"NetworkID": "an older one", "Aliases": ["app"]}), Attach()),
        (container(labels={"com.docker.swarm.task.id": "t"}, net={"NetworkID": "n1", "Aliases": ["app"]}), Attached()),
    ],
)
def test_attachment_is_decided_by_what_the_container_shows(shown: dict[str, Any], expected: object) -> None:
    assert plan_attachment(shown, NETWORK, "app") == expected


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (container("host"), "network mode is 'host'"),
        (container("none"), "network mode is 'none'"),
        (container("container:abc"), "network mode is 'container:abc'"),
        (container(labels={"com.docker.swarm.task.id": "t"}), "--network-add name=net,alias=app"),
    ],
)
def test_container_that_cannot_be_attached_says_what_to_do(shown: dict[str, Any], words: str) -> None:
    plan = plan_attachment(shown, NETWORK, "app")
    assert isinstance(plan, CannotAttach)
    assert words in plan.why


def test_services_on_a_network_are_found_in_both_places_of_a_spec() -> None:
    services: list[dict[str, Any]] = [
        {"Spec": {"Name": "a", "TaskTemplate": {"Networks": [{"Target": "n1"}]}}},
        {"Spec": {"Name": "b", "TaskTemplate": {}, "Networks": [{"Target": "n1"}]}},
        {"Spec": {"Name": "c", "TaskTemplate": {"Networks": [{"Target": "n2"}]}}},
        {"Spec": {"Name": "d", "TaskTemplate": {"Networks": None}}},
    ]
    assert services_on("n1", services) == ["service a", "service b"]


class Script:
    """An engine whose list of networks goes through the given stages; creating is a conflict where told."""

    def __init__(self, *stages: list[dict[str, Any]], conflict: bool = False) -> None:
        self._stages = list(stages)
        self._conflict = conflict
        self.created = 0
        self.networks = Networks(self)
        self.containers = Containers(self)
        self.services = Services(self)

    async def call(self, method: str, path: str, *, action: str, **more: Any) -> Any:
        if path == "/networks":
            return self._stages.pop(0) if len(self._stages) > 1 else self._stages[0]
        if path == "/networks/create":
            self.created += 1
            if self._conflict:
                raise Conflict(action, 409, "network with name net already exists")
            return {"Id": "n1"}
        return {"Containers": {}} if path.startswith("/networks/") else []

    def stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


async def test_network_made_by_another_in_between_is_judged_like_any_other() -> None:
    engine = Script([], [found()], conflict=True)
    assert (await ensure_network(engine, NetworkSpec("net", OURS))).id == "n1"
    with pytest.raises(ConfigurationError, match="its attachable is False"):
        await ensure_network(Script([], [found(Attachable=False)], conflict=True), NetworkSpec("net", OURS))


async def test_network_is_waited_for_until_swarm_has_allocated_it() -> None:
    engine = Script([], [found(Driver="")], [found(Driver="")], [found()])
    assert (await ensure_network(engine, NetworkSpec("net", OURS))).id == "n1"
    assert engine.created == 1


async def test_network_that_never_becomes_usable_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "ALLOCATION_SECONDS", 0.2)
    with pytest.raises(UnreachableError, match="cannot create network 'net': the engine took it"):
        await ensure_network(Script([found(Driver="")]), NetworkSpec("net"))


async def test_names_that_only_contain_the_name_are_others() -> None:
    engine = Script([found(Name="net-2", Id="n2")], [found(Name="net-2", Id="n2"), found()])
    assert (await ensure_network(engine, NetworkSpec("net"))).id == "n1"
    assert engine.created == 1


def test_a_reconnect_keeps_what_others_gave_the_container() -> None:
    address = {"IPv4Address": "10.0.1.9"}
    there = container(net={"NetworkID": "n1", "Aliases": ["web", "c1"], "IPAMConfig": address})
    assert kept_endpoint(there, NETWORK) == {"Aliases": ["web", "c1"], "IPAMConfig": address}
    assert kept_endpoint(container(), NETWORK) == {"Aliases": []}


# --- really -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One engine with busybox and a Swarm on loopback, for the tests of this module; each uses names of its own."""
    with private_daemon() as made:
        save_image(made.folder / "busybox.tar", BUSYBOX)
        made.docker("load", "--input", str(made.folder / "busybox.tar"))
        made.docker("swarm", "init", "--listen-addr", "127.0.0.1", "--advertise-addr", "127.0.0.1")
        yield made


@pytest.fixture
async def engine(daemon: Daemon) -> AsyncIterator[Engine]:
    made = Engine(Endpoint(daemon.host))
    yield made
    made.close()


async def start(engine: Engine, name: str, **more: Any) -> str:
    made = await engine.containers.create({"Image": BUSYBOX, "Cmd": ["/bin/sleep", "600"], **more}, name)
    await engine.containers.start(made)
    return made


async def default_gateway(engine: Engine, name: str) -> str:
    """Where the container's default route leads; the interface may get another name."""
    shown = (await engine.containers.exec(name, ["/bin/ip", "route", "show", "default"])).stdout
    return shown.decode().split()[2]


@pytest.mark.engine
async def test_network_is_made_once_and_found_again_by_everyone(engine: Engine) -> None:
    made: list[OverlayNetwork] = []
    wanted = NetworkSpec("shared-net", OURS)

    async def ensure() -> None:
        made.append(await ensure_network(engine, wanted))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(ensure)
    assert len({network.id for network in made}) == 1
    assert await ensure_network(engine, wanted) == made[0]
    assert made[0].owner is Ownership.OURS
    inspected = await engine.networks.inspect(made[0].id)
    assert (inspected["Driver"], inspected["Scope"], inspected["Attachable"]) == ("overlay", "swarm", True)
    assert inspected["Labels"] == OURS
    stranger = await ensure_network(engine, NetworkSpec("shared-net", owned("uuid-2", "dokploy")))
    assert (stranger.id, stranger.owner) == (made[0].id, Ownership.OTHER)


@pytest.mark.engine
async def test_network_that_differs_is_reported_with_its_users_and_left_alone(engine: Engine) -> None:
    bridge = await engine.networks.create({"Name": "taken-net", "Driver": "bridge"})
    user = await start(engine, "its-user", HostConfig={"NetworkMode": "taken-net"})
    with pytest.raises(ConfigurationError) as caught:
        await ensure_network(engine, NetworkSpec("taken-net", OURS))
    text = str(caught.value)
    assert text.startswith(f"cannot use network 'taken-net' ({bridge[:12]}): its driver is bridge, not overlay")
    assert "in use by container its-user" in text
    assert "SUPERVISOR_STACK" in text
    assert (await engine.networks.inspect("taken-net"))["Id"] == bridge
    await engine.containers.remove(user, force=True)
    await engine.networks.remove(bridge)


@pytest.mark.engine
async def test_overlay_that_is_not_attachable_names_the_service_on_it(engine: Engine) -> None:
    closed = await engine.networks.create({"Name": "closed-net", "Driver": "overlay"})
    image = (await engine.images.inspect(BUSYBOX))["Id"]
    task = {"ContainerSpec": {"Image": image, "Command": ["/bin/sleep", "600"]}, "Networks": [{"Target": closed}]}
    service = await engine.services.create({"Name": "closed-user", "TaskTemplate": task})
    with pytest.raises(ConfigurationError, match=r"its attachable is False, not True; it is in use by .*closed-user"):
        await ensure_network(engine, NetworkSpec("closed-net", OURS))
    await engine.services.remove(service)


@pytest.mark.engine
async def test_packet_size_reaches_the_containers_and_a_later_wish_is_noted(engine: Engine) -> None:
    network = await ensure_network(engine, NetworkSpec("small-net", OURS, mtu=1400))
    assert network.notes == ()
    made = await start(engine, "small", HostConfig={"NetworkMode": "small-net"})
    shown = (await engine.containers.exec(made, ["/bin/ip", "link", "show", "eth0"])).stdout.decode()
    assert "mtu 1350" in shown
    later = await ensure_network(engine, NetworkSpec("small-net", OURS, mtu=1300))
    assert later.id == network.id
    assert "made for an MTU of 1400, and the way out now takes 1300" in later.notes[0]
    await engine.containers.remove(made, force=True)


@pytest.mark.engine
async def test_the_way_out_of_tasks_has_the_packet_size_it_was_made_with() -> None:
    with private_daemon() as fresh:
        save_image(fresh.folder / "busybox.tar", BUSYBOX)
        fresh.docker("load", "--input", str(fresh.folder / "busybox.tar"))
        engine = Engine(Endpoint(fresh.host))
        await ensure_gateway(engine, 1400)
        await ensure_gateway(engine, 1300)  # one that is there stays
        fresh.docker("swarm", "init", "--listen-addr", "127.0.0.1", "--advertise-addr", "127.0.0.1")
        await ensure_network(engine, NetworkSpec("small-net", OURS, mtu=1400))
        made = await start(engine, "small", HostConfig={"NetworkMode": "small-net"})
        shown = (await engine.containers.exec(made, ["/bin/ip", "link", "show"])).stdout.decode()
        assert "mtu 1350" in shown
        assert "mtu 1400" in shown
        assert "mtu 1500" not in shown
        await engine.containers.remove(made, force=True)
        engine.close()


@pytest.mark.engine
async def test_own_container_is_attached_once_and_found_by_its_alias(engine: Engine) -> None:
    network = await ensure_network(engine, NetworkSpec("alias-net", OURS))
    own = await start(engine, "own")
    gateway = await default_gateway(engine, own)
    assert await attach_container(engine, own, network, "app") is True
    assert await attach_container(engine, own, network, "app") is False
    assert await default_gateway(engine, own) == gateway
    other = await start(engine, "other", HostConfig={"NetworkMode": "alias-net"})
    address = (await engine.containers.inspect(own))["NetworkSettings"]["Networks"]["alias-net"]["IPAddress"]
    looked_up = await engine.containers.exec(other, ["/bin/nslookup", "app"])
    assert address in looked_up.stdout.decode()
    for each in (own, other):
        await engine.containers.remove(each, force=True)


@pytest.mark.engine
async def test_container_on_the_network_without_the_alias_gets_it(engine: Engine) -> None:
    network = await ensure_network(engine, NetworkSpec("bare-net", OURS))
    own = await start(engine, "bare")
    await engine.networks.connect(network.id, own)
    with pytest.raises(EngineRefused):
        await engine.networks.connect(network.id, own)
    assert await attach_container(engine, own, network, "app") is True
    endpoint = (await engine.containers.inspect(own))["NetworkSettings"]["Networks"]["bare-net"]
    assert "app" in endpoint["Aliases"]
    await engine.containers.remove(own, force=True)


@pytest.mark.engine
async def test_two_that_attach_at_once_both_succeed(engine: Engine) -> None:
    network = await ensure_network(engine, NetworkSpec("race-net", OURS))
    own = await start(engine, "racer")
    did: list[bool] = []

    async def attach() -> None:
        did.append(await attach_container(engine, own, network, "app"))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(attach)
    assert len(did) == 3
    assert await attach_container(engine, own, network, "app") is False
    await engine.containers.remove(own, force=True)


@pytest.mark.engine
async def test_container_on_the_hosts_network_is_refused_with_what_to_do(engine: Engine) -> None:
    network = await ensure_network(engine, NetworkSpec("never-net", OURS))
    own = await start(engine, "hostly", HostConfig={"NetworkMode": "host"})
    with pytest.raises(ConfigurationError, match="network mode is 'host'; start it on a bridge network"):
        await attach_container(engine, own, network, "app")
    await engine.containers.remove(own, force=True)
