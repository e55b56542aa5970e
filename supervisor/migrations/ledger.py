"""Where it is written down which migrations were applied: a schema for one app alone, one each for several."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LedgerSchema:
    """Schema `usual`, or, where several apps share the database, one of `app`'s own, which its role can make."""

    usual: str
    app: str = ""

    @property
    def name(self) -> str:
        """As SQL names it."""
        return f'"{self.usual}_{self.app}"' if self.app else self.usual

    def sql(self, text: str) -> str:
        """`text`, which names tables of the usual one, for this one."""
        return text.replace(f"{self.usual}.", f"{self.name}.") if self.app else text
