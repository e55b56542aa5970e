"""What the Docker benchmark asks from inside a container, as `python -c` with one JSON argument; stands alone there.

`watch` is the independent prober, and knows nothing of the supervisor's code: each target is asked every few
milliseconds until it truly answers, and then gives one JSON line. `migrate` times the migrations alone, `memory` lists
the processes.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

PAUSE_SECONDS = 0.004
# What is sent to a server before it listens, or over a half-made network, may be sent anew only after 1 s: so what is
# not answered is soon asked again, with more patience each time, in case the server is just slow.
PATIENCE_SECONDS, MOST_PATIENCE_SECONDS = 0.15, 2.0
_NAMES = ("127.0.0.11", 53)  # the engine's name server, in every container on a network with names
# It answers at once for what it knows, and asks others, who may never answer, for the rest.
_NAME_SECONDS = 0.05
_LOST = (OSError, EOFError, KeyError, ValueError)

Target = dict[str, Any]


async def address_of(host: str) -> str:
    """One question of our own: a resolver library may wait for seconds on a name that is not there yet."""
    if host[0].isdigit():
        return host
    labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
    number = random.randrange(1 << 16)
    question = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">B2H", 0, 1, 1)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect(_NAMES)
        await loop.sock_sendall(asking, question)
        try:
            answer = await asyncio.wait_for(loop.sock_recv(asking, 1024), _NAME_SECONDS)
        except TimeoutError:
            raise OSError(f"no answer for {host}") from None
    if answer[:2] != question[:2] or answer[3] & 15 or not answer[6:8] > b"\0\0":
        raise OSError(f"no address for {host}")
    return socket.inet_ntoa(answer[-4:])  # one task, so one address, in the last record


def resolved(target: Target) -> tuple[str, int, str]:
    """Host, port and password; what is made at the boot is read from the state folder. OSError, KeyError till then."""
    port = target["port"]
    if isinstance(port, str):
        port = json.loads(Path("/var/lib/supervisor/install.json").read_text())["ports"][port]
    password = target.get("password", "")
    if password.startswith("/"):
        password = Path(password).read_text().strip()
    return target["host"], port, password


async def ask_postgres(target: Target) -> bool:
    """A login with the app's own role, and SELECT 1."""
    import asyncpg

    host, port, password = resolved(target)
    address, user = await address_of(host), target["user"]
    connection: Any = None
    try:
        connection = await asyncpg.connect(
            host=address, port=port, user=user, database=user, password=password, ssl=False
        )
        return bool(await connection.fetchval("SELECT 1") == 1)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    finally:
        if connection is not None:
            connection.terminate()


async def converse(target: Target, text: str, *, lines: int) -> list[str]:
    """Send the text, and give the lines that come back."""
    host, port, password = resolved(target)
    reader, writer = await asyncio.open_connection(await address_of(host), port)
    try:
        writer.write(text.format(password=password, host=host).encode())
        return [(await reader.readuntil(b"\r\n")).decode(errors="replace") for _ in range(lines)]
    finally:
        writer.close()


async def ask_redis(target: Target) -> bool:
    """PING on an authenticated connection; LOADING is not ready."""
    login = ["AUTH {password}\r\n"] if target.get("password") else []
    said = await converse(target, "".join([*login, "PING\r\n"]), lines=len(login) + 1)
    return said[-1].startswith("+PONG")


async def ask_http(target: Target) -> bool:
    """A GET that answers 200."""
    text = f"GET {target['path']} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n"
    return (await converse(target, text, lines=1))[0].startswith("HTTP/1.1 200 ")


_ASKS = {"postgres": ask_postgres, "redis": ask_redis, "http": ask_http}


async def watch(name: str, target: Target) -> None:
    """`began` is when the answered question was asked, `last_bad` when the last one was that failed."""
    last_bad = time.time()
    patience = PATIENCE_SECONDS
    while True:
        began = time.time()
        good = False
        try:
            async with asyncio.timeout(patience):
                good = await _ASKS[target["kind"]](target)
            patience = PATIENCE_SECONDS
        except TimeoutError:
            patience = min(patience * 1.5, MOST_PATIENCE_SECONDS)
        except _LOST:
            patience = PATIENCE_SECONDS
        ended = time.time()
        if good:
            print(json.dumps({"target": name, "began": began, "ended": ended, "last_bad": last_bad}), flush=True)
            return
        last_bad = began
        await asyncio.sleep(PAUSE_SECONDS)


async def watch_all(targets: dict[str, Target]) -> None:
    """All at once; the first line says that it asks."""
    import asyncpg  # noqa: F401  (not in the midst of the first question)

    print(json.dumps({"target": "prober", "began": time.time()}), flush=True)
    await asyncio.gather(*(watch(name, target) for name, target in targets.items()))


async def migrate(target: Target, *, first: bool) -> float:
    """The migrations in a schema of their own, or, when none is pending, one query."""
    import asyncpg

    host, port, password = resolved(target)
    user = target["user"]
    began = time.monotonic()
    connection = await asyncpg.connect(host=host, port=port, user=user, database=user, password=password, ssl=False)
    try:
        if not first:
            await connection.fetch("SELECT 1")
            return time.monotonic() - began
        await connection.execute("CREATE SCHEMA alone; SET search_path TO alone")
        for file in sorted(Path("/app/migrations").glob("*.sql")):
            async with connection.transaction():
                await connection.execute(file.read_text())
        return time.monotonic() - began
    finally:
        connection.terminate()


def memory() -> list[dict[str, Any]]:
    """Each process with its RSS and PSS in MiB; those that may not be looked at are left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
        if "Rss" in sizes:
            found.append({"pid": int(folder.name), "name": name, "rss": sizes["Rss"], "pss": sizes["Pss"]})
    return found


def main(words: dict[str, Any]) -> None:
    """One thing to do."""
    match words["do"]:
        case "watch":
            asyncio.run(watch_all(words["targets"]))
        case "migrate":
            print(json.dumps(asyncio.run(migrate(words["target"], first=words["first"]))))
        case "memory":
            print(json.dumps(memory()))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
