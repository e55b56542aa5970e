"""Brings a dockerd up in namespaces of its own, on orders from standard input; one JSON answer a line.

Started by `unshare --mount --net --pid --fork --mount-proc`: PID 1 of a new world, as in a container.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from supervisor.core.errors import SupervisorError
from supervisor.engine.dockerd.daemon import RECOVERY_SECONDS, START_SECONDS, Dockerd
from supervisor.engine.dockerd.iptables import IptablesBackend
from supervisor.engine.dockerd.places import Places
from supervisor.engine.dockerd.preparation import DockerdOptions
from supervisor.process import procfs
from supervisor.process.child import Command, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.backend import Backend
from supervisor.services.readiness import Limits, prove
from supervisor.services.runner import ServiceRunner
from supervisor.services.spec import ServiceSpec

Answer = dict[str, Any]


def set_the_scene(address: str) -> None:
    """Docker's own folders outside our places made private, and a way out that leads nowhere."""
    for words in (
        "mount --make-rprivate /",
        "mount -t tmpfs tmpfs /run",
        "mkdir -p /etc/docker",
        "mount -t tmpfs tmpfs /etc/docker",
        "ip link set lo up",
        "ip link add uplink mtu 1400 type veth peer name nowhere",
        f"ip addr add {address}/26 dev uplink",
        "ip link set uplink up",
        "ip link set nowhere up",
        "ip route add default dev uplink",
    ):
        subprocess.run(words.split(), check=True)


