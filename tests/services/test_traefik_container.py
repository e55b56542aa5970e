"""Traefik as a container: its wish, its files on their way, and all of it on a real engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.engine.client import Engine
from supervisor.engine.errors import NotFound, Unavailable
from supervisor.probe.http import HttpAnswer, probe_http
from supervisor.probe.verdict import Answer
from supervisor.services.container.driver import ContainerDriver
from supervisor.services.container.files import GONE, File, pack, unpack
from supervisor.services.container.plan import Create, Keep, Plan, Published, Recreate, Start
from supervisor.services.container.traefik import (
    PING_PORT,
    STATIC_HASH,
    EngineTraefik,
    TraefikReach,
    passed_on,
    read_files,
    take_back,
)
from supervisor.services.swarm.spec import Owner
from supervisor.services.traefik_files import middlewares_text, routes_text, static_text, write
from supervisor.store.files import Generated, Written
from tests.contracts.engine_made import engine_of
from tests.e2e.harness import free_port
from tests.engine_rig.engine import Share
from tests.services.embedded_rig import answered, settings_of

pytestmark = pytest.mark.anyio

REACH = TraefikReach(
    app_address="host.docker.internal",
    hosts={"host.docker.internal": "host-gateway"},
    ping_host_port=18082,
    ping_base="http://127.0.0.1:18082",
    web_host="127.0.0.1",
    web_port=80,
)
ON_NETWORK = replace(REACH, hosts={}, ping_host_port=None, app_address="notes-app")
Labels = dict[str, str]


# --- without an engine --------------------------------------------------------------------------------------------


@dataclass
class Volumes:
    """Stands for the engine: notes the volumes made; holds no container."""

    made: dict[str, Labels] = field(default_factory=dict)

    async def create(self, name: str, labels: Labels) -> None:
        self.made[name] = labels

    async def inspect(self, name: str) -> None:
        raise NotFound("inspect", 404, "no such container")

    @property
    def volumes(self) -> Volumes:
        return self

    @property
    def containers(self) -> Volumes:
        return self


def traefik(
    folder: Path,
    *,
    engine: object = None,
    reach: TraefikReach = REACH,
    reported: list[Generated] | None = None,
    **values: Any,
) -> EngineTraefik:
    async def resolve() -> str:
        return "traefik@sha256:1111"

    async def network() -> tuple[str, str]:
        return "notes-network", "net1"

    return EngineTraefik(
        settings_of(**{"stack": "notes", **values}),
        folder=folder,
        engine=cast(Engine, engine or Volumes()),
        owner=lambda: Owner("install-1", "notes"),
        reach=reach,
        resolve=resolve,
        network=network,
        environ={"PATH": "/bin", "DATABASE_URL": "postgresql://app:s3cret@x/y", "TZ": "Europe/Berlin"},
        report=(reported if reported is not None else []).append,
        tell=lambda line: None,
    )


async def test_wish_is_a_container_on_the_network_with_its_volume_and_public_ports(tmp_path: Path) -> None:
    engine = Volumes()
    wanted = await traefik(tmp_path, engine=engine, http_port=8000).wish()
    wish = wanted.wish
    assert (wish.name, wish.image, wish.network, wanted.network_id) == (
        "notes-traefik",
        "traefik@sha256:1111",
        "notes-network",
        "net1",
    )
    assert wish.volumes == {"notes-traefik": "/etc/traefik"}
    assert wish.ports == (Published(80, 8000), Published(443, 443), Published(PING_PORT, 18082, "127.0.0.1"))
    assert wish.hosts == {"host.docker.internal": "host-gateway"}
    assert wish.env.keys() == {"TZ", STATIC_HASH}
    assert engine.made["notes-traefik"] == Owner("install-1", "notes").labels("traefik")


async def test_on_a_shared_network_nothing_but_the_public_ports_is_published(tmp_path: Path) -> None:
    wish = (await traefik(tmp_path, reach=ON_NETWORK).wish()).wish
    assert wish.ports == (Published(80, 80), Published(443, 443))


async def test_dashboard_is_published_on_loopback_where_that_is_ours(tmp_path: Path) -> None:
    assert "api:" not in static_text(traefik(tmp_path).options())
    shown = traefik(tmp_path, traefik_dashboard=True)
    assert Published(8080, 8080, "127.0.0.1") in (await shown.wish()).wish.ports
    assert "api:" in static_text(shown.options())


async def test_dashboard_is_refused_where_loopback_is_the_hosts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SUPERVISOR_TRAEFIK_DASHBOARD"):
        await traefik(tmp_path, reach=ON_NETWORK, traefik_dashboard=True).wish()


async def test_hash_follows_the_static_file_and_not_the_dynamic_ones(tmp_path: Path) -> None:
    first = (await traefik(tmp_path).wish()).wish
    assert (await traefik(tmp_path, app_host="new.example").wish()).wish == first
    (tmp_path / "dynamic" / "mine.yml").write_text("http: {}\n")
    assert (await traefik(tmp_path).wish()).wish == first
    dashboard = (await traefik(tmp_path, acme_email="me@example.com").wish()).wish
    assert dashboard.env[STATIC_HASH] != first.env[STATIC_HASH]
    with (tmp_path / "traefik.yml").open("a") as file:
        file.write("accessLog: {}\n")
    assert (await traefik(tmp_path).wish()).wish.env[STATIC_HASH] not in (
        first.env[STATIC_HASH],
        dashboard.env[STATIC_HASH],
    )


async def test_edited_file_is_kept_and_told(tmp_path: Path) -> None:
    reported: list[Generated] = []
    made = traefik(tmp_path, reported=reported)
    await made.wish()
    (tmp_path / "dynamic" / "notes.yml").write_text("http: {}\n")
    await made.wish()
    assert [one.path.name for one in reported if one.result is Written.KEPT] == ["notes.yml"]
    assert read_files(made.options())["dynamic/notes.yml"].data == b"http: {}\n"


def test_texts_name_places_as_traefik_sees_them(tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.write_text("-----BEGIN X\n")
    made = traefik(
        tmp_path / "t", acme_email="me@example.com", tls_cert_file=pem, tls_key_file=pem, https_port=8443
    ).options()
    texts = static_text(made), routes_text(made), middlewares_text(made)
    assert all(str(tmp_path) not in text for text in texts)
    for part in (
        'directory: "/etc/traefik/dynamic"',
        'storage: "/etc/traefik/acme/acme.json"',
        'address: ":80"',
        'address: ":443"',
        f'address: ":{PING_PORT}"',
    ):
        assert part in texts[0]
    assert 'certFile: "/etc/traefik/certs/cert.pem"' in texts[1]
    assert 'url: "http://host.docker.internal:3000"' in texts[1]
    assert 'port: "8443"' in texts[2], "clients know the published port, not the container's"


def test_files_come_with_their_modes_and_without_half_written_ones(tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.write_text("-----BEGIN X\n")
    made = traefik(tmp_path / "t", tls_cert_file=pem, tls_key_file=pem, acme_email="me@example.com").options()
    write(made)
    (made.dynamic_folder / ".mine.yml.tmp").touch()
    (made.dynamic_folder / "own").mkdir()
    (made.dynamic_folder / "own" / "chain.crt").write_text("x")
    files = read_files(made)
    assert {name: file.mode for name, file in files.items()} == {
        "certs/cert.pem": 0o600,
        "certs/key.pem": 0o600,
        "traefik.yml": 0o644,
        "dynamic/middlewares.yml": 0o644,
        "dynamic/notes.yml": 0o644,
        "dynamic/ready.yml": 0o644,
        "dynamic/own/chain.crt": (made.dynamic_folder / "own" / "chain.crt").stat().st_mode & 0o777,
    }
    assert unpack(pack(files, {})) == {name: file.data for name, file in files.items()}


def test_names_that_lead_out_of_a_folder_are_not_unpacked() -> None:
    files = {name: File(b"x") for name in ("../a", "/b", "c/../../d", "e/f")}
    assert unpack(pack(files, {})).keys() == {"e/f"}


def test_what_is_taken_back_never_takes_the_place_of_a_users_file(tmp_path: Path) -> None:
    made = traefik(tmp_path).options()
    write(made)
    generated = (made.dynamic_folder / "notes.yml").read_bytes()
    mine = made.dynamic_folder / "deep" / "mine.yml"
    assert take_back(mine, b"theirs: {}\n")
    assert not take_back(mine, b"older: {}\n")
    assert mine.read_text() == "theirs: {}\n"
    assert take_back(made.static_file, b"edited: {}\n")
    assert not take_back(made.dynamic_folder / "old-stack.yml", generated)
    assert not take_back(made.dynamic_folder / "gone.yml", GONE)
    assert not take_back(made.dynamic_folder / "binary", b"\xff\xfe")


def test_proxy_for_certificates_is_never_between_traefik_and_the_app() -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example", "HTTP_PROXY": "http://p:1", "PATH": "/bin"}
    assert passed_on(environ, beside_proxy="notes-app") == {
        "HTTPS_PROXY": "http://p:1",
        "NO_PROXY": "a.example,notes-app",
    }
    assert passed_on({"NO_PROXY": "x"}, beside_proxy="notes-app") == {}


def test_settings_decide_the_spec(tmp_path: Path) -> None:
    made = traefik(tmp_path, traefik_start_seconds=7, optional_services="traefik")
    spec = made.spec(deadline_factor=2, requires=("dockerd",))
    assert (spec.name, spec.start_seconds, spec.requires, spec.optional) == ("traefik", 14, ("dockerd",), True)
    assert spec.outlives


# --- on a real engine ---------------------------------------------------------------------------------------------

_APP = (
    "printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\napp' >/answer; "
    'exec perl -MIO::Socket::INET -e \'local $/; open F, "/answer"; $a = <F>; $/ = "\\r\\n"; '
    "$s = IO::Socket::INET->new(LocalPort => 3000, Listen => 64, ReuseAddr => 1) or die; "
    'while ($c = $s->accept) { while (<$c>) { last if $_ eq "\\r\\n" } print $c $a; close $c }\''
)


@dataclass
class Stack:
    """One Traefik on the tests' engine, on a network with an app; `new` is what another supervisor would have."""

    share: Share
    engine: Engine
    folder: Path
    network: str
    values: dict[str, Any]
    plans: list[Plan] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.new()

    def new(self, **values: Any) -> None:
        """Forget all but the folder, and take over these settings too."""
        self.values |= values
        port, ping = self.values["http_port"], self.values.pop("ping_port", None) or self.ping
        self.ping = ping
        reach = TraefikReach(
            app_address=self.share.name("app"),
            ping_host_port=ping,
            ping_base=f"http://127.0.0.1:{ping}",
            web_host="127.0.0.1",
            web_port=port,
        )
        self.traefik = EngineTraefik(
            settings_of(stack=self.share.prefix, **self.values),
            folder=self.folder,
            engine=self.engine,
            owner=lambda: Owner("install-1", self.share.prefix),
            reach=reach,
            resolve=self.image,
            network=self.stack_network,
            environ={},
            report=lambda generated: None,
            tell=self.told.append,
        )
        self.driver = ContainerDriver(
            self.traefik.container,
            self.traefik.wish,
            self.engine,
            fill=self.traefik.fill,
            report=lambda name, plan: self.plans.append(plan),
        )

    ping: int = 0

    async def image(self) -> str:
        found = await self.engine.images.inspect(self.share.engine.image("traefik"))
        return str(found["Id"])

    async def stack_network(self) -> tuple[str, str]:
        return self.network, str((await self.engine.networks.inspect(self.network))["Id"])

    async def up(self) -> str:
        """Make it be there and ready; its id."""
        await self.driver.ensure()
        await answered(self.traefik.probe, Answer.GOOD)
        return await self.id()

    async def id(self) -> str:
        return str((await self.engine.containers.inspect(self.traefik.container))["Id"])

    async def get(self, host: str = "app.example", path: str = "/x") -> HttpAnswer:
        url = f"http://127.0.0.1:{self.values['http_port']}{path}"
        return await probe_http(url, host_header=host, limit_seconds=3)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        with anyio.move_on_after(15):
            while not await condition():
                await anyio.sleep(0.02)
            return
        raise AssertionError(f"{what}: not within 15 s; {(await self.log())[-2000:]}")

    async def until_status(self, status: int, host: str = "app.example") -> None:
        async def is_so() -> bool:
            return (await self.get(host)).status == status

        await self.until(is_so, f"{status} for {host}")

    async def log(self) -> str:
        return "".join(piece.data.decode() for piece in await self.engine.containers.logs(self.traefik.container))

    async def inside(self, script: str) -> str:
        """What a shell command in the container said."""
        ended = await self.engine.containers.exec(self.traefik.container, ["sh", "-c", script])
        assert ended.exit_code == 0, ended
        return ended.stdout.decode().strip()

    def add(self, name: str, host: str) -> Path:
        """A route of the user's own to the app."""
        rule = {"rule": f"Host(`{host}`)", "service": self.share.prefix, "entryPoints": ["web"]}
        path = self.folder / "dynamic" / name
        path.write_text(json.dumps({"http": {"routers": {host.replace(".", "-"): rule}}}))
        return path


