"""When a container is left alone, started, or made anew."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from supervisor.services.container.plan import (
    ContainerWish,
    Create,
    Foreign,
    Keep,
    Published,
    Recreate,
    Start,
    body_hash,
    container_body,
    plan_container,
)
from supervisor.services.swarm.spec import Owner

WISH = ContainerWish(
    name="notes-traefik",
    owner=Owner("install-1", "notes"),
    role="traefik",
    image="traefik@sha256:1111",
    args=("--configFile=/etc/traefik/traefik.yml",),
    volumes={"notes-traefik": "/etc/traefik"},
    ports=(Published(80, 80), Published(443, 443), Published(8082, 18082, "127.0.0.1")),
    hosts={"host.docker.internal": "host-gateway"},
    network="notes",
    aliases=("notes-traefik",),
)


def found(
    wish: ContainerWish = WISH, *, state: str = "running", network: str = "net1", **networks: str
) -> dict[str, Any]:
    body = container_body(wish)
    attached = {wish.network: {"NetworkID": network}} | {name: {"NetworkID": id} for name, id in networks.items()}
    return {
        "Id": "c1",
        "Created": "2026-01-01T00:00:00Z",
        "Config": {"Image": body["Image"], "Labels": body["Labels"]},
        "State": {"Status": state},
        "NetworkSettings": {"Networks": attached},
    }


def plan(wish: ContainerWish, there: dict[str, Any] | None) -> object:
    return plan_container(wish, there, network_id="net1")


def test_missing_container_is_created() -> None:
    assert plan(WISH, None) == Create()


def test_right_container_is_left_alone() -> None:
    assert plan(WISH, found()) == Keep("c1")


@pytest.mark.parametrize("state", ["exited", "created", "paused"])
def test_right_container_that_does_not_run_is_started(state: str) -> None:
    assert plan(WISH, found(state=state)) == Start("c1")


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "traefik@sha256:2222"},
        {"args": ()},
        {"ports": (Published(80, 8080),)},
        {"volumes": {}},
        {"hosts": {}},
        {"env": {"TZ": "UTC"}},
    ],
)
def test_real_difference_makes_it_anew_and_keeps_the_networks_others_added(changes: dict[str, Any]) -> None:
    there = found(theirs="net2", more="net3")
    assert plan(dataclasses.replace(WISH, **changes), there) == Recreate("c1", ("more", "theirs"))


def test_order_of_wishes_is_no_difference() -> None:
    turned = dataclasses.replace(WISH, ports=tuple(reversed(WISH.ports)))
    assert plan(turned, found()) == Keep("c1")


def test_container_of_a_network_that_was_made_anew_is_made_anew() -> None:
    assert plan(WISH, found(network="net-before")) == Recreate("c1", ())


def test_container_that_somebody_took_off_the_network_is_made_anew() -> None:
    there = found()
    del there["NetworkSettings"]["Networks"]["notes"]
    assert plan(WISH, there) == Recreate("c1", ())


def test_stopped_container_that_tells_no_network_id_is_started() -> None:
    assert plan(WISH, found(state="exited", network="")) == Start("c1")


@pytest.mark.parametrize("labels", [None, {}, {"com.container-supervisor.install": "other"}])
def test_container_of_somebody_else_is_never_touched(labels: dict[str, str] | None) -> None:
    there = found()
    there["Config"]["Labels"] = labels
    assert isinstance(plan(WISH, there), Foreign)


def test_host_folders_are_never_bound() -> None:
    body = container_body(WISH)
    assert "Binds" not in body["HostConfig"]
    assert [mount["Type"] for mount in body["HostConfig"]["Mounts"]] == ["volume"]
    assert body["HostConfig"]["PortBindings"]["8082/tcp"] == [{"HostPort": "18082", "HostIp": "127.0.0.1"}]
    assert body_hash(body) == body_hash(container_body(WISH))


def test_a_stopped_container_tells_the_networks_that_others_added() -> None:
    assert plan(WISH, found(state="exited", theirs="net2")) == Start("c1", ("theirs",))
