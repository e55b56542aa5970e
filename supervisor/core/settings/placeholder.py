"""Values of the example file that nobody changed."""

from __future__ import annotations

PLACEHOLDER = "change-me"


def is_placeholder(value: object) -> bool:
    """Whether it is, or holds, what `.env.production.example` has where a value of one's own belongs."""
    return isinstance(value, str) and PLACEHOLDER in value.lower()


def refusal(place: str) -> str:
    """The sentence of the report."""
    return f"{place} is still the placeholder of the example ({PLACEHOLDER}); give it a value of your own, or remove it"
