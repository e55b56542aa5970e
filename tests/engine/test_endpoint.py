"""Which engine is meant: addresses, contexts as the client writes them, and their order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.engine.endpoint import Named, choose, parse, without_password
from supervisor.engine.facts import Chosen, EngineAddress, Scheme, Tls

DEFAULT = "/var/run/docker.sock"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("unix:///run/x.sock", EngineAddress(Scheme.UNIX, path="/run/x.sock")),
        ("tcp://10.0.0.1:2375", EngineAddress(Scheme.TCP, host="10.0.0.1", port=2375)),
        ("tcp://engine", EngineAddress(Scheme.TCP, host="engine", port=2375)),
        ("tcp://[::1]:99/", EngineAddress(Scheme.TCP, host="::1", port=99)),
    ],
)
def test_an_address_is_taken_apart_and_put_together(value: str, address: EngineAddress) -> None:
    assert parse(value) == address
    assert parse(address.url) == address


def test_the_port_of_tls_is_another_one() -> None:
    assert parse("tcp://engine", tls=True).port == 2376


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("/var/run/docker.sock", "no scheme"),
        ("unix://run/x.sock", "slash"),
        (f"unix:///{'x' * 120}", "107 bytes"),
        ("npipe:////./pipe/docker_engine", "Windows"),
        ("fd://", "dockerd listens"),
        ("ssh://me@there", "forward the socket"),
        ("tcp://", "host and a port"),
        ("tcp://host:0", "host and a port"),
        ("tcp://host:99999", "Port out of range"),
        ("tcp://host:2375/path", "host and a port"),
        ("tcp://user:pw@host", "host and a port"),
        ("https://host", "not known"),
    ],
)
def test_a_bad_address_is_refused_with_the_reason(value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(value)


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda text: f"tcp://{text}"))
def test_parse_raises_nothing_but_value_error(value: str) -> None:
    try:
        address = parse(value)
    except ValueError:
        return
    assert address.path or address.host


def test_a_bad_docker_host_is_e02_without_its_password(tmp_path: Path) -> None:
    chosen = choose(Named("tcp://me:s3cret@there"), default_path=DEFAULT, config_folder=tmp_path)
    assert (chosen.endpoint, chosen.code, chosen.given) == (None, "E02", "tcp://***@there")
    assert without_password("unix:///x@y") == "unix://***@y"


def test_docker_host_that_names_the_default_path_is_no_wish(tmp_path: Path) -> None:
    default = tmp_path / "docker.sock"
    (tmp_path / "link").symlink_to(tmp_path)
    for given_path, configured in ((f"{tmp_path}/link/docker.sock", False), (f"{tmp_path}/other.sock", True)):
        chosen = choose(Named(f"unix://{given_path}"), default_path=str(default), config_folder=tmp_path)
        assert chosen.configured is configured


def test_tls_is_asked_for_by_either_setting_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    both = choose(Named("tcp://e", None, True, tmp_path), default_path=DEFAULT, config_folder=tmp_path)
    assert both.endpoint is not None
    assert both.endpoint.tls == Tls(str(tmp_path), True, ("cert.pem", "key.pem"))
    unverified = choose(Named("tcp://e", None, False, tmp_path), default_path=DEFAULT, config_folder=tmp_path)
    assert unverified.endpoint is not None
    assert unverified.endpoint.tls is not None
    assert not unverified.endpoint.tls.verify


def write_context(folder: Path, name: str, host: str, *, tls: tuple[str, ...] = ()) -> None:
    """As `docker context create` does."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts/meta" / key
    meta.mkdir(parents=True)
    values = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(values))
    for file in tls:
        path = folder / "contexts/tls" / key / "docker" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_the_order_is_docker_host_then_docker_context_then_the_current_context(tmp_path: Path) -> None:
    write_context(tmp_path, "lab", "tcp://lab:1")
    write_context(tmp_path, "desk", "unix:///desk.sock")
    (tmp_path / "config.json").write_text('{"currentContext": "desk"}')

    def url(named: Named) -> str:
        endpoint = choose(named, default_path=DEFAULT, config_folder=tmp_path).endpoint
        return endpoint.url if endpoint is not None else ""

    assert url(Named("tcp://host:2", "lab")) == "tcp://host:2"
    assert url(Named(None, "lab")) == "tcp://lab:1"
    assert url(Named("", None)) == "unix:///desk.sock"
    assert url(Named(None, "default")) == f"unix://{DEFAULT}"


def test_a_context_brings_its_own_certificates(tmp_path: Path) -> None:
    write_context(tmp_path, "lab", "tcp://lab", tls=("ca.pem", "cert.pem"))
    chosen = choose(Named(None, "lab"), default_path=DEFAULT, config_folder=tmp_path)
    assert chosen.endpoint is not None
    assert chosen.endpoint.port == 2376
    assert chosen.endpoint.tls is not None
    assert chosen.endpoint.tls.missing == ("key.pem",)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"Endpoints": {}}', '{"Endpoints": {"docker": {"Host": 5}}}'])
def test_a_context_that_cannot_be_read_is_e05(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        write_context(tmp_path, "lab", "tcp://lab")
        next(tmp_path.rglob("meta.json")).write_text(content)
    chosen = choose(Named(None, "lab"), default_path=DEFAULT, config_folder=tmp_path)
    assert (chosen.endpoint, chosen.code, chosen.given) == (None, "E05", "lab")
    assert chosen.error


@pytest.mark.parametrize("content", ["{", "[]", '{"currentContext": 5}'])
def test_a_broken_client_configuration_leaves_the_default(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    chosen = choose(Named(), default_path=DEFAULT, config_folder=tmp_path)
    assert chosen.endpoint == EngineAddress(Scheme.UNIX, path=DEFAULT)
    assert chosen == Chosen(chosen.endpoint, chosen.source)