@asynccontextmanager
async def stack_of(share: Share, folder: Path, **values: Any) -> AsyncIterator[Stack]:
    network = share.network()
    base = share.engine.image("base")
    share.start(base, "sh", "-c", _APP, word="app", options=("--network", network))
    http_port, https_port, ping_port = free_port(), free_port(), free_port()
    ports = {"http_port": http_port, "https_port": https_port, "ping_port": ping_port}
    async with engine_of(share) as engine:
        yield Stack(share, engine, folder / "traefik", network, {**ports, **values})


@pytest.mark.engine
async def test_made_container_serves_the_app_and_a_second_look_changes_nothing(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path) as stack:
        first = await stack.up()
        await stack.until_status(200)
        stack.new()
        assert await stack.up() == first
        assert [type(plan) for plan in stack.plans] == [Create, Keep]
        await stack.driver.halt(5)
        assert await stack.up() == first
        assert isinstance(stack.plans[-1], Start)
        assert " ERR " not in await stack.log()
        published = (await stack.engine.containers.inspect(first))["NetworkSettings"]["Ports"]
        assert {each["HostIp"] for each in published[f"{PING_PORT}/tcp"]} == {"127.0.0.1"}


@pytest.mark.engine
async def test_changed_routes_are_live_without_a_restart_and_deleted_ones_go(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path, app_host="app.example") as stack, anyio.create_task_group() as group:
        first = await stack.up()
        began = (await stack.engine.containers.inspect(first))["State"]["StartedAt"]
        await group.start(lambda task_status: stack.traefik.watch(lambda: first, 0.05, task_status=task_status))
        await stack.until_status(200)
        assert (await stack.get("mine.example")).status == 404
        stack.add("mine.yml", "mine.example")
        (stack.folder / "dynamic" / "own").mkdir()
        deep = stack.add("own/mine.yml", "also-mine.example")
        await stack.until_status(200, "also-mine.example")
        await stack.until_status(200, "mine.example")
        deep.unlink()
        await stack.until_status(404, "also-mine.example")
        (stack.folder / "dynamic" / "mine.yml").unlink()
        await stack.until_status(404, "mine.example")
        left = {"middlewares.yml", "ready.yml", f"{docker.prefix}.yml"}
        assert set((await stack.inside("cd /etc/traefik/dynamic; find . -type f -printf '%P\\n'")).split()) == left
        assert await stack.inside("find /etc/traefik/.staged -type f") == ""
        stack.new(app_host="new.example")
        await stack.up()
        await stack.until_status(200, "new.example")
        assert (await stack.engine.containers.inspect(first))["State"]["StartedAt"] == began
        group.cancel_scope.cancel()


