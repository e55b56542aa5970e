"""Network facts: routes, packet size, name servers, free address ranges; and the choice of an iptables."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import iptables, network_facts
from supervisor.engine.dockerd.iptables import Attempt, Choice, IptablesBackend, IptablesChoice, attempts, link_programs
from supervisor.engine.dockerd.network_facts import Route, choose_pools, parse_routes, usable_servers
from supervisor.process.child import Command

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
)


def routes_of(*networks: str, interface: str = "eth0") -> list[Route]:
    return [Route(interface, IPv4Network(network)) for network in networks]


def test_routes_are_read_least_byte_first() -> None:
    assert parse_routes(ROUTES) == routes_of("0.0.0.0/0", "172.17.0.0/16")


def test_pools_keep_clear_of_every_route() -> None:
    pools = choose_pools(routes_of("0.0.0.0/0", "172.17.0.0/16", "172.18.4.0/24", "10.0.0.0/12"))
    assert (pools.bridges, pools.overlays) == (IPv4Network("172.19.0.0/16"), IPv4Network("10.16.0.0/16"))


def test_pools_stay_the_same_beside_the_networks_made_from_them() -> None:
    inner = [
        *routes_of("172.17.0.0/24", interface="docker0"),
        *routes_of("172.17.1.0/24", interface="docker_gwbridge"),
        *routes_of("172.17.2.0/24", interface="br-0123456789ab"),
    ]
    assert choose_pools(inner) == choose_pools([])
    assert choose_pools(routes_of("172.17.0.0/24", interface="br-lan")) != choose_pools([])


def test_pools_are_none_where_everything_is_routed() -> None:
    pools = choose_pools(routes_of("172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"))
    assert (pools.bridges, pools.overlays) == (None, None)


def test_pools_for_bridges_and_overlays_never_overlap() -> None:
    for bridges in network_facts.BRIDGE_RANGES:
        assert not any(bridges.overlaps(overlays) for overlays in network_facts.OVERLAY_RANGES)


@pytest.mark.parametrize(
    ("texts", "servers"),
    [
        (["nameserver 10.0.0.2\nnameserver 127.0.0.1\nnameserver 10.0.0.2\n"], ("10.0.0.2",)),
        (["nameserver 127.0.0.53\n", "nameserver 192.168.1.1\n"], ("192.168.1.1",)),
        (["nameserver 127.0.0.11\n# ExtServers: [host(10.1.1.1) 9.9.9.9]\n"], ("10.1.1.1", "9.9.9.9")),
        (["nameserver 127.0.0.11\n# ExtServers: [host(127.0.0.53)]\noptions ndots:0\n"], ()),
        (["nameserver fe80::1%eth0\nnameserver ::1\nnameserver 2001:db8::1\n"], ("2001:db8::1",)),
        (["# nameserver 10.0.0.1\nnameserver\n"], ()),
    ],
)
def test_name_servers_are_those_that_inner_containers_can_reach(texts: list[str], servers: tuple[str, ...]) -> None:
    assert usable_servers(texts) == servers


def test_the_packet_size_comes_from_the_interface() -> None:
    assert network_facts.read_mtu("lo") == 65536
    assert network_facts.read_mtu("no-such-one") is None


def test_a_setting_is_tried_alone() -> None:
    assert {attempt.backend for attempt, _ in attempts(IptablesBackend.NFT, "filter\n")} == {IptablesBackend.NFT}


def test_legacy_rules_that_are_there_decide() -> None:
    assert [attempt for attempt, _ in attempts(None, "nat\nfilter\n")] == [Attempt(IptablesBackend.LEGACY)]


def test_without_rules_the_default_comes_first_and_modules_are_asked_for_after_it() -> None:
    tried = [(attempt.backend, attempt.load) for attempt, _ in attempts(None, "\n")]
    assert tried == [(IptablesBackend.DEFAULT, False), (IptablesBackend.NFT, True), (IptablesBackend.LEGACY, False)]


class Programs:
    """Stands for the programs: `working` are those whose nat table can be listed."""

    def __init__(self, *working: str) -> None:
        self.working = working
        self.ran: list[str] = []

    async def __call__(self, command: Command) -> tuple[int, str]:
        name = command.argv[0]
        self.ran.append(name)
        if name != "modprobe":
            assert "nat" in command.argv, "the filter table proves nothing"
        return (0, "") if name in self.working else (3, f"{name}: Table does not exist")


async def choose(programs: Programs, monkeypatch: pytest.MonkeyPatch, *, there: str = "") -> Choice:
    monkeypatch.setattr(iptables, "read_legacy_tables", lambda: there)
    return await IptablesChoice(programs, {}).choose()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("working", "there", "chosen"),
    [
        (("iptables", "ip6tables"), "", (IptablesBackend.DEFAULT, True)),
        (("iptables",), "", (IptablesBackend.DEFAULT, False)),
        (("iptables-nft", "ip6tables-nft"), "", (IptablesBackend.NFT, True)),
        (("iptables-legacy",), "", (IptablesBackend.LEGACY, False)),
        (("iptables", "iptables-legacy"), "nat\n", (IptablesBackend.LEGACY, False)),
    ],
)
async def test_the_first_backend_with_a_nat_table_is_chosen(
    working: tuple[str, ...], there: str, chosen: tuple[IptablesBackend, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = await choose(Programs(*working), monkeypatch, there=there)
    assert (choice.backend, choice.ipv6) == chosen


@pytest.mark.anyio
async def test_modules_are_asked_for_only_when_the_default_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fine, failing = Programs("iptables"), Programs("iptables-nft")
    await choose(fine, monkeypatch)
    await choose(failing, monkeypatch)
    assert ("modprobe" in fine.ran, "modprobe" in failing.ran) == (False, True)


@pytest.mark.anyio
async def test_no_nat_table_at_all_is_e22_with_each_answer_and_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError) as caught:
        await choose(Programs(), monkeypatch)
    assert caught.value.code == "E22"
    for part in ("iptables: Table does not exist", "iptables-nft: ", "iptables-legacy: ", "on the host: modprobe -a"):
        assert part in str(caught.value)


def test_the_chosen_programs_come_first_on_the_path(tmp_path: Path) -> None:
    system, links = tmp_path / "system", tmp_path / "links"
    system.mkdir()
    for name in ("iptables-legacy", "iptables-legacy-save"):
        (system / name).touch(mode=0o755)
    for _ in range(2):
        path = link_programs(Choice(IptablesBackend.LEGACY, "", ipv6=False), links, str(system))
        assert path == f"{links}:{system}"
        assert (links / "iptables").readlink() == system / "iptables-legacy"
        assert (links / "iptables-save").readlink() == system / "iptables-legacy-save"
        assert not (links / "ip6tables").exists()
    assert link_programs(Choice(IptablesBackend.DEFAULT, "", ipv6=True), links, "/bin") == "/bin"