class Alone:
    """The orders; each is a method named after it."""

    def __init__(self, reaper: Reaper, given: Answer) -> None:
        self.reported: list[str] = []
        self.reaper = reaper
        self.given = given
        self.dockerd = self.make()

    def make(self) -> Dockerd:
        """One supervisor's daemon, as far as this module goes."""
        given, folder = self.given, Path(self.given["folder"])
        options = DockerdOptions(
            places=Places(
                runtime=folder / "run",
                data_root=Path(given.get("data_root", folder / "data")),
                socket=Path(given.get("socket", folder / "run" / "docker.sock")),
            ),
            install_uuid=given.get("uuid", "0123abcd"),
            program=given.get("program", "dockerd"),
            user_config=folder / "daemon.json",
            iptables=IptablesBackend(given["iptables"]) if "iptables" in given else None,
            allow_layer=given.get("allow_layer", False),
        )
        return Dockerd(
            options,
            reaper=self.reaper,
            ring=Ring("dockerd"),
            run=self.run,
            environ={**os.environ, "DOCKER_DRIVER": "vfs"},
            report=self.reported.append,
        )

    async def run(self, command: Command, lines: int = 1) -> tuple[int, str]:
        """Its status and its last line, as the daemon's own runner gives them."""
        ring = Ring(command.name)
        try:
            child = self.reaper.spawn(command, ring)
        except OSError as error:
            return 127, explain_spawn_error(command, error)
        with anyio.fail_after(30):
            end = await child.wait()
        return end.status, "\n".join(line.text for line in ring.tail(lines))

    async def start(self, _: Answer) -> Answer:
        await self.dockerd.start()
        return {"pid": self.dockerd.pid}

    async def prove(self, _: Answer) -> Answer:
        limits = Limits(timeout_seconds=START_SECONDS, recovery_seconds=RECOVERY_SECONDS)
        async with anyio.create_task_group() as group:

            async def until_end() -> None:
                await self.dockerd.wait_end()
                group.cancel_scope.cancel()

            group.start_soon(until_end)
            proof = await prove(self.dockerd.probe, limits, subject=self.dockerd)
            group.cancel_scope.cancel()
            return {"proved": proof.proved, "seconds": proof.elapsed_seconds, "detail": proof.verdict.detail}
        return {"proved": False, "detail": "it ended"}

    async def end(self, _: Answer) -> Answer:
        end = await self.dockerd.wait_end()
        return {"end": str(end), "why": str(self.dockerd.explain(end))}

    async def kill(self, _: Answer) -> Answer:
        pid = self.dockerd.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return {"end": str(await self.dockerd.wait_end())}

    async def stop(self, order: Answer) -> Answer:
        began = time.monotonic()
        await self.dockerd.stop(order.get("grace", 30.0))
        return {"seconds": time.monotonic() - began}

    async def stop_twice(self, _: Answer) -> Answer:
        """A shutdown in the midst of a manual stop: the second comes when dockerd is at work on the first."""
        ring = self.dockerd.ring
        async with anyio.create_task_group() as group:
            seen = ring.number
            group.start_soon(self.dockerd.stop, 30.0)
            with anyio.fail_after(10):
                while not any("Processing signal" in line.text for line in ring.since(seen)):
                    await ring.wait_newer(ring.number)
            group.start_soon(self.dockerd.stop, 30.0)
        return {}

    async def shell(self, order: Answer) -> Answer:
        socket = self.dockerd._places.socket
        command = Command(
            name="shell",
            argv=["/bin/sh", "-c", order["text"]],
            env={**os.environ, "DOCKER_HOST": f"unix://{socket}"},
        )
        status, output = await self.run(command, lines=200)
        return {"status": status, "output": output}

    async def zombie(self, order: Answer) -> Answer:
        """A process that ended and that its parent, no child of ours to reap, never waits for."""
        program = f"import os, time; p = os.posix_spawn({order['path']!r}, ['x'], {{}}); print(p); time.sleep(1000)"
        ring = Ring("zombie")
        self.reaper.spawn(Command(name="zombie", argv=[sys.executable, "-uc", program], env={}), ring)
        with anyio.fail_after(10):
            await ring.wait_newer(0)
            pid = int(ring.tail(1)[0].text)
            while (found := procfs.read_stat(pid)) is None or found.state != "Z":
                await anyio.sleep(0.01)
        return {"pid": pid, "comm": found.comm}

    async def supervised_kill(self, _: Answer) -> Answer:
        """The service machinery on it: started, killed, back by itself, stopped."""
        backend: Backend = self.dockerd
        spec = ServiceSpec(
            name="dockerd",
            probe=self.dockerd.probe,
            start_seconds=START_SECONDS,
            recovery_seconds=RECOVERY_SECONDS,
            stop_seconds=30.0,
        )
        runner = ServiceRunner(spec, backend, lambda _: None)
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            runner.start()
            await runner.wait_ready()
            first = backend.incarnation
            os.kill(backend.pid or 0, signal.SIGKILL)
            began = time.monotonic()
            while not (runner.is_ready and backend.incarnation not in (None, first)):
                await anyio.sleep(0.01)
            seconds = time.monotonic() - began
            await runner.stop()
            group.cancel_scope.cancel()
        return {"seconds": seconds, "running": backend.incarnation}

    async def freeze(self, _: Answer) -> Answer:
        """A hung daemon, as a probe sees it."""
        os.kill(self.dockerd.pid or 0, signal.SIGSTOP)
        verdict = await self.dockerd.probe()
        return {"answer": verdict.answer, "detail": verdict.detail}

    async def processes(self, _: Answer) -> Answer:
        found = [stat for pid in procfs.pids() if (stat := procfs.read_stat(pid)) is not None]
        return {"names": [stat.comm for stat in found if stat.state not in "ZX"]}

    async def heard(self, _: Answer) -> Answer:
        return {
            "reported": self.reported,
            "log": [line.text for line in self.dockerd.ring.tail(400)],
            "clean": self.dockerd.last_stop_clean,
        }

    async def renew(self, _: Answer) -> Answer:
        """The supervisor is replaced: the lock is let go, all that it knew is forgotten."""
        self.dockerd.release()
        self.dockerd = self.make()
        return {}


async def obey(alone: Alone, line: str) -> Answer:
    order = json.loads(line)
    do: Callable[[Answer], Awaitable[Answer]] = getattr(alone, order["do"])
    try:
        return await do(order)
    except SupervisorError as error:
        return {"error": str(error), "code": getattr(error, "code", "")}


async def main(given: Answer) -> None:
    async with anyio.create_task_group() as group:
        reaper = Reaper(linger_seconds=0.0)
        await group.start(reaper.run)
        alone = Alone(reaper, given)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            print(json.dumps(await obey(alone, line.decode())), flush=True)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    set_the_scene(settings["address"])
    anyio.run(main, settings)
    os._exit(0)