@pytest.mark.engine
async def test_requests_under_way_never_see_a_file_half_written(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path) as stack, anyio.create_task_group() as group:
        container = await stack.up()
        await stack.until_status(200)
        statuses: list[int | None] = []

        async def ask() -> None:
            while True:
                statuses.append((await stack.get()).status)

        group.start_soon(ask)
        routes = stack.folder / "dynamic" / f"{docker.prefix}.yml"
        for number in range(8):
            routes.write_text(f"{routes.read_text()}# {number}\n" + "#\n" * 20_000)
            assert await stack.traefik.push(container)
            assert not await stack.traefik.push(container)
        group.cancel_scope.cancel()
    assert len(statuses) > 50
    assert set(statuses) == {200}


@pytest.mark.engine
async def test_changed_static_file_makes_it_anew_on_all_its_networks(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path) as stack:
        first = await stack.up()
        extra = docker.network("extra")
        await stack.engine.networks.connect(extra, first)
        with (stack.folder / "traefik.yml").open("a") as file:
            file.write("accessLog: {}\n")
        stack.new()
        second = await stack.up()
        assert second != first
        assert isinstance(stack.plans[-1], Recreate)
        shown = await stack.engine.containers.inspect(second)
        assert shown["NetworkSettings"]["Networks"].keys() == {stack.network, extra}
        assert "accessLog" in await stack.inside("cat /etc/traefik/traefik.yml")
        await stack.until_status(200)


