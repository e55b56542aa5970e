"""Postgres and Redis as services: which image and volume, and what is remembered of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.engine.errors import NotFound
from supervisor.engine.images import ResolvedImage
from supervisor.probe.verdict import Answer, good
from supervisor.services.image_book import ImageBook
from supervisor.services.ownership.memory import Memory
from supervisor.services.swarm import postgres as postgres_module
from supervisor.services.swarm.data import Hands, Reach
from supervisor.services.swarm.postgres import EnginePostgres
from supervisor.services.swarm.redis import EngineRedis
from supervisor.services.swarm.roles import Place
from supervisor.services.swarm.spec import Owner, SecretFile
from supervisor.store.secrets import SecretFolder

pytestmark = pytest.mark.anyio


class World:
    """An engine's images, and what was made durable."""

    def __init__(self) -> None:
        self.images = self
        self.env = {"sha256:17": ["PG_MAJOR=17"], "sha256:18": ["PG_MAJOR=18"], "sha256:r8": []}
        self.tags = {"postgres:17": "sha256:17", "postgres:18": "sha256:18", "redis:8": "sha256:r8"}
        self.resolved: list[str] = []
        self.facts: dict[str, str] = {}
        self.saved: list[dict[str, str]] = []

    async def inspect(self, name: str) -> dict[str, Any]:
        if name not in self.env:
            raise NotFound("inspect image", 404, "no such image")
        return {"Id": name, "Config": {"Env": self.env[name]}}

    async def resolve(self, text: str, progress: Any) -> ResolvedImage:
        self.resolved.append(text)
        return ResolvedImage(text, self.tags[text], None, self.tags[text])

    def save(self) -> None:
        self.saved.append(dict(self.facts))

    def book(self) -> ImageBook:
        return ImageBook(self, self, self.memory(), tell=lambda line: None)  # type: ignore[arg-type]

    def memory(self) -> Memory:
        return Memory(self.facts, save=self.save)


def hands(world: World) -> Hands:
    async def place() -> Place:
        return Place(node="node-1", network="net-1", postgres_port=15432)

    async def keep_secret(role: str, file: str, data: bytes) -> SecretFile:
        return SecretFile(f"{role}-secret", "id-1", file)

    async def api_version() -> tuple[int, int]:
        return (1, 44)

    return Hands(
        owner=lambda: Owner("install-1", "shop"),
        place=place,
        images=world.book(),
        keep_secret=keep_secret,
        api_version=api_version,
        memory=world.memory(),
    )


def postgres(world: World, tmp_path: Path, set_password: Any = None, **values: object) -> EnginePostgres:
    return EnginePostgres(
        Settings(stack="shop", **values),
        hands=hands(world),
        secrets=SecretFolder(tmp_path),
        reach=Reach(host="127.0.0.1", port=15432, published=15432),
        set_password=set_password,
    )


async def test_an_image_is_resolved_once_and_kept_though_its_tag_moves() -> None:
    world = World()
    first = await world.book().find("postgres", "postgres:17")
    world.tags["postgres:17"] = "sha256:18"
    again = await world.book().find("postgres", "postgres:17")
    assert first.pinned == again.pinned == "sha256:17"
    assert world.resolved == ["postgres:17"]
    assert world.saved == [{"image.postgres": "postgres:17 sha256:17"}]


async def test_another_setting_or_a_removed_image_is_resolved_anew() -> None:
    world = World()
    await world.book().find("postgres", "postgres:17")
    assert (await world.book().find("postgres", "postgres:18")).pinned == "sha256:18"
    del world.env["sha256:18"]
    world.tags["postgres:18"] = "sha256:17"
    assert (await world.book().find("postgres", "postgres:18")).pinned == "sha256:17"
    assert world.resolved == ["postgres:17", "postgres:18", "postgres:18"]


async def test_the_password_is_in_no_part_of_the_service(tmp_path: Path) -> None:
    world = World()
    made = postgres(world, tmp_path)
    body = await made.wish()
    password = (tmp_path / "postgres").read_text().strip()
    assert password in made.dsn.reveal()
    assert password not in json.dumps(body)
    assert made.dsn.reveal() == f"postgresql://shop:{password}@127.0.0.1:15432/shop"


async def test_another_major_than_that_of_the_data_is_refused(tmp_path: Path) -> None:
    world = World()
    world.facts["postgres.major"] = "17"
    with pytest.raises(ConfigurationError, match="cannot start Postgres 18 on data of Postgres 17"):
        await postgres(world, tmp_path).wish()


async def test_the_major_is_remembered_once_it_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def served(*args: object, **kwargs: object) -> object:
        return good()

    monkeypatch.setattr(postgres_module, "probe_postgres", served)
    world = World()
    made = postgres(world, tmp_path)
    await made.wish()
    assert "postgres.major" not in world.facts
    await made.probe()
    assert world.facts["postgres.major"] == "18"


async def test_what_was_taken_over_keeps_its_volume_and_its_image(tmp_path: Path) -> None:
    world = World()
    world.facts |= {"volume.postgres": "old-data /var/lib/postgresql/data", "wanted.postgres": "postgres:17"}
    container = (await postgres(world, tmp_path).wish())["TaskTemplate"]["ContainerSpec"]
    assert container["Image"] == "sha256:17"
    mount = next(mount for mount in container["Mounts"] if mount["Type"] == "volume")
    assert (mount["Source"], mount["Target"]) == ("old-data", "/var/lib/postgresql/data")
    world.tags["postgres:16"], world.env["sha256:16"] = "sha256:16", ["PG_MAJOR=16"]
    asked = await postgres(world, tmp_path, postgres_image="postgres:16").wish()
    assert asked["TaskTemplate"]["ContainerSpec"]["Image"] == "sha256:16"


async def test_a_password_is_set_anew_once_the_server_lets_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def served(*args: object, **kwargs: object) -> object:
        return good()

    given: list[str] = []
    refuse = True

    async def set_password(password: Secret) -> None:
        if refuse:
            raise UnreachableError("cannot set the password: it does not run yet; wait for it")
        given.append(password.reveal())

    monkeypatch.setattr(postgres_module, "probe_postgres", served)
    world = World()
    world.facts["postgres.password"] = "reset"
    made = postgres(world, tmp_path, set_password)
    assert (await made.probe()).answer is Answer.WAITING
    assert world.facts["postgres.password"] == "reset"
    refuse = False
    assert (await made.probe()).good
    await made.probe()
    assert given == [(tmp_path / "postgres").read_text().strip()]
    assert "postgres.password" not in world.saved[-1]


async def test_redis_gets_its_whole_configuration_as_a_secret(tmp_path: Path) -> None:
    world = World()
    redis = EngineRedis(
        Settings(stack="shop"),
        hands=hands(world),
        secrets=SecretFolder(tmp_path),
        reach=Reach(host="shop-redis", port=6379),
    )
    body = await redis.wish()
    password = (tmp_path / "redis").read_text().strip()
    assert redis.url.reveal() == f"redis://:{password}@shop-redis:6379/0"
    assert password not in json.dumps(body)
    assert "Ports" not in body["EndpointSpec"]
