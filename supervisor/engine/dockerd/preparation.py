"""Everything between deciding to start a daemon and spawning it; idempotent, and cheap the second time."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio.to_thread

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import config, mounts, stale
from supervisor.engine.dockerd.iptables import IptablesBackend
from supervisor.engine.dockerd.lock import RootLock
from supervisor.engine.dockerd.places import Places
from supervisor.engine.dockerd.preflight import Ground, Preflight, daemon_environ
from supervisor.engine.dockerd.record import LastStop
from supervisor.process.child import Command, KillMode, RunProgram

NAME = "dockerd"
SHUTDOWN_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class DockerdOptions:
    """What is chosen for it. `allow_layer` accepts a data root in the container's own layer (all is lost with it).

    `shutdown_seconds` is what dockerd gives its containers at its end: at least the longest of their stop periods.
    """

    places: Places
    install_uuid: str
    program: str = "dockerd"
    user_config: Path = Path("/etc/docker/daemon.json")
    iptables: IptablesBackend | None = None
    allow_layer: bool = False
    shutdown_seconds: int = SHUTDOWN_SECONDS


class Preparation:
    """Readies the ground and gives the command. `reap` collects ended processes now, `report` gets a line at a time."""

    def __init__(
        self,
        options: DockerdOptions,
        *,
        run: RunProgram,
        environ: Mapping[str, str],
        reap: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self.last_stop = LastStop(options.places.clean_stop)
        self.lock = RootLock(options.places.lock)
        self.last_stop_clean: bool | None = None
        self._options = options
        self._places = options.places
        self._run = run
        self._environ = daemon_environ(environ)
        self._reap = reap
        self._report = report
        self._preflight = Preflight(
            options.places, run=run, environ=environ, backend=options.iptables, allow_layer=options.allow_layer
        )
        self._validated = ""
        self._version = config.UNKNOWN
        self._said: set[str] = set()

    async def command(self) -> Command:
        """Make the ground ready, clean what a dead daemon left, write its configuration. Idempotent.

        Raises EngineError: E08, E09, E10, E12, E21 to E24; E25 for an unusable daemon.json.
        """
        program = self._find_program()
        self._make_folders()
        self.lock.take()
        self._reap()  # a zombie containerd would pass for a running one
        ground = await self._preflight.prepare()
        self.say_once(*ground.warnings)
        places, table = self._places, mounts.read_mounts()
        cleaned = await anyio.to_thread.run_sync(lambda: stale.clean(places, table=table))
        if cleaned.removed:
            start = "cold" if cleaned.cold else "warm"
            self._report(f"{start} start: removed {len(cleaned.removed)} stale files of an earlier dockerd")
        command = Command(
            name=NAME,
            argv=[program, "--config-file", str(places.config)],
            env=ground.env,
            cwd="/",
            stop_signal=signal.SIGTERM,
            kill_mode=KillMode.PROCESS,
        )
        await self._write_config(ground, command)
        self._note_last_stop(ground)
        return command

    def _find_program(self) -> str:
        found = shutil.which(self._options.program, path=self._environ["PATH"])
        if found is None:
            raise EngineError(
                "E08",
                f"cannot start dockerd: there is no program {self._options.program!r} in this image; "
                f"use the image with the engine in it, or mount /var/run/docker.sock",
            )
        return found

    def _make_folders(self) -> None:
        places = self._places
        for folder, mode in ((places.runtime, 0o711), (places.data_root, 0o710), (places.socket.parent, 0o755)):
            try:
                folder.mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise EngineError(
                    "E23", f"cannot make folder {str(folder)!r}: {error.strerror}; make it writable, or mount a volume"
                ) from error

    async def _write_config(self, ground: Ground, command: Command) -> None:
        """Write it; where a user's part is in it, let dockerd judge it once for each new text."""
        user = config.read_user_config(self._options.user_config)
        built = config.build(
            config.ConfigInput(
                places=self._places,
                install_uuid=self._options.install_uuid,
                storage_driver=ground.storage.driver,
                network=ground.network,
                shutdown_seconds=self._options.shutdown_seconds,
                version=await self._read_version(command) if self._matters(user, ground) else config.UNKNOWN,
                ipv6_rules=ground.iptables.ipv6,
                cgroup_parent=ground.cgroup_parent,
            ),
            user,
        )
        self.say_once(*built.notes)
        config.write(self._places.config, built.text)
        if user and built.text != self._validated and self._version >= config.VALIDATES:
            checking = replace(command, name="dockerd-validate", argv=[*command.argv, "--validate"])
            config.judge_validation(*await self._run(checking), user_config=self._options.user_config)
            self._validated = built.text

    def _matters(self, user: config.Values, ground: Ground) -> bool:
        """Whether the version changes anything: asking for it costs the time of starting a program."""
        return bool(user) or ground.network.mtu not in (None, config.USUAL_MTU)

    async def _read_version(self, command: Command) -> config.Version:
        """Asked for once; an image's dockerd does not change under a running supervisor."""
        if self._version == config.UNKNOWN:
            _, said = await self._run(replace(command, name="dockerd-version", argv=[command.argv[0], "--version"]))
            self._version = config.parse_version(said)
        return self._version

    def _note_last_stop(self, ground: Ground) -> None:
        clean = self.last_stop.begin(used=ground.used)
        if self.last_stop_clean is None:
            self.last_stop_clean = clean
            if not clean:
                self._report("unclean stop: the last dockerd on this data root was not ended in order")

    def say_once(self, *lines: str) -> None:
        """Report each line, once in a life."""
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                self._report(line)
