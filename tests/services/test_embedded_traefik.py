"""Traefik's ports, environment and probe."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.probe.verdict import Answer
from supervisor.services.embedded import traefik as module
from supervisor.services.embedded.traefik import EmbeddedTraefik, choose_port, passed_on
from supervisor.services.ports import RememberedPorts
from supervisor.store.files import Generated, Written
from tests.e2e.harness import free_port
from tests.services.embedded_rig import answered, open_rig, settings_of

pytestmark = pytest.mark.anyio


def embedded(state: Path, reported: list[Generated], **values: object) -> EmbeddedTraefik:
    ports = RememberedPorts({}, save=lambda: None, say=print)
    return EmbeddedTraefik(
        settings_of(**values),
        state_dir=state,
        ports=ports,
        environ={**os.environ, "DATABASE_URL": "postgresql://app:s3cret@x/y"},
        report=reported.append,
    )


@pytest.mark.servers
async def test_traefik_is_good_on_ping_stops_quickly_and_starts_again_on_its_ports() -> None:
    async with open_rig() as rig:
        reported: list[Generated] = []
        free = [free_port() for _ in range(2)]
        server = embedded(rig.state, reported, http_port=free[0], https_port=free[1])
        for _ in range(2):
            command = await server.prepare()
            assert "s3cret" not in repr(command)
            child = rig.spawn(command)
            await answered(server.probe, Answer.GOOD)
            assert (await child.stop(grace_seconds=10)).clean
        assert [one.result for one in reported] == [Written.WRITTEN] * 4 + [Written.UNCHANGED] * 4
        assert (await server.probe()).answer is Answer.WAITING


@pytest.mark.servers
async def test_traefik_is_not_ready_while_its_dynamic_files_cannot_be_loaded() -> None:
    async with open_rig() as rig:
        free = [free_port() for _ in range(2)]
        server = embedded(rig.state, [], http_port=free[0], https_port=free[1])
        command = await server.prepare()
        broken = server.options().dynamic_folder / "mine.yml"
        broken.write_text("http: [this is no mapping\n")
        rig.spawn(command)
        await answered(server.probe, Answer.WAITING)
        with anyio.fail_after(10):
            while "not loaded" not in (verdict := await server.probe()).detail:
                assert verdict.answer is Answer.WAITING
        broken.unlink()
        await answered(server.probe, Answer.GOOD)


def test_first_candidate_that_can_be_had_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = {80: errno.EACCES, 8080: 0}
    monkeypatch.setattr(module, "bind_error", lambda port, _: refusals[port])
    assert choose_port("http_port", None, (80, 8080)) == 8080
    refusals[80] = 0
    assert choose_port("http_port", None, (80, 8080)) == 80


def test_taken_candidates_name_their_holders_and_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("0.0.0.0", 0)) as other:
        first, second = one.getsockname()[1], other.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            choose_port("http_port", None, (first, second))
    assert f"port {first} is taken by pid {os.getpid()} (" in str(caught.value)
    assert f"{second} is taken by pid {os.getpid()} (" in str(caught.value)
    assert "SUPERVISOR_HTTP_PORT" in str(caught.value)


def test_taken_port_that_was_asked_for_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"SUPERVISOR_HTTPS_PORT is {port}.*pid {os.getpid()}"):
            choose_port("https_port", port, (443, 8443))


def test_port_that_needs_a_privilege_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bind_error", lambda *_: errno.EACCES)
    with pytest.raises(PrivilegeError, match="ip_unprivileged_port_start"):
        choose_port("http_port", 80, (80, 8080))


def test_entry_ports_stay_for_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {80: 0, 8080: 0, 443: 0, 8443: 0}
    monkeypatch.setattr(module, "bind_error", lambda port, _: free[port])
    server = embedded(tmp_path, [])
    assert (server.entry_ports.http, server.entry_ports.https) == (80, 443)
    free[80] = free[443] = errno.EADDRINUSE  # by Traefik itself, once it runs
    assert (server.entry_ports.http, server.entry_ports.https) == (80, 443)


def test_environment_holds_nothing_of_the_app() -> None:
    environ = {"DATABASE_URL": "x", "TRAEFIK_LOG_LEVEL": "y", "https_proxy": "p", "LEGO_CA_CERTIFICATES": "c"}
    assert passed_on(environ) == {"https_proxy": "p", "LEGO_CA_CERTIFICATES": "c"}


def test_settings_decide_the_spec(tmp_path: Path) -> None:
    spec = embedded(tmp_path, [], traefik_start_seconds=7, optional_services="traefik").spec()
    assert (spec.name, spec.start_seconds, spec.optional, spec.essential) == ("traefik", 7, True, False)
