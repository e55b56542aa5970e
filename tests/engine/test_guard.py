"""Closed ports: what is decided, and what the kernel does with it in namespaces of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import anyio.to_thread
import pytest

from supervisor.core.errors import EngineError
from supervisor.engine.guard import Need, Standing, chain_of, close_ports, has_ipv6, rule, steps
from supervisor.engine.network import GATEWAY
from supervisor.process.child import Command
from tests.engine.daemons import BUSYBOX, Daemon, private_daemon, save_image

pytestmark = pytest.mark.anyio

STACK = "shop"
CHAIN = chain_of(STACK)
PORTS = (5432, 6379)
OPEN_PORT = 8000
ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
ADDRESSES_OF = {"lo": "00000000000000000000000000000001 01 80 10 80       lo\n"}
ADDRESSES_OF["eth0"] = ADDRESSES_OF["lo"] + "fe800000000000000042acfffe110002 05 40 20 80     eth0\n"
ADDRESSES_OF["bridge"] = ADDRESSES_OF["lo"] + "fe800000000000000042acfffe110003 06 40 20 80  docker0\n"
ADDRESSES_OF["routed bridge"] = ADDRESSES_OF["lo"] + "fd000000000000000042acfffe110003 06 40 00 80  docker0\n"


# --- decisions ----------------------------------------------------------------------------------------------------


def words_of(standing: Standing, ports: tuple[int, ...] = PORTS) -> list[str]:
    return [" ".join(step.words) for step in steps(standing, ports, CHAIN)]


def test_nothing_is_done_where_all_is_there() -> None:
    assert words_of(Standing(led=True, closed=True)) == []


def test_the_way_into_the_chain_is_made_when_its_rule_is_there() -> None:
    made = words_of(Standing(led=False, closed=False))
    assert made[0] == f"-N {CHAIN}"
    assert (
        made[1] == f"-I {CHAIN} 1 ! -i lo -p tcp -m multiport --dports 5432,6379 -m addrtype --dst-type LOCAL -j DROP"
    )
    assert made[-1] == f"-I PREROUTING 1 -j {CHAIN}"


def test_rule_of_other_ports_goes_after_the_new_one_came() -> None:
    made = steps(Standing(led=True, closed=False), PORTS, CHAIN)
    assert [step.words[0] for step in made] == ["-N", "-I", "-D"]
    assert [step.need for step in made] == [Need.MAY, Need.MUST, Need.UNTIL_REFUSED]


def test_without_ports_the_chain_is_led_to_no_more() -> None:
    assert words_of(Standing(led=True, closed=False), ()) == [f"-D PREROUTING -j {CHAIN}"]
    assert words_of(Standing(led=False, closed=False), ()) == []


def test_order_and_repetition_of_ports_make_no_other_rule() -> None:
    assert rule([6379, 5432, 6379]) == rule([5432, 6379])


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("", False),
        ("\n", False),
        (ADDRESSES_OF["lo"], False),
        (ADDRESSES_OF["eth0"], True),
        (ADDRESSES_OF["bridge"], False),
        (ADDRESSES_OF["routed bridge"], True),
    ],
)
def test_ipv6_is_there_with_an_address_beside_loopback(text: str, there: bool) -> None:
    assert has_ipv6(text) is there


class Programs:
    """Stands for iptables; `broken` ones refuse everything."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.ran: list[tuple[str, ...]] = []

    async def __call__(self, command: Command) -> tuple[int, str]:
        self.ran.append(tuple(command.argv))
        return (3, "can't initialize table `raw'") if command.argv[0] in self.broken else (0, "")


async def test_refusal_is_e22_with_ports_reason_and_ways_out() -> None:
    programs = Programs("iptables")
    with pytest.raises(EngineError) as caught:
        await close_ports(PORTS, stack=STACK, run=programs, environ=ENVIRON)
    assert caught.value.code == "E22"
    for part in ("5432, 6379", "can't initialize table `raw'", "modprobe -a", "SUPERVISOR_DATABASE_URL"):
        assert part in str(caught.value)


@pytest.mark.parametrize("interface", ["lo", "eth0", None])
async def test_ipv6_may_fail_only_where_no_interface_has_an_address_of_it(
    tmp_path: Path, interface: str | None
) -> None:
    file = tmp_path / "if_inet6"
    if interface is not None:
        file.write_text(ADDRESSES_OF[interface])
    closing = close_ports(PORTS, stack=STACK, run=Programs("ip6tables"), environ=ENVIRON, ipv6_addresses=file)
    if interface == "eth0":
        with pytest.raises(EngineError, match=r"E22: .*ip6tables"):
            await closing
    else:
        await closing


async def test_what_stands_is_only_looked_at_and_waits_for_the_lock() -> None:
    programs = Programs()
    await close_ports(PORTS, stack=STACK, run=programs, environ=ENVIRON)
    tables = ("raw", "raw", "mangle")
    assert [(argv[0], argv[4], argv[5]) for argv in programs.ran] == [
        (family, table, "-C") for family in ("iptables", "ip6tables") for table in tables
    ]
    assert all(argv[1:4] == ("-w", "5", "-t") for argv in programs.ran)


