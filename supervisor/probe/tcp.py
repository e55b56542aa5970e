"""Whether something accepts TCP connections."""

from __future__ import annotations

import anyio

from supervisor.probe.verdict import Verdict, good, waiting


async def probe_tcp(host: str, port: int, *, limit_seconds: float = 3.0) -> Verdict:
    """Connect and close. Good says that somebody listens, not that what listens works."""
    try:
        with anyio.fail_after(limit_seconds):
            stream = await anyio.connect_tcp(host, port)
            await stream.aclose()
    except TimeoutError:
        return waiting(f"no answer from {host}:{port} within {limit_seconds:g} s")
    except OSError as error:
        return waiting(f"cannot connect to {host}:{port}: {explain_connect_error(error)}")
    return good(f"{host}:{port} accepts connections")


def explain_connect_error(error: OSError) -> str:
    """The reason of a failed connect in a few words; anyio puts what each address said into the cause."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(error, ConnectionRefusedError) or isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return (error.strerror or str(error)).lower()
