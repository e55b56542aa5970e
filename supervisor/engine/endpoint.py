"""Which engine is meant: DOCKER_HOST, else a context of the command line client, else the default path (F2).

Resolved once: SDKs know nothing of contexts, so a child with the ambient settings may reach another engine than we do.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from supervisor.engine.facts import Chosen, EngineAddress, Scheme, Tls

FORMS = "unix:///path/to/docker.sock or tcp://host:port"
_PLAIN_PORT = 2375
_TLS_PORT = 2376
_TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
_MAX_SOCKET_BYTES = 107  # sockaddr_un.sun_path is 108 with its closing zero, unix(7)
_NEEDS_ANOTHER_PROGRAM = {
    "ssh": "the supervisor starts no ssh; forward the socket (ssh -NL /run/remote.sock:/var/run/docker.sock user@host) "
    "and name it as unix:///run/remote.sock",
    "npipe": "named pipes are of Windows",
    "fd": "descriptors are what dockerd listens on, not what a client connects to",
}


@dataclass(frozen=True)
class Named:
    """What the settings say of the engine."""

    docker_host: str | None = None
    docker_context: str | None = None
    tls_verify: bool = False
    cert_path: Path | None = None


def parse(value: str, *, tls: bool = False) -> EngineAddress:
    """An address in DOCKER_HOST's form; raises ValueError with the reason."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        raise ValueError(f"it has no scheme; accepted: {FORMS}")
    if scheme in _NEEDS_ANOTHER_PROGRAM:
        raise ValueError(f"{_NEEDS_ANOTHER_PROGRAM[scheme]}; accepted: {FORMS}")
    if scheme == "unix":
        return _unix(rest)
    if scheme != "tcp":
        raise ValueError(f"the scheme {scheme!r} is not known; accepted: {FORMS}")
    return _tcp(value, tls=tls)


def _unix(path: str) -> EngineAddress:
    if not path.startswith("/"):
        raise ValueError(f"its path does not begin with a slash; accepted: {FORMS}")
    if "\0" in path or len(os.fsencode(path)) > _MAX_SOCKET_BYTES:
        raise ValueError(f"its path has more than the {_MAX_SOCKET_BYTES} bytes the kernel takes, or a zero among them")
    return EngineAddress(Scheme.UNIX, path=path)


def _tcp(value: str, *, tls: bool) -> EngineAddress:
    parts = urlsplit(value)
    host, port = parts.hostname, parts.port  # ValueError: no such port
    if not host or port == 0 or parts.path not in ("", "/") or parts.username or parts.query or parts.fragment:
        raise ValueError(f"it is not just a host and a port; accepted: {FORMS}")
    return EngineAddress(Scheme.TCP, host=host, port=port or (_TLS_PORT if tls else _PLAIN_PORT))


def without_password(value: str) -> str:
    """The address for a message: what stands before an `@` is cut."""
    scheme, separator, rest = value.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if separator and "@" in rest else value


def choose(named: Named, *, default_path: str, config_folder: Path) -> Chosen:
    """Follow the client's own order. Reads the client's folder; blocks on the disk only."""
    if named.docker_host:
        return _from_host(named, default_path, config_folder)
    if named.docker_context:
        return _from_context(named.docker_context, "DOCKER_CONTEXT", default_path, config_folder)
    try:
        context = _current_context(config_folder / "config.json")
    except (OSError, ValueError) as error:
        # The client itself warns and goes on where its file cannot be read.
        return replace(_default(default_path), source=f"default ({config_folder}/config.json: {_why(error)})")
    if context:
        return _from_context(context, f"currentContext in {config_folder}/config.json", default_path, config_folder)
    return _default(default_path)


def _default(path: str) -> Chosen:
    return Chosen(EngineAddress(Scheme.UNIX, path=path))


def _from_host(named: Named, default_path: str, config_folder: Path) -> Chosen:
    given = named.docker_host or ""
    wants_tls = named.tls_verify or named.cert_path is not None
    try:
        endpoint = parse(given, tls=wants_tls)
    except ValueError as error:
        return Chosen(None, "DOCKER_HOST", without_password(given), True, "E02", str(error))
    if endpoint.scheme is Scheme.TCP and wants_tls:
        folder = named.cert_path or config_folder
        endpoint = replace(endpoint, tls=_tls(folder, verify=named.tls_verify, needed=_TLS_FILES))
    return Chosen(endpoint, "DOCKER_HOST", given, _is_configured(endpoint, default_path))


def _is_configured(endpoint: EngineAddress, default_path: str) -> bool:
    """An address that says what the default says anyway is no wish."""
    return endpoint.scheme is Scheme.TCP or os.path.realpath(endpoint.path) != os.path.realpath(default_path)


def _tls(folder: Path, *, verify: bool, needed: tuple[str, ...]) -> Tls:
    missing = tuple(name for name in needed if not os.access(folder / name, os.R_OK))
    return Tls(str(folder), verify, missing)


def _current_context(path: Path) -> str:
    """The client's chosen context, "" where it has none; raises OSError or ValueError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    context = values.get("currentContext") if isinstance(values, dict) else None
    return context if isinstance(context, str) else ""


def _from_context(name: str, source: str, default_path: str, config_folder: Path) -> Chosen:
    if name == "default":
        return replace(_default(default_path), source=f"{source}: default")
    key = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    folder = config_folder / "contexts"
    try:
        metadata = json.loads((folder / "meta" / key / "meta.json").read_text(encoding="utf-8"))
        endpoint = _of_metadata(metadata, folder / "tls" / key / "docker")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Chosen(None, source, name, True, "E05", _why(error))
    return Chosen(endpoint, source, name, _is_configured(endpoint, default_path))


def _of_metadata(metadata: Any, tls_folder: Path) -> EngineAddress:
    docker = metadata["Endpoints"]["docker"]
    files = tuple(name for name in _TLS_FILES if (tls_folder / name).exists())
    if not isinstance(docker["Host"], str):
        raise ValueError("its Host is no text")
    endpoint = parse(docker["Host"], tls=bool(files))
    if endpoint.scheme is Scheme.TCP and files:
        needed = _TLS_FILES if {"cert.pem", "key.pem"} & set(files) else ("ca.pem",)
        endpoint = replace(endpoint, tls=_tls(tls_folder, verify=not docker.get("SkipTLSVerify"), needed=needed))
    return endpoint


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such context"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
