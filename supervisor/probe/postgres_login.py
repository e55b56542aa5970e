"""One login to Postgres through asyncpg: TLS as libpq prefers it, and no password in anybody's text."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from supervisor.core.secret import Secret


async def log_in(dsn: Secret, *, application_name: str) -> asyncpg.Connection[Any]:
    """One connect on loopback. Elsewhere, without an sslmode in the URL, TLS first and then plain, as libpq prefers.

    Not asyncpg's own `prefer`: that one reads key and certificate files out of ~/.postgresql. Raises what asyncpg
    raises; the caller bounds the time and closes the connection.
    """
    url = dsn.reveal()
    if "sslmode" in parse_qs(urlsplit(url).query):
        return await _connect(url, application_name)
    if is_loopback(url):
        return await _connect(url, application_name, ssl=False)
    try:
        return await _connect(url, application_name, ssl=_unverified())
    except (ConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        if isinstance(error, ConnectionRefusedError | asyncpg.InvalidPasswordError):
            raise
        return await _connect(url, application_name, ssl=False)


async def _connect(url: str, application_name: str, **options: Any) -> asyncpg.Connection[Any]:
    # No statement cache: its names would not survive DISCARD, nor a pooler in between.
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        url, statement_cache_size=0, server_settings={"application_name": application_name}, **options
    )
    return connection


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by its loopback address (or a unix socket)."""
    host = urlsplit(url).hostname
    if host is None or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def mask_password(text: str, dsn: Secret) -> str:
    """`text` without the URL's password; foreign texts may quote the URL they could not use."""
    try:
        password = urlsplit(dsn.reveal()).password or ""
    except ValueError:
        return "it cannot be taken apart"
    for secret in filter(None, (dsn.reveal(), password, unquote(password))):
        text = text.replace(secret, "***")
    return text
