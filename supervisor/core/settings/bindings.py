"""Names that an app's variables are bound to facts by: `[bindings]` in supervisor.toml, and what may be in it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

SECRET = "{secret}"  # noqa: S105
"""A random value of the app's own, made on first boot and kept."""
FIELDS = ("stage", "node_env", "port", "public_url", "trusted_origins", "database_url", "redis_url", "secret")
FIELD = re.compile(r"\{([a-z_]+)\}")


def why_unusable(template: str) -> str:
    """Why it cannot be a binding; empty where it can."""
    unknown = [name for name in FIELD.findall(template) if name not in FIELDS]
    if unknown:
        return f"there is no {{{unknown[0]}}}; there are {', '.join(f'{{{name}}}' for name in FIELDS)}"
    if SECRET in template and template != SECRET:
        return "{secret} stands alone"
    return ""


def _usable(template: str) -> str:
    if why := why_unusable(template):
        raise ValueError(why)
    return template


Binding = Annotated[str, AfterValidator(_usable)]
