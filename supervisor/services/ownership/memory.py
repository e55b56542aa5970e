"""What is remembered of an install's services on an engine: plain texts in the install's record, named here alone."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from supervisor.core.settings import Settings
from supervisor.services.ownership.adoption import Adoption
from supervisor.services.swarm.roles import Volume

_USED = "engine.used"
_MAJOR = "postgres.major"
_PASSWORD = "postgres.password"  # noqa: S105  (the name of a fact)
_RESET = "reset"


class Memory:
    """Reads and writes `facts`; `save` makes them durable, and is called for a change only."""

    def __init__(self, facts: MutableMapping[str, str], *, save: Callable[[], None]) -> None:
        self._facts = facts
        self._save = save

    @property
    def is_fresh(self) -> bool:
        """Whether nothing of this install was on an engine before."""
        return _USED not in self._facts

    @property
    def volumes(self) -> list[str]:
        """Names of the volumes that were taken over."""
        return [fact.partition(" ")[0] for name, fact in self._facts.items() if name.startswith("volume.")]

    def volume(self, role: str) -> Volume | None:
        """The volume that was there before us, with its place in the container."""
        name, _, target = self._facts.get(f"volume.{role}", "").partition(" ")
        return Volume(name, target) if name and target else None

    def image_wanted(self, role: str, asked: str) -> str:
        """The image to run: what the user asks for, else that of the service we took over, which opens its data."""
        default = Settings.model_fields[f"{role}_image"].default
        return self._facts.get(f"wanted.{role}", asked) if asked == default else asked

    def image_found(self, role: str, reference: str) -> str:
        """What was pinned for this reference; empty for none."""
        asked, _, pinned = self._facts.get(f"image.{role}", "").partition(" ")
        return pinned if asked == reference else ""

    def keep_image(self, role: str, reference: str, pinned: str) -> None:
        """Remember it."""
        self._keep(f"image.{role}", f"{reference} {pinned}")

    @property
    def postgres_major(self) -> int | None:
        """That of the data, once a server has opened it."""
        known = self._facts.get(_MAJOR, "")
        return int(known) if known.isdigit() else None

    def keep_postgres_major(self, major: int | None) -> None:
        """Remember it; None where the data is gone."""
        self._keep(_MAJOR, str(major) if major else "")

    @property
    def password_is_due(self) -> bool:
        """Whether Postgres' data has another password than ours, which is to be set."""
        return self._facts.get(_PASSWORD) == _RESET

    def password_was_set(self) -> None:
        """It is ours now."""
        self._keep(_PASSWORD, "")

    def take_over(self, adoption: Adoption, *, set_password: bool) -> None:
        """Write down what was decided, all in one step."""
        self._facts.update({f"volume.{role}": f"{each.name} {each.target}" for role, each in adoption.volumes.items()})
        self._facts.update({f"wanted.{role}": image for role, image in adoption.images.items()})
        if set_password:
            self._facts[_PASSWORD] = _RESET
        self._facts[_USED] = "1"
        self._save()

    def _keep(self, name: str, fact: str) -> None:
        """Empty to forget it."""
        if self._facts.get(name, "") == fact:
            return
        if fact:
            self._facts[name] = fact
        else:
            del self._facts[name]
        self._save()
