"""What Postgres and Redis are asked to be."""

from __future__ import annotations

import json

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.services.swarm.roles import (
    Limits,
    Place,
    check_major,
    image_major,
    postgres_service,
    postgres_target,
    redis_config,
    redis_service,
)
from supervisor.services.swarm.spec import Owner, SecretFile, service_body

OWNER = Owner("install-1", "notes")
PLACE = Place(node="node1", network="net1")


@pytest.mark.parametrize(
    ("env", "tag", "major"),
    [(["PG_MAJOR=18"], "latest", 18), (["PATH=/bin"], "17-alpine", 17), (["PG_MAJOR=16", "PG_VERSION=16.4"], "", 16)],
)
def test_major_comes_from_the_image_before_its_tag(env: list[str], tag: str, major: int) -> None:
    assert image_major(env, tag) == major


def test_image_that_tells_no_major_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="PG_MAJOR"):
        image_major([], "latest")


@pytest.mark.parametrize(("image", "volume"), [(18, None), (18, 18), (14, 14)])
def test_fitting_major_is_used(image: int, volume: int | None) -> None:
    check_major(image, volume)


@pytest.mark.parametrize(("image", "volume"), [(18, 17), (16, 17), (13, None)])
def test_unfitting_major_names_the_image_to_set(image: int, volume: int | None) -> None:
    with pytest.raises(ConfigurationError, match="SUPERVISOR_POSTGRES_IMAGE"):
        check_major(image, volume)


@pytest.mark.parametrize(
    ("major", "target"), [(17, "/var/lib/postgresql/data"), (18, "/var/lib/postgresql"), (19, "/var/lib/postgresql")]
)
def test_volume_is_where_the_images_major_wants_it(major: int, target: str) -> None:
    assert postgres_target(major) == target


def test_nothing_is_published_where_there_is_a_shared_network() -> None:
    secret = SecretFile("n", "i", "f")
    for wanted in (
        postgres_service(owner=OWNER, place=PLACE, image="i", major=18, password=secret, limits=Limits()),
        redis_service(owner=OWNER, place=PLACE, image="i", config=secret, limits=Limits()),
    ):
        body = service_body(wanted, api=(1, 45))
        assert body["EndpointSpec"] == {"Mode": "dnsrr"}
        assert body["TaskTemplate"]["Placement"]["Constraints"] == ["node.id==node1"]


def test_host_ports_are_the_nodes_own_not_the_whole_swarms() -> None:
    place = Place(node="node1", network="net1", postgres_port=15432, redis_port=16379)
    secret = SecretFile("n", "i", "f")
    body = service_body(
        postgres_service(owner=OWNER, place=place, image="i", major=18, password=secret, limits=Limits()), api=(1, 41)
    )
    assert body["EndpointSpec"]["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 5432, "PublishedPort": 15432, "PublishMode": "host"}
    ]


def test_no_password_is_in_a_body() -> None:
    secret = SecretFile("notes-redis-1", "id1", "redis.conf")
    body = service_body(redis_service(owner=OWNER, place=PLACE, image="i", config=secret, limits=Limits()), api=(1, 45))
    assert "swordfish" in redis_config("swordfish")
    assert "requirepass" not in json.dumps(body)
