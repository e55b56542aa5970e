"""An app's way into the database as one text: which of its two logins, and the password. Pure but for chance."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.names import Slot

_BYTES = 32


@dataclass(frozen=True)
class Credential:
    """One login of an app; the two take turns, so that a password is changed with both good for a while."""

    slot: Slot
    password: Secret

    @classmethod
    def make(cls, slot: Slot = Slot.A) -> Credential:
        """One with a new random password."""
        return cls(slot, Secret(secrets.token_urlsafe(_BYTES)))

    def successor(self) -> Credential:
        """What it is changed to: the other login, a new password."""
        return self.make(self.slot.other)

    def text(self) -> Secret:
        """As it is kept: `a:PASSWORD`."""
        return Secret(f"{self.slot}:{self.password.reveal()}")

    @classmethod
    def parse(cls, text: Secret) -> Credential:
        """From `text`. Raises ConfigurationError for what it never gave."""
        slot, colon, password = text.reveal().partition(":")
        if not colon or not password or slot not in tuple(Slot):
            raise ConfigurationError(
                "cannot read the kept login of an app: it is not of the form a:PASSWORD; bring the file back from a "
                "backup, or remove it to have a new password set"
            )
        return cls(Slot(slot), Secret(password))