@pytest.mark.engine
async def test_certificates_on_the_volume_outlive_the_container(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path, app_host="app.example", acme_email="me@example.com") as stack:
        await stack.up()
        assert await stack.inside("stat -c %a /etc/traefik/acme /etc/traefik/acme/acme.json") == "700\n600"
        await stack.inside("echo '{}' >/etc/traefik/acme/acme.json")
        stack.new(traefik_dashboard=True)
        await stack.up()
        assert isinstance(stack.plans[-1], Recreate)
        assert await stack.inside("stat -c %a /etc/traefik/acme/acme.json") == "600"
        assert await stack.inside("cat /etc/traefik/acme/acme.json") == "{}"
        assert "too open" not in await stack.log()


@pytest.mark.engine
async def test_edited_files_come_back_into_a_folder_that_was_lost(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path, app_host="app.example") as stack:
        container = await stack.up()
        stack.add("mine.yml", "mine.example")
        (stack.folder / "dynamic" / "middlewares.yml").write_text(
            '{"http": {"middlewares": {"security-headers": {"headers": {"customResponseHeaders": {"x-mine": "1"}}}}}}'
        )
        assert await stack.traefik.push(container)
        stack.folder = tmp_path / "another"
        stack.new()
        assert await stack.up() == container
        assert "x-mine" in (stack.folder / "dynamic" / "middlewares.yml").read_text()
        assert "dynamic/mine.yml" in stack.told[0]
        await stack.until_status(200, "mine.example")
        assert "x-mine" in await stack.inside("cat /etc/traefik/dynamic/middlewares.yml")


