"""Settings of the front: what stands between the public port and the app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from supervisor.core.settings.types import FIELDS, Seconds, Words


class FrontLevel(BaseModel):
    """The part of the settings about the front."""

    model_config = FIELDS

    app_ports: Annotated[str, Field(pattern=r"^\d{1,5}-\d{1,5}$")] = Field(
        "12000-12999", description="private ports that generations are given behind the proxy"
    )
    front: Literal["auto", "proxy", "restart"] = Field(
        "auto", description="how requests reach the app: through HAProxy (auto, where it is installed), or directly"
    )
    haproxy_binary: Path | None = Field(None, description="haproxy; default: found")
    front_connections: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        4000, description="connections at a time; more wait"
    )
    front_head_seconds: Seconds = Field(30, description="how long a client may take to send a request's head")
    front_keep_alive_seconds: Seconds = Field(75, description="how long an idle connection of a client is kept")
    front_idle_seconds: Seconds = Field(3600, description="longest silence within a request and its answer")
    front_tunnel_seconds: Seconds = Field(86400, description="longest silence of a WebSocket or a TCP connection")
    trusted_proxies: Words = Field(
        ("private",),
        description="whose X-Forwarded-* are believed: networks, `private` (loopback and private ones), or `none`",
    )
