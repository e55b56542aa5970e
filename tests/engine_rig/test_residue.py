"""Which rules and interfaces are ours, on recorded text."""

from __future__ import annotations

import ipaddress

from tests.engine_rig.residue import Ours, own_interfaces, removals

_NETWORK = ipaddress.IPv4Network("172.30.0.0/16")
_SAVED = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:MINE - [0:0]
-A INPUT -i lo -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -o svt0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.30.0.2/32 ! -i svt0 -o svt0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A POSTROUTING -s 172.30.128.0/24 ! -o br-0123456789ab -j MASQUERADE
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
"""
_OURS = frozenset({"svt0"})


def test_beside_another_engine_only_our_own_rules_go() -> None:
    assert [" ".join(words) for words in removals(_SAVED, Ours(_NETWORK, _OURS, alone=False))] == [
        "-t filter -D FORWARD -o svt0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-t filter -D DOCKER -d 172.30.0.2/32 ! -i svt0 -o svt0 -p tcp -m tcp --dport 80 -j ACCEPT",
        "-t nat -D POSTROUTING -s 172.30.128.0/24 ! -o br-0123456789ab -j MASQUERADE",
    ]


def test_alone_the_chains_go_too_after_what_points_to_them() -> None:
    words = [" ".join(each) for each in removals(_SAVED, Ours(_NETWORK, _OURS, alone=True))]
    assert "-t filter -D FORWARD -j DOCKER-USER" in words
    assert "-t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER" in words
    assert words[-6:] == [
        *("-t filter -F DOCKER", "-t filter -F DOCKER-USER", "-t nat -F DOCKER"),
        *("-t filter -X DOCKER", "-t filter -X DOCKER-USER", "-t nat -X DOCKER"),
    ]
    assert not [each for each in words if "MINE" in each or " lo " in each or "172.17." in each]


def test_bridges_of_networks_are_ours_when_our_engine_knows_their_id() -> None:
    present = {"lo", "eth0", "br-0123456789ab", "br-ba9876543210", "br-lan"}
    assert own_interfaces(present, bridge="svt0", known=b'{"id":"0123456789abcdef"}') == {"svt0", "br-0123456789ab"}