def test_each_stack_has_a_chain_whose_name_the_kernel_takes() -> None:
    assert chain_of("shop") != chain_of("shop2")
    assert len(chain_of("s" * 60)) <= 28


# --- really -------------------------------------------------------------------------------------------------------

_LISTEN = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for port in sys.argv[1:]:
    selector.register(socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True), 1)
while True:
    for key, _ in selector.select():
        key.fileobj.accept()[0].close()
"""
_ASK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])).close()
except TimeoutError:
    sys.exit(3)
"""
_numbers = count(1)


class Net:
    """Namespaces joined by cables; `run` is how a program of the guard's runs in the one to be closed."""

    def __init__(self, closed: Daemon, stack: str = STACK) -> None:
        self.closed = closed
        self.stack = stack

    async def close(self, *ports: int) -> None:
        addresses = Path(f"/proc/{self.closed.init_pid}/net/if_inet6")
        await close_ports(ports, stack=self.stack, run=self.run, environ=ENVIRON, ipv6_addresses=addresses)

    async def run(self, command: Command) -> tuple[int, str]:
        def in_thread() -> tuple[int, str]:
            argv = [*net_of(self.closed), *command.argv]
            done = subprocess.run(argv, env=dict(command.env), capture_output=True, text=True, timeout=10)
            return done.returncode, (done.stdout + done.stderr).strip().rpartition("\n")[2]

        return await anyio.to_thread.run_sync(in_thread)

    def rules(self, program: str = "iptables") -> list[str]:
        listed = self.closed.inside(program, "-t", "raw", "-S").splitlines()
        return [line for line in listed if line.startswith("-A")]


Place = Daemon | Sequence[str]
"""Namespaces, or the words that enter them."""


def net_of(place: Place) -> list[str]:
    return ["nsenter", "--target", str(place.init_pid), "--net", "--"] if isinstance(place, Daemon) else [*place]


def reaches(place: Place, address: str, port: int, *, limit_seconds: float = 5.0) -> bool:
    """Whether a connection comes about; what is dropped is silent, so expecting that may use a short limit."""
    argv = [*net_of(place), sys.executable, "-S", "-c", _ASK, address, str(port), str(limit_seconds)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode == 0


def is_cut(place: Place, address: str, port: int) -> bool:
    return not reaches(place, address, port, limit_seconds=0.5)


def cable(one: Daemon, other: Daemon, subnet: int) -> None:
    """Join both, with the addresses 192.0.N.1 and .2, fd00:N::1 and ::2."""
    names = [f"cable{next(_numbers)}" for _ in range(2)]
    ends = [[name, "netns", str(place.init_pid)] for name, place in zip(names, (one, other), strict=True)]
    subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]], check=True, timeout=10)
    for number, (name, place) in enumerate(zip(names, (one, other), strict=True), start=1):
        place.inside("ip", "address", "add", f"192.0.{subnet}.{number}/24", "dev", name)
        place.inside("ip", "address", "add", f"fd00:{subnet}::{number}/64", "dev", name, "nodad")
        place.inside("ip", "link", "set", name, "up")


@contextmanager
def namespace() -> Iterator[Daemon]:
    """Namespaces without a daemon in them."""
    if os.geteuid() != 0 or shutil.which("iptables") is None:
        pytest.skip("needs root and iptables")
    place = Daemon()
    try:
        yield place
    finally:
        place.end()


@contextmanager
def two() -> Iterator[tuple[Net, Daemon]]:
    """One with listeners, and its neighbour."""
    with namespace() as here, namespace() as neighbour:
        cable(here, neighbour, 2)
        listen(here)
        yield Net(here), neighbour


def listen(place: Daemon) -> None:
    ports = [str(port) for port in (*PORTS, OPEN_PORT)]
    place.leave_running(sys.executable, "-S", "-c", _LISTEN, *ports, port=OPEN_PORT)


@pytest.mark.namespaces
@pytest.mark.parametrize(("near", "address"), [("127.0.0.1", "192.0.2.1"), ("::1", "fd00:2::1")])
async def test_closed_ports_are_reached_through_loopback_alone(near: str, address: str) -> None:
    with two() as (net, neighbour):
        for port in (*PORTS, OPEN_PORT):
            assert reaches(neighbour, address, port)
        await net.close(*PORTS)
        for port in PORTS:
            assert is_cut(neighbour, address, port)
            assert reaches(net.closed, near, port)
            assert reaches(net.closed, address, port), "its own address is reached through loopback too"
        assert reaches(neighbour, address, OPEN_PORT)


@pytest.mark.namespaces
async def test_second_time_changes_nothing_and_other_ports_take_the_place_of_the_first() -> None:
    with two() as (net, neighbour):
        await net.close(*PORTS)
        first = net.rules(), net.rules("ip6tables")
        assert [len(rules) for rules in first] == [2, 2]
        await net.close(*PORTS)
        assert (net.rules(), net.rules("ip6tables")) == first
        await net.close(OPEN_PORT)
        assert [len(rules) for rules in (net.rules(), net.rules("ip6tables"))] == [2, 2]
        assert is_cut(neighbour, "192.0.2.1", OPEN_PORT)
        assert reaches(neighbour, "192.0.2.1", PORTS[0])
        await net.close()
        assert reaches(neighbour, "192.0.2.1", OPEN_PORT)


