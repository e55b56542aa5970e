"""What the private engine is started with, from recorded facts."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tests.engine_rig.places import (
    CAP_SYS_RESOURCE,
    Addresses,
    EngineRigError,
    Places,
    cache_folder,
    default_interface,
    dockerd_argv,
    free_network,
    lacks_capability,
    routed_networks,
)

_ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
docker0	00001FAC	00000000	0001	0	0	0	0000FFFF	0	0	0
"""
_NETWORK = ipaddress.IPv4Network("172.30.0.0/16")


def test_routes_are_read_without_the_default_one() -> None:
    assert [str(each) for each in routed_networks(_ROUTES)] == ["192.0.2.0/24", "172.31.0.0/16"]
    assert default_interface(_ROUTES) == "eth0"
    assert default_interface(_ROUTES.splitlines()[0]) is None


def test_a_network_that_is_routed_is_not_taken() -> None:
    assert free_network(routed_networks(_ROUTES)) == _NETWORK
    assert str(free_network(routed_networks(_ROUTES), "172.31.4.0/24")) == "172.31.4.0/24"
    assert free_network([], digest="1") == _NETWORK
    with pytest.raises(EngineRigError, match="SUPERVISOR_TEST_NETWORK"):
        free_network([ipaddress.IPv4Network("172.0.0.0/8")])


@pytest.mark.parametrize(
    ("network", "bridge", "pool"),
    [
        ("172.30.0.0/16", "172.30.0.1/18", "base=172.30.128.0/17,size=24"),
        ("172.30.20.0/24", "172.30.20.1/26", "base=172.30.20.128/25,size=28"),
    ],
)
def test_the_bridge_and_the_pool_share_a_network_without_touching(network: str, bridge: str, pool: str) -> None:
    addresses = Addresses(ipaddress.IPv4Network(network))
    assert (str(addresses.bridge), addresses.pool) == (bridge, pool)


def test_the_bounding_set_tells_what_a_container_cannot_get() -> None:
    assert lacks_capability(CAP_SYS_RESOURCE, "CapEff:\t0\nCapBnd:\t000001fffeffffff\n")
    assert not lacks_capability(CAP_SYS_RESOURCE, "CapEff:\t0\nCapBnd:\t000001ffffffffff\n")


def test_the_runtime_is_wrapped_only_where_it_must_be() -> None:
    places = Places(Path("/cache/engine"))
    wrapped, plain = (
        dockerd_argv(places, Addresses(_NETWORK), mtu=1500, wrap_runtime=wrap_runtime) for wrap_runtime in (True, False)
    )
    assert [word for word in wrapped if "runtime" in word]
    assert not [word for word in plain if "runtime" in word]


def test_two_folders_share_nothing() -> None:
    one, other = (Places(Path(f"/cache/{name}")) for name in ("one", "other"))
    assert one.bridge != other.bridge
    assert len(one.bridge) <= 15  # IFNAMSIZ, 16 with the closing zero
    assert one.cgroup != other.cgroup


def test_a_folder_too_long_for_a_socket_is_told_at_once() -> None:
    with pytest.raises(EngineRigError, match="XDG_CACHE_HOME"):
        Places(Path("/") / ("long" * 30))


def test_the_cache_is_where_caches_are() -> None:
    assert cache_folder({}, root=True) == Path("/var/cache/container-supervisor")
    assert cache_folder({"HOME": "/home/a"}, root=False) == Path("/home/a/.cache/container-supervisor")
    assert cache_folder({"XDG_CACHE_HOME": "/c"}, root=True) == Path("/c/container-supervisor")
