"""Settings of the engine: which one, its Swarm, its images, and our own one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from supervisor.core.settings.types import FIELDS, Name


class EngineLevel(BaseModel):
    """The part of the settings about the engine."""

    model_config = FIELDS

    docker_host: str | None = Field(None, description="engine address", json_schema_extra={"aliases": "DOCKER_HOST"})
    docker_context: str | None = Field(
        None, description="engine context", json_schema_extra={"aliases": "DOCKER_CONTEXT"}
    )
    docker_tls_verify: bool = Field(
        False, description="verify the engine's certificate", json_schema_extra={"aliases": "DOCKER_TLS_VERIFY"}
    )
    docker_cert_path: Path | None = Field(
        None, description="folder of the engine's certificates", json_schema_extra={"aliases": "DOCKER_CERT_PATH"}
    )
    container_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12,64}$")] | None = Field(
        None, description="our own container's id, where it cannot be found out (socket mode)"
    )
    network_alias: Name | None = Field(
        None, description="the app's name on the stack's network (socket mode); default: the stack's name and `-app`"
    )
    swarm_init: Literal["auto", "never"] = Field(
        "auto", description="whether a Swarm may be initialised", json_schema_extra={"aliases": "SWARM_INIT"}
    )
    swarm_address_pool: IPv4Network | None = Field(
        None,
        description="where a new Swarm takes its networks from, like 10.200.0.0/16; default: a free /16",
        json_schema_extra={"aliases": "SWARM_ADDRESS_POOL"},
    )
    swarm_listen_address: IPv4Address = Field(
        IPv4Address("127.0.0.1"), description="address a new Swarm listens on; 0.0.0.0 lets other nodes join"
    )
    swarm_advertise_address: IPv4Address = Field(
        IPv4Address("127.0.0.1"), description="address a new Swarm tells other nodes"
    )
    swarm_data_path_port: Annotated[int, Field(ge=1024, le=49151)] | None = Field(
        None, description="UDP port of a new Swarm's overlay traffic; default 4789"
    )
    adopt: bool = Field(
        False, description="take over services of this stack's names that somebody else made; their passwords change"
    )

    postgres_image: str = Field("postgres:18", description="image of Postgres 14 or later (engine modes)")
    redis_image: str = Field("redis:8", description="image of Redis (engine modes)")
    traefik_image: str = Field("traefik:v3", description="image of Traefik 3 (engine modes)")
    images_dir: Path = Field(
        Path("/usr/share/supervisor/images"),
        description="folder of `docker save` archives, used where an image is missing and cannot be pulled",
    )
    postgres_memory_mib: Annotated[int, Field(ge=0)] = Field(0, description="memory limit of Postgres; 0: none")
    redis_memory_mib: Annotated[int, Field(ge=0)] = Field(0, description="memory limit of Redis; 0: none")
    docker_data_root: Path = Field(Path("/var/lib/docker"), description="data of our own engine (dind)")
    docker_config: Path = Field(
        Path("/etc/docker/daemon.json"), description="daemon.json whose settings our own engine gets too (dind)"
    )
    docker_iptables: Literal["auto", "nft", "legacy"] = Field(
        "auto", description="which iptables our own engine uses (dind)"
    )
    allow_layer_data: bool = Field(
        False, description="let our own engine keep its data in the container's layer: slow, and lost with it (dind)"
    )
