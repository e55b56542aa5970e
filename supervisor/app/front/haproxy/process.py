"""HAProxy as a child: one process for all apps, kept up on sockets that are ours and outlive it."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from supervisor.app.front.haproxy.config import AppFront, Machine, render
from supervisor.app.front.haproxy.lines import LOOPBACK, Lines
from supervisor.app.front.haproxy.runtime import Runtime
from supervisor.app.front.model import FrontError
from supervisor.core.errors import ConfigurationError
from supervisor.core.events import Publish, Warned
from supervisor.process.account import is_mapped, lacking_rights
from supervisor.process.child import Child, Command, Exit, Identity, RunProgram, explain_spawn_error
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.restart import Again, End, RestartMode, RestartPolicy, decide, forget_old
from supervisor.store.files import make_folder, write_atomic

NAME = "haproxy"
POLICY = RestartPolicy(mode=RestartMode.ALWAYS, base_seconds=0.1, cap_seconds=5.0, limit=0)
_HEALTHY_SECONDS = 1.0
_READY_SECONDS = 15.0
_STOP_SECONDS = 2.0
_LINES_SHOWN = 10
_RUNTIME_BACKLOG = 64
_NOBODY = 65534
_OWN_DESCRIPTORS = 200
_FEWEST_CONNECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class HAProxyOptions:
    """How HAProxy runs. `folder` becomes its user's, 0700; the way to it must be open to that user.

    `identity` None is our own user.
    """

    folder: Path
    identity: Identity | None
    binary: str = "haproxy"
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    threads: int = 2


def unprivileged() -> Identity | None:
    """Whom HAProxy becomes: its package's user, else nobody; None, our own, where we cannot become another.

    That is where we are not root, or root without the rights for it, and in a user namespace that has no such user.
    """
    if os.geteuid() != 0 or lacking_rights():
        return None
    uid = gid = _NOBODY
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(NAME)
        uid, gid = entry.pw_uid, entry.pw_gid
    if not (is_mapped(uid, "uid_map") and is_mapped(gid, "gid_map")):
        return None
    return Identity(uid, gid, (gid,))


def affordable(wanted: int, descriptors: int) -> int:
    """How many of `wanted` connections the limit of descriptors allows, two each: with more HAProxy does not start."""
    return min(wanted, max(_FEWEST_CONNECTIONS, (descriptors - _OWN_DESCRIPTORS) // 2))


class HAProxy:
    """One HAProxy for `apps`, whose listening sockets stay the caller's. For one `run`.

    `lines` is what each app's lines are, by its name; a HAProxy that is started again comes up with them. `starts`
    counts the processes so far: counters read while it changed are of one or the other.
    """

    def __init__(
        self,
        apps: Sequence[AppFront],
        *,
        options: HAProxyOptions,
        reaper: Reaper,
        ring: Ring,
        run: RunProgram,
        publish: Publish,
    ) -> None:
        self.apps = {app.name: app for app in apps}
        self.lines = {app.name: Lines() for app in apps}
        self.starts = 0
        self.socket_path = options.folder / "runtime.sock"
        self.runtime = Runtime(self.socket_path)
        self._options = options
        self._reaper = reaper
        self._ring = ring
        self._run = run
        self._publish = publish
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process of now; None while there is none."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled: `started` once the first process answers, every later one is replaced at once.

        Connections that come while there is none wait in the sockets. Raises ConfigurationError where HAProxy refuses
        its configuration, and FrontError where the first process does not come up; neither after `started`.
        """
        options = self._options
        owner = None if options.identity is None else (options.identity.uid, options.identity.gid)
        make_folder(options.folder, owner=owner)
        with self._sockets() as machine:
            await self._check(machine)
            ends: list[End] = []
            child = self._spawn(machine)
            try:
                await self._until_ready(child)
                task_status.started()
                while True:
                    ends = await self._outlive(child, ends)
                    child = await self._spawn_again(machine, child)
            finally:
                with anyio.CancelScope(shield=True):
                    await child.stop(grace_seconds=_STOP_SECONDS)

    @contextlib.contextmanager
    def _sockets(self) -> Iterator[Machine]:
        """What outlives each process beside the public sockets.

        The API's socket is ours, 0600, so commands wait while HAProxy is started again, and its user needs no right to
        it. The port that refuses is bound and never listens, so that nobody else can take it.
        """
        with socket.socket(socket.AF_UNIX) as api, socket.socket() as nobody:
            self.socket_path.unlink(missing_ok=True)
            try:
                api.bind(os.fspath(self.socket_path))
                self.socket_path.chmod(0o600)
                api.listen(_RUNTIME_BACKLOG)
                nobody.bind((LOOPBACK, 0))
            except OSError as error:
                raise FrontError(
                    f"cannot open HAProxy's runtime API at {str(self.socket_path)!r}: {error.strerror or error}; "
                    f"is the path longer than 107 bytes, or its folder read-only?"
                ) from error
            try:
                yield self._machine(api, nobody)
            finally:
                self.socket_path.unlink(missing_ok=True)

    def _machine(self, api: socket.socket, nobody: socket.socket) -> Machine:
        wanted = sum(app.limits.max_connections for app in self.apps.values())
        _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        return Machine(
            runtime_fd=api.fileno(),
            nobody_port=nobody.getsockname()[1],
            threads=self._options.threads,
            max_connections=wanted if descriptors == resource.RLIM_INFINITY else affordable(wanted, descriptors),
        )

    def _command(self, machine: Machine, *arguments: str) -> Command:
        """Writes the configuration as it is now, and gives the command that uses it."""
        file = self._options.folder / "haproxy.cfg"
        write_atomic(file, render(machine, list(self.apps.values()), self.lines), durable=False)
        identity = self._options.identity
        if identity is not None:
            os.chown(file, identity.uid, identity.gid)
        public = (descriptor for app in self.apps.values() for descriptor in app.public_fds)
        return Command(
            name=NAME,
            argv=[self._options.binary, *arguments, "-f", os.fspath(file)],
            env={"PATH": self._options.path},
            cwd="/",
            identity=identity,
            umask=0o077,
            pass_fds=(*public, machine.runtime_fd),
        )

    async def _check(self, machine: Machine) -> None:
        status, said = await self._run(self._command(machine, "-c"))
        if status != 0:
            raise ConfigurationError(
                f"cannot use HAProxy as the front: it refuses its configuration (status {status}); set the front to "
                f"`restart`, or mend what it says: {said.strip()}"
            )

    def _spawn(self, machine: Machine) -> Child:
        """Raises FrontError. One step with the reading of `lines`, so that a switch can see that it came too late."""
        self.starts += 1
        try:
            command = self._command(machine, "-db", "-q")
        except OSError as error:
            raise FrontError(f"cannot write HAProxy's configuration: {error.strerror}; is the disk full?") from error
        try:
            self._child = self._reaper.spawn(command, self._ring)
        except OSError as error:
            raise FrontError(explain_spawn_error(command, error)) from error
        return self._child

    async def _until_ready(self, child: Child) -> None:
        """The API is served by the loop that accepts, so its first answer says that all sockets are."""
        answered: list[str] = []

        async def ask() -> None:
            with contextlib.suppress(FrontError):
                answered.append(await Runtime(self.socket_path, limit_seconds=_READY_SECONDS).ask("show info"))
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await child.wait()
            group.cancel_scope.cancel()
        if not answered:
            how = str(child.exit) if child.exit is not None else f"did not answer within {_READY_SECONDS:g} s"
            raise FrontError(f"cannot start HAProxy: it {how}; it said: {self._last_words()}")

    async def _outlive(self, child: Child, ends: list[End]) -> list[End]:
        """Wait for its end, tell of it, then pause as the restart policy says; gives the ends that still matter."""
        end = await child.wait()
        self._publish(
            Warned(
                message=f"HAProxy {end} and is started again: new connections wait for it, what was in flight is lost",
                detail=self._last_words(),
            )
        )
        return await self._pause(ends, _end_of(child, end))

    async def _pause(self, ends: list[End], last: End) -> list[End]:
        ends = forget_old(POLICY, [*ends, last], last.at)
        step = decide(POLICY, ends, last.at)
        assert isinstance(step, Again), "the policy is `always` and without a limit"
        await anyio.sleep(step.delay_seconds)
        return ends

    async def _spawn_again(self, machine: Machine, child: Child) -> Child:
        """A new process in place of `child`, tried until one can be spawned: it must not end what others run in."""
        ends: list[End] = []
        while True:
            try:
                return self._spawn(machine)
            except FrontError as error:
                self._publish(Warned(message=f"HAProxy ended and cannot be started again yet: {error}"))
                ends = await self._pause(ends, End(time.monotonic(), clean=False, was_healthy=False))

    def _last_words(self) -> str:
        return "\n".join(line.text for line in self._ring.tail(_LINES_SHOWN))


def _end_of(child: Child, end: Exit) -> End:
    return End(end.at, clean=False, was_healthy=end.at - child.started >= _HEALTHY_SECONDS)