@pytest.mark.engine
async def test_container_of_somebody_else_gives_nothing_and_is_left_alone(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path) as stack:
        made = "mkdir -p /etc/traefik/dynamic; echo 'http: {}' >/etc/traefik/dynamic/theirs.yml; sleep 600"
        docker.start(docker.engine.image("base"), "sh", "-c", made, word="traefik")
        await stack.inside("while ! test -s /etc/traefik/dynamic/theirs.yml; do :; done")
        with pytest.raises(ConfigurationError, match="belongs to somebody else"):
            await stack.driver.ensure()
        assert not (stack.folder / "dynamic" / "theirs.yml").exists()


@pytest.mark.engine
async def test_file_that_goes_while_no_program_can_run_inside_leaves_no_route(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path) as stack:
        container = await stack.up()
        mine = stack.add("mine.yml", "mine.example")
        assert await stack.traefik.push(container)
        assert "mine" in await stack.inside("cat /etc/traefik/dynamic/mine.yml")
        await stack.driver.halt(5)
        mine.unlink()
        await stack.up()
        assert await stack.inside("cat /etc/traefik/dynamic/mine.yml") == GONE.decode().strip()
        await stack.until_status(200)
        assert " ERR " not in await stack.log()


@pytest.mark.engine
async def test_push_that_fails_is_told_once_and_made_up_for(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path, app_host="app.example") as stack, anyio.create_task_group() as group:
        container = await stack.up()
        write, tries = stack.traefik._inside.write, 0

        async def broken(*given: Any, **named: Any) -> None:
            nonlocal tries
            tries += 1
            if tries <= 3:
                raise Unavailable("cannot write files: no engine")
            await write(*given, **named)

        stack.traefik._inside.write = broken  # type: ignore[method-assign]
        stack.add("mine.yml", "mine.example")
        await group.start(lambda task_status: stack.traefik.watch(lambda: container, 0.02, task_status=task_status))
        await stack.until_status(200, "mine.example")
        assert len([line for line in stack.told if "no engine" in line]) == 1
        group.cancel_scope.cancel()


@pytest.mark.engine
async def test_new_certificate_is_served_without_a_restart(docker: Share, tmp_path: Path) -> None:
    files = {"tls_cert_file": tmp_path / "cert.pem", "tls_key_file": tmp_path / "key.pem"}

    def make() -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(files["tls_key_file"]), "-out", str(files["tls_cert_file"]), "-days", "2"]
        subprocess.run([*command, "-subj", "/CN=own.example"], check=True, capture_output=True)

    make()
    async with stack_of(docker, tmp_path, **files) as stack:
        container = await stack.up()
        assert await stack.inside("stat -c %a /etc/traefik/certs/*") == "600\n600"

        async def is_served() -> bool:
            import ssl

            get, address = ssl.get_server_certificate, ("127.0.0.1", stack.values["https_port"])
            served = await anyio.to_thread.run_sync(get, address)
            return served.split() == files["tls_cert_file"].read_text().split()

        await stack.until(is_served, "first certificate")
        make()
        assert await stack.traefik.push(container)
        await stack.until(is_served, "second certificate")


@pytest.mark.engine
async def test_taken_port_is_told_with_the_settings_that_mend_it(docker: Share, tmp_path: Path) -> None:
    async with stack_of(docker, tmp_path) as stack:
        port = stack.values["http_port"]
        docker.start(
            docker.engine.image("base"), "sleep", "600", word="holder", options=("--publish", f"127.0.0.1:{port}:1")
        )
        with pytest.raises(ConfigurationError, match=f"ports {port}.*SUPERVISOR_HTTP_PORT"):
            await stack.driver.ensure()
