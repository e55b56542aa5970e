"""From the address that a mode was decided on to what the client connects to."""

from __future__ import annotations

from pathlib import Path

from supervisor.engine.client import Endpoint
from supervisor.engine.facts import EngineAddress


def endpoint_of(address: EngineAddress) -> Endpoint:
    """Where the client connects, with the certificates that lie in the address's folder (one look at the disk).

    The client always checks the engine's certificate, also where DOCKER_TLS_VERIFY is not set: encryption to whoever
    answers protects nothing.
    """
    if address.tls is None:
        return Endpoint(address.url)
    folder = Path(address.tls.folder)
    has_pair = (folder / "cert.pem").exists()
    return Endpoint(
        address.url,
        ca_file=folder / "ca.pem",
        certificate_file=folder / "cert.pem" if has_pair else None,
        key_file=folder / "key.pem" if has_pair else None,
    )