@pytest.mark.namespaces
async def test_another_stack_in_the_same_namespace_leaves_our_ports_closed() -> None:
    with two() as (net, neighbour):
        await net.close(PORTS[0])
        await Net(net.closed, "another").close(PORTS[1])
        assert is_cut(neighbour, "192.0.2.1", PORTS[0])
        assert is_cut(neighbour, "192.0.2.1", PORTS[1])


@pytest.mark.engine
async def test_a_route_to_the_address_of_a_task_leads_nowhere() -> None:
    with private_daemon() as daemon, namespace() as neighbour:
        save_image(daemon.folder / "busybox.tar", BUSYBOX)
        daemon.docker("load", "--input", str(daemon.folder / "busybox.tar"))
        cable(daemon, neighbour, 2)
        bridge = ("--subnet", "172.30.9.0/24", "--opt", f"com.docker.network.bridge.name={GATEWAY}")
        daemon.docker("network", "create", *bridge, GATEWAY)
        task = ("--network", GATEWAY, "--ip", "172.30.9.2", "--publish", f"{OPEN_PORT}:80")
        daemon.docker("run", "--detach", *task, BUSYBOX, "/bin/busybox", "httpd", "-f", "-p", "80")
        neighbour.inside("ip", "route", "add", "172.30.9.0/24", "via", "192.0.2.1")
        daemon.inside("iptables", "-P", "FORWARD", "ACCEPT")
        assert reaches(neighbour, "172.30.9.2", 80)
        await Net(daemon).close(*PORTS)
        assert is_cut(neighbour, "172.30.9.2", 80)
        assert reaches(neighbour, "192.0.2.1", OPEN_PORT), "what is published is reached as before"
        assert reaches(daemon, "172.30.9.2", 80), "and so is the task from its own host"


@pytest.mark.namespaces
async def test_rules_of_others_do_not_go_before_ours_and_stay() -> None:
    with two() as (net, neighbour):
        net.closed.inside("iptables", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-j", "ACCEPT")
        await net.close(*PORTS)
        assert is_cut(neighbour, "192.0.2.1", PORTS[0])
        assert "-A PREROUTING -p tcp -j ACCEPT" in net.rules()


@pytest.mark.namespaces
async def test_connection_that_is_passed_on_to_another_host_is_let_through() -> None:
    with two() as (net, neighbour), namespace() as far:
        cable(net.closed, far, 3)
        listen(far)
        for each, subnet in ((neighbour, 2), (far, 3)):
            each.inside("ip", "route", "add", "default", "via", f"192.0.{subnet}.1")
            each.inside("ip", "-6", "route", "add", "default", "via", f"fd00:{subnet}::1")
        net.closed.inside("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        await net.close(*PORTS)
        for address in ("192.0.3.2", "fd00:3::2"):
            assert reaches(neighbour, address, PORTS[0])
        assert is_cut(neighbour, "192.0.2.1", PORTS[0])
        assert is_cut(neighbour, "192.0.3.1", PORTS[0])


@pytest.mark.engine
async def test_published_port_of_a_container_is_closed_in_spite_of_the_engines_own_rules_and_proxy() -> None:
    with private_daemon() as daemon, namespace() as neighbour:
        save_image(daemon.folder / "busybox.tar", BUSYBOX)
        daemon.docker("load", "--input", str(daemon.folder / "busybox.tar"))
        cable(daemon, neighbour, 2)
        for host_port in (PORTS[0], OPEN_PORT):
            server = ("/bin/busybox", "httpd", "-f", "-p", "80")
            daemon.docker("run", "--detach", "--publish", f"{host_port}:80", BUSYBOX, *server)
        inner = daemon.docker("run", "--detach", BUSYBOX)
        gateway = daemon.docker("inspect", "--format", "{{.NetworkSettings.Gateway}}", inner)
        outsiders: tuple[tuple[Place, str], ...] = (
            (neighbour, "192.0.2.1"),
            (neighbour, "fd00:2::1"),
            (network_of_container(daemon, inner), gateway),
        )
        for place, address in outsiders:
            assert reaches(place, address, PORTS[0])
        await Net(daemon).close(*PORTS)
        for place, address in outsiders:
            assert is_cut(place, address, PORTS[0])
            assert reaches(place, address, OPEN_PORT)
        assert reaches(daemon, "127.0.0.1", PORTS[0])


def network_of_container(daemon: Daemon, container: str) -> list[str]:
    """Words that enter it; the pid told is one of the daemon's namespace."""
    pid = daemon.docker("inspect", "--format", "{{.State.Pid}}", container)
    enter = ["nsenter", "--target", str(daemon.init_pid), "--mount", "--pid", "--"]
    return [*enter, "nsenter", "--target", pid, "--net", "--"]
