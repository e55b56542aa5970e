"""Which image a service runs, remembered: another one is taken on purpose only, never because a tag moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supervisor.engine.client import Engine
from supervisor.engine.errors import NotFound
from supervisor.engine.images import ImageResolver
from supervisor.services.ownership.memory import Memory


@dataclass(frozen=True)
class KnownImage:
    """An image that the engine has: what a spec must name, the tag it was asked for by, and its environment."""

    pinned: str
    tag: str
    env: tuple[str, ...]


class ImageBook:
    """Resolves a service's image once and keeps what was found. `tell` gets lines of progress for people."""

    def __init__(
        self,
        engine: Engine,
        resolver: ImageResolver,
        memory: Memory,
        *,
        tell: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._resolver = resolver
        self._memory = memory
        self._tell = tell

    async def find(self, role: str, reference: str) -> KnownImage:
        """The image for `role`: the one remembered for this reference where the engine has it, else resolved anew.

        Raises UnreachableError naming image, cause and ways out.
        """
        pinned = self._memory.image_found(role, reference)
        found = await self._inspect(pinned) if pinned else None
        if found is None:
            pinned = (await self._resolver.resolve(reference, self._tell)).pinned
            self._memory.keep_image(role, reference, pinned)
            found = await self._engine.images.inspect(pinned)
        config = found.get("Config") or {}
        return KnownImage(pinned, reference.rpartition(":")[2], tuple(config.get("Env") or ()))

    async def _inspect(self, pinned: str) -> dict[str, Any] | None:
        try:
            return await self._engine.images.inspect(pinned)
        except NotFound:
            return None
