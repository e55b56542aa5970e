"""Traefik's files as a real Traefik reads them, requests through it, and values that must not get into them."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread
import h11
import pytest
from anyio.abc import ByteStream, SocketStream
from anyio.streams.tls import TLSStream

from supervisor.core.errors import ConfigurationError
from supervisor.probe.verdict import Answer
from supervisor.services.traefik_files import (
    ANY_HOST,
    AppRoute,
    TraefikOptions,
    middlewares_text,
    routes_text,
    rule_of,
    static_text,
    write,
)
from supervisor.store.files import Written
from tests.e2e.harness import free_port
from tests.probe.listeners import serve
from tests.services.embedded_rig import answered, open_rig, text_of

pytestmark = pytest.mark.anyio
servers = pytest.mark.servers


def options_in(folder: Path, **values: object) -> TraefikOptions:
    http_port, https_port, ping_port = free_port(), free_port(), free_port()
    base = TraefikOptions(
        folder=folder,
        stack="dokploy",
        routes=(AppRoute("dokploy", "http://127.0.0.1:1"),),
        http_port=http_port,
        https_port=https_port,
        ping_port=ping_port,
    )
    return replace(base, **values)  # type: ignore[arg-type]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: str


async def get(port: int, *, host: str = "app.example", tls: bool = False, **headers: str) -> Reply:
    stream: ByteStream = await anyio.connect_tcp("127.0.0.1", port)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        stream = await TLSStream.wrap(stream, hostname=host, ssl_context=context, standard_compatible=False)
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    async with stream:
        await stream.send(f"GET /path HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n".encode())
        return await read_reply(stream)


async def read_reply(stream: ByteStream) -> Reply:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    reply, body = Reply(0, {}, ""), b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(await stream.receive())
            except anyio.EndOfStream:
                connection.receive_data(b"")
        elif isinstance(event, h11.Response):
            reply = Reply(event.status_code, {k.decode().lower(): v.decode() for k, v in event.headers}, "")
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return replace(reply, body=body.decode())


async def echo(stream: SocketStream) -> None:
    """The app: answers with the request's own head."""
    head = await stream.receive()
    await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(head) + head)


@asynccontextmanager
async def traefik(host: str = ANY_HOST, **values: object) -> AsyncIterator[TraefikOptions]:
    """A real Traefik on the generated files, with the app behind it; its log must be empty of complaints."""
    async with open_rig() as rig, serve(echo) as upstream_port:
        options = options_in(
            rig.state / "traefik", routes=(AppRoute("dokploy", f"http://127.0.0.1:{upstream_port}", host),), **values
        )
        server = rig.traefik(options)
        child = rig.spawn(await server.prepare())
        await answered(server.probe, Answer.GOOD)
        yield options
        # A file it cannot read and a middleware it does not know are logged as errors; no authority is reachable here.
        errors = [line for line in text_of(child).splitlines() if " ERR " in line and "ACME" not in line]
        assert errors == []


async def routed(options: TraefikOptions, *, host: str = "app.example") -> Reply:
    """The first answer that is not 404: the dynamic files are read a moment after the start."""
    with anyio.fail_after(10):
        while True:
            reply = await get(options.http_port, host=host)
            if reply.status != 404:
                return reply
            await anyio.sleep(0.02)


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=own.example"]
    command += ["-addext", "subjectAltName=DNS:app.example"]
    subprocess.run(command, check=True, capture_output=True)
    return {"cert_file": cert, "key_file": key}


@servers
async def test_any_host_reaches_the_app_with_headers_both_ways() -> None:
    async with traefik() as options:
        reply = await routed(options, host="whatever.example")
        assert reply.status == 200
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "SAMEORIGIN"
        assert "strict-transport-security" not in reply.headers
        assert "GET /path HTTP/1.1" in reply.body
        assert "Host: whatever.example" in reply.body
        assert "X-Forwarded-For: 127.0.0.1" in reply.body
        assert "X-Forwarded-Proto: http\r\n" in reply.body
        over_tls = await get(options.https_port, tls=True)
        assert over_tls.status == 200
        assert "X-Forwarded-Proto: https" in over_tls.body


@servers
async def test_only_the_host_that_was_set_is_routed() -> None:
    async with traefik(host="app.example") as options:
        assert (await routed(options)).status == 200
        assert (await get(options.http_port, host="other.example")).status == 404


@servers
async def test_own_certificate_is_served_and_plain_requests_are_redirected(certificate: dict[str, Path]) -> None:
    async with traefik(host="app.example", **certificate) as options:
        reply = await routed(options)
        assert reply.status == 302
        assert reply.headers["location"] == f"https://app.example:{options.https_port}/path"
        over_tls = await get(options.https_port, tls=True)
        assert over_tls.status == 200
        assert over_tls.headers["strict-transport-security"] == "max-age=31536000"
        served = await anyio.to_thread.run_sync(ssl.get_server_certificate, ("127.0.0.1", options.https_port))
        assert served.split() == certificate["cert_file"].read_text().split()


