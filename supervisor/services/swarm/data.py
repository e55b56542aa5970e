"""What Postgres and Redis share as services of the engine: where they are reached, and what is known of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass

from supervisor.core.settings import Settings
from supervisor.services.image_book import ImageBook
from supervisor.services.swarm.roles import Place, Volume
from supervisor.services.swarm.spec import Owner, SecretFile

RESET = "reset"


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where we and the app reach a service; `published` is its port on the node, None where only its network has it."""

    host: str
    port: int
    published: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What a data service needs of the stack it belongs to. All calls raise the engine's errors, or ours.

    `place` returns once engine, Swarm and network are fit; `keep_secret` makes a Swarm secret of (role, file, content).
    `facts` is what is remembered of the install, made durable by `save`.
    """

    owner: Callable[[], Owner]
    place: Callable[[], Awaitable[Place]]
    images: ImageBook
    keep_secret: Callable[[str, str, bytes], Awaitable[SecretFile]]
    api_version: Callable[[], Awaitable[tuple[int, int]]]
    facts: MutableMapping[str, str]
    save: Callable[[], None]

    def volume(self, role: str) -> Volume | None:
        """The volume that was there before us, with its place in the container."""
        name, _, target = self.facts.get(f"volume.{role}", "").partition(" ")
        return Volume(name, target) if name and target else None

    def image(self, role: str, asked: str) -> str:
        """The image to run: what the user asks for, else that of the service we took over, which opens its data."""
        default = Settings.model_fields[f"{role}_image"].default
        return self.facts.get(f"wanted.{role}", asked) if asked == default else asked

    def remember(self, name: str, fact: str) -> None:
        """Keep a fact, empty to forget it."""
        if self.facts.get(name, "") == fact:
            return
        if fact:
            self.facts[name] = fact
        else:
            del self.facts[name]
        self.save()