@servers
async def test_dashboard_is_off_unless_asked_for() -> None:
    port = free_port()
    async with traefik(dashboard_port=port):
        assert (await get(port)).status == 404
        with anyio.fail_after(5):
            stream = await anyio.connect_tcp("127.0.0.1", port)
            async with stream:
                await stream.send(b"GET /api/overview HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await read_reply(stream)).status == 200
    async with traefik() as options:
        assert "api:" not in static_text(options)
        with pytest.raises(OSError, match="connect"):
            await get(port)


@servers
async def test_changed_routes_are_taken_over_without_a_restart() -> None:
    async with traefik(host="app.example") as options:
        await routed(options)
        results = {
            one.path.name: one.result
            for one in write(replace(options, routes=(replace(options.routes[0], host="new.example"),)))
        }
        assert results == {
            "traefik.yml": Written.UNCHANGED,
            "middlewares.yml": Written.UNCHANGED,
            "ready.yml": Written.UNCHANGED,
            "dokploy.yml": Written.WRITTEN,
        }
        assert (await routed(options, host="new.example")).status == 200


@servers
async def test_acme_store_is_accepted_by_traefik() -> None:
    async with traefik(host="app.example", acme_email="me@example.com") as options:
        # With a store it refuses, Traefik drops the resolver and complains of it (checked by `traefik`).
        assert (await routed(options)).status == 302
        assert stat.S_IMODE(options.acme_file.stat().st_mode) == 0o600


def test_folders_come_first_and_files_have_their_modes(tmp_path: Path) -> None:
    options = options_in(tmp_path / "deep" / "traefik", acme_email="me@example.com")
    old = os.umask(0o077)
    try:
        results = write(options)
    finally:
        os.umask(old)
    assert [one.result for one in results] == [Written.WRITTEN] * 4
    for path, mode in {
        options.folder: 0o755,
        options.dynamic_folder: 0o755,
        options.static_file: 0o644,
        options.acme_file.parent: 0o700,
        options.acme_file: 0o600,
    }.items():
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    assert options.dynamic_folder not in options.acme_file.parents
    assert [one.result for one in write(options)] == [Written.UNCHANGED] * 4


def test_certificates_already_there_are_kept_and_their_mode_is_mended(tmp_path: Path) -> None:
    options = options_in(tmp_path, acme_email="me@example.com")
    write(options)
    options.acme_file.write_text('{"kept": true}')
    options.acme_file.chmod(0o644)
    write(options)
    assert options.acme_file.read_text() == '{"kept": true}'
    assert stat.S_IMODE(options.acme_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("inside", [(), ("precious",)])
def test_folder_in_place_of_the_static_file_is_repaired(tmp_path: Path, inside: tuple[str, ...]) -> None:
    options = options_in(tmp_path)
    options.static_file.mkdir()
    for name in inside:
        (options.static_file / name).touch()
    write(options)
    assert options.static_file.is_file()
    kept = list(tmp_path.rglob("precious"))
    assert len(kept) == len(inside)


def test_folder_in_place_of_the_acme_file_is_repaired(tmp_path: Path) -> None:
    options = options_in(tmp_path, acme_email="me@example.com")
    options.acme_file.mkdir(parents=True)
    write(options)
    assert options.acme_file.is_file()


def test_edited_file_is_kept_and_the_difference_told(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    write(options)
    options.static_file.write_text(options.static_file.read_text() + "accessLog: {}\n")
    results = {one.path: one for one in write(replace(options, ping_port=1234))}
    assert results[options.static_file].result is Written.KEPT
    assert "1234" in results[options.static_file].difference
    assert "accessLog" in options.static_file.read_text()


@pytest.mark.parametrize(
    "host",
    [
        "a`) || PathPrefix(`/",
        "https://app.example",
        "app.example:80",
        "app.example/x",
        "a b",
        "",
        "-a",
        "ä.example",
        "a..b",
        "a\n",
        "x" * 254,
    ],
)
def test_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPERVISOR_APP_HOST"):
        rule_of(host)


@pytest.mark.parametrize("host", ["app.example", "localhost", "10.0.0.1", "a_b.example", "xn--bcher-kva.example"])
def test_host_names_are_accepted(host: str) -> None:
    assert rule_of(host) == f"Host(`{host}`)"


def test_control_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="control characters"):
        static_text(options_in(tmp_path / "a\nb"))


def test_quotes_in_values_stay_inside_them(tmp_path: Path) -> None:
    text = static_text(options_in(tmp_path, acme_email='a"b: c@example.com'))
    assert '      email: "a\\"b: c@example.com"\n' in text


def test_redirect_goes_to_the_plain_address_on_the_proper_port(tmp_path: Path) -> None:
    text = middlewares_text(options_in(tmp_path, https_port=443))
    assert "permanent: true" in text
    assert "port:" not in text


def test_certificate_resolver_is_used_only_with_an_email(tmp_path: Path) -> None:
    assert "certResolver: letsencrypt" in routes_text(options_in(tmp_path, acme_email="me@example.com"))
    assert "certResolver" not in routes_text(options_in(tmp_path))


@pytest.mark.parametrize("text", [None, b"not pem"])
def test_unusable_certificate_is_an_error_that_names_the_setting(tmp_path: Path, text: bytes | None) -> None:
    cert = tmp_path / "cert.pem"
    if text is not None:
        cert.write_bytes(text)
    with pytest.raises(ConfigurationError, match="SUPERVISOR_TLS_CERT_FILE"):
        write(options_in(tmp_path / "traefik", cert_file=cert, key_file=cert))
