"""Traefik as a container of the engine: its wish, its files on their way into it, its probe.

The files are made in a folder of ours, as for a Traefik that is our child, and copied into the container's volume:
a bind mount would name a folder of the engine's host. The volume outlives our own container, so what is in it comes
back into a folder that lost it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.settings import Settings, variable
from supervisor.engine.client import Engine
from supervisor.engine.errors import NotFound
from supervisor.probe.verdict import Verdict
from supervisor.services.container.driver import Wanted
from supervisor.services.container.files import GONE, ContainerFolder, File
from supervisor.services.container.plan import ContainerWish, Published
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm.spec import Owner
from supervisor.services.traefik_files import CERT_COPY, KEY_COPY, TraefikOptions, routes_of, write
from supervisor.services.traefik_probe import probe_traefik
from supervisor.store.files import Generated, is_untouched, make_folder, write_atomic

NAME = "traefik"
STOP_SECONDS = 10.0
SEEN_AS = Path("/etc/traefik")
HTTP_PORT = 80
HTTPS_PORT = 443
PING_PORT = 8082
DASHBOARD_PORT = 8080
STATIC_HASH = "SUPERVISOR_STATIC_SHA256"
_STATIC = "traefik.yml"
_DYNAMIC = "dynamic"
_CERTS = "certs"
_ACME = "acme/acme.json"
# Traefik watches no subfolder and no certificate; it reads all of them again once a file beside this one changes.
_NUDGE = "dynamic/ready.yml"
# Traefik makes its store of certificates itself, 0600, but no folder for it.
_FOLDERS = {_DYNAMIC: 0o755, _CERTS: 0o700, "acme": 0o700}
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class TraefikReach:
    """How Traefik and we reach each other in this mode.

    `app_address` is where Traefik reaches the apps' ports, with extra names in `hosts`; `ping_base` the URL of its ping
    port as we do; `web_host` and `web_port` are its web entry point as we reach it. With `ping_host_port`, ports that
    are not public are published on the engine's loopback, which is ours too then.
    """

    app_address: str
    hosts: Mapping[str, str] = field(default_factory=dict)
    ping_host_port: int | None = None
    ping_base: str
    web_host: str
    web_port: int
    dashboard_host_port: int = DASHBOARD_PORT


class EngineTraefik:
    """The proxy before the app. Nothing is done before `wish`; `fill` is the container driver's.

    `resolve` gives the pinned image, `network` name and id of the stack's network, both anew for each start. `report`
    is told what became of each generated file, `tell` gets lines for people.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: Path,
        engine: Engine,
        owner: Callable[[], Owner],
        reach: TraefikReach,
        resolve: Callable[[], Awaitable[str]],
        network: Callable[[], Awaitable[tuple[str, str]]],
        environ: Mapping[str, str],
        report: Callable[[Generated], None],
        tell: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.reach = reach
        self._settings = settings
        self._engine = engine
        self._owner = owner
        self._resolve = resolve
        self._network = network
        self._env = passed_on(environ, beside_proxy=reach.app_address)
        self._report = report
        self._tell = tell
        self._inside = ContainerFolder(engine, str(SEEN_AS))
        self._taken_back = False
        self._sent: tuple[str, dict[str, File]] = ("", {})
        self._sending = anyio.Lock()

    @property
    def container(self) -> str:
        """Its name on the engine; that of its volume too."""
        return f"{self._settings.stack}-traefik"

    def spec(self, *, deadline_factor: float = 1.0, requires: tuple[str, ...] = ()) -> ServiceSpec:
        """What the orchestrator must know of it."""
        settings = self._settings
        return ServiceSpec(
            name=NAME,
            probe=self.probe,
            requires=requires,
            start_seconds=settings.traefik_start_seconds * deadline_factor,
            stop_seconds=STOP_SECONDS,
            optional=NAME in settings.optional_services,
            essential=NAME in settings.essential_services,
            outlives=True,
        )

    async def probe(self) -> Verdict:
        """See `probe_traefik`."""
        limit = self._settings.watch_timeout_seconds
        return await probe_traefik(self.reach.ping_base, self.options().dynamic_folder, limit_seconds=limit)

    def options(self) -> TraefikOptions:
        """What its files are made from."""
        settings = self._settings
        return TraefikOptions(
            folder=self.folder,
            stack=settings.stack,
            routes=routes_of(settings, self.reach.app_address),
            http_port=HTTP_PORT,
            https_port=HTTPS_PORT,
            public_https_port=settings.https_port or HTTPS_PORT,
            ping_port=PING_PORT,
            private_address="",
            seen_as=SEEN_AS,
            dashboard_port=DASHBOARD_PORT if settings.traefik_dashboard else None,
            acme_email=settings.acme_email,
            cert_file=settings.tls_cert_file,
            key_file=settings.tls_key_file,
        )

    async def wish(self) -> Wanted:
        """Write the files, and give the container as it shall be. Raises our errors, the engine's too."""
        ports = self._ports()
        options = self.options()
        network, network_id = await self._network()
        image = await self._resolve()
        await self._take_back()
        for generated in write(options):
            self._report(generated)
        owner = self._owner()
        # Made here for its labels; one that is there is left as it is.
        await self._engine.volumes.create(self.container, owner.labels(NAME))
        wish = ContainerWish(
            name=self.container,
            owner=owner,
            role=NAME,
            image=image,
            args=(f"--configFile={SEEN_AS / _STATIC}",),
            # Its own files are read at its start only: with another one it must be made anew.
            env={**self._env, STATIC_HASH: hashlib.sha256(options.static_file.read_bytes()).hexdigest()},
            volumes={self.container: str(SEEN_AS)},
            ports=ports,
            hosts=self.reach.hosts,
            network=network,
            aliases=(self.container,),
        )
        return Wanted(wish, network_id)

    def _ports(self) -> tuple[Published, ...]:
        settings, reach = self._settings, self.reach
        ports = [
            Published(HTTP_PORT, settings.http_port or HTTP_PORT),
            Published(HTTPS_PORT, settings.https_port or HTTPS_PORT),
        ]
        if reach.ping_host_port is not None:
            ports.append(Published(PING_PORT, reach.ping_host_port, _LOOPBACK))
        if settings.traefik_dashboard:
            if reach.ping_host_port is None:
                raise ConfigurationError(
                    f"cannot publish Traefik's dashboard: loopback here is that of the engine's host, not ours, and "
                    f"the dashboard has no password; leave {variable('traefik_dashboard')} off, and look at what "
                    f"Traefik does with `docker logs {self.container}`"
                )
            ports.append(Published(DASHBOARD_PORT, reach.dashboard_host_port, _LOOPBACK))
        return tuple(ports)

    async def _take_back(self) -> None:
        """Once in a life: what a container of ours has, and our folder, which may be as new as we are, has not.

        Beside a file as we generated it, one that was edited is the user's; of two that were edited, ours counts.
        """
        if self._taken_back:
            return
        there: dict[str, bytes] = {}
        if await self._is_ours():
            for name in (_STATIC, _DYNAMIC):
                there |= await self._inside.read(self.container, name)
        taken = [name for name, data in there.items() if take_back(self.folder / name, data)]
        self._taken_back = True
        if taken:
            self._tell(f"took {', '.join(sorted(taken))} of Traefik's back from volume {self.container!r}")

    async def _is_ours(self) -> bool:
        try:
            found = await self._engine.containers.inspect(self.container)
        except NotFound:
            return False
        labels: Mapping[str, str] = found["Config"].get("Labels") or {}
        return self._owner().labels(NAME).items() <= labels.items()

    async def fill(self, container: str) -> None:
        """Make the container's files be ours; no call that changes anything where they are. See `Fill`."""
        async with self._sending:
            files = await anyio.to_thread.run_sync(read_files, self.options())
            there: dict[str, bytes] = {}
            for name in (_STATIC, _DYNAMIC, _CERTS):
                there |= await self._inside.read(container, name)
            await self._send(container, there, files)

    async def give_certificates(self, container: str, store: bytes) -> None:
        """Put an ACME store of another Traefik's there, unless it has one of its own."""
        if not await self._inside.read(container, _ACME):
            await self._inside.write(container, {_ACME: File(store, 0o600)}, (), folders=_FOLDERS)

    async def push(self, container: str) -> bool:
        """Send what changed since the last time, deletions too; whether there was anything. Raises the engine's errors.

        No call without a change. A folder that is not there at all deletes nothing.
        """
        options = self.options()
        if self._sent[0] != container or not options.dynamic_folder.is_dir():
            return False
        async with self._sending:
            files = await anyio.to_thread.run_sync(read_files, options)
            return await self._send(container, {name: file.data for name, file in self._sent[1].items()}, files)

    async def _send(self, container: str, there: Mapping[str, bytes], files: dict[str, File]) -> bool:
        changed = {name: file for name, file in files.items() if there.get(name) != file.data}
        # Of the others each is wanted as long as it is named; one that is not there is being written at this moment.
        gone = {name for name in self._sent[1].keys() - files.keys() if name.startswith(f"{_DYNAMIC}/")}
        if any(not is_watched(name) for name in (*changed, *gone)) and _NUDGE in files:
            changed = {name: file for name, file in changed.items() if name != _NUDGE} | {_NUDGE: files[_NUDGE]}
        if changed or gone:
            await self._inside.write(container, changed, gone, folders=_FOLDERS)
        self._sent = (container, files)
        return bool(changed or gone)

    async def watch(
        self,
        container_of: Callable[[], str | None],
        interval_seconds: float = 2.0,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Push what changes in the folder, until cancelled. `container_of` gives the running container's id.

        A push that fails is told once, and tried again.
        """
        seen: object = None
        told = ""
        task_status.started()
        while True:
            container = container_of()
            try:
                stamps = (container, tuple(_stamps(self.options())))
                if container is not None and stamps != seen:
                    await self.push(container)
                    seen, told = stamps, ""
            except (SupervisorError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    self._tell(f"{told}; Traefik keeps the files it has until then")
            await anyio.sleep(interval_seconds)


def passed_on(environ: Mapping[str, str], *, beside_proxy: str) -> dict[str, str]:
    """What Traefik gets of our environment: the zone, and the way to a certificate authority, not to the app."""
    env = {name: environ[name] for name in ("TZ", "HTTPS_PROXY", "https_proxy") if name in environ}
    if len(env) > ("TZ" in env):
        beside = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        env["NO_PROXY"] = ",".join(part for part in (beside, beside_proxy) if part)
    return env


def is_watched(name: str) -> bool:
    """Whether Traefik sees a change of this file, by its path below Traefik's folder."""
    return str(PurePosixPath(name).parent) == _DYNAMIC


def take_back(path: Path, data: bytes) -> bool:
    """Write a file that was found, unless what is there counts more; whether it was written."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    if is_untouched(text) or data == GONE or path.is_dir():
        return False
    try:
        if path.exists() and not is_untouched(path.read_text(errors="replace")):
            return False
        make_folder(path.parent, mode=0o755)
        write_atomic(path, text, mode=0o644, durable=False)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {str(path)!r}: {error.strerror}; make its folder writable, or set {variable('traefik_dir')}"
        ) from error
    return True


def read_files(options: TraefikOptions) -> dict[str, File]:
    """All that Traefik shall have, by path below its folder; certificates first, as the routes name them. Blocks.

    Raises ConfigurationError for one that cannot be read.
    """
    files: dict[str, File] = {}
    for path, name, mode in _sources(options):
        try:
            files[name] = File(path.read_bytes(), mode or path.stat().st_mode & 0o777)
        except FileNotFoundError:
            continue  # it went since it was listed
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {str(path)!r}: {error.strerror}; make it readable, or move it away"
            ) from error
    return files


def _sources(options: TraefikOptions) -> Iterator[tuple[Path, str, int | None]]:
    """Path, name below Traefik's folder, and mode where it is not that of the file."""
    if options.cert_file is not None and options.key_file is not None:
        yield options.cert_file, CERT_COPY, 0o600
        yield options.key_file, KEY_COPY, 0o600
    yield options.static_file, _STATIC, None
    # What is in subfolders first: it is read with what is above it.
    for path in sorted(options.dynamic_folder.rglob("*"), key=lambda path: (-len(path.parts), path)):
        if path.is_file() and not path.name.startswith("."):  # those are half written, or an editor's
            yield path, str(path.relative_to(options.folder)), None


def _stamps(options: TraefikOptions) -> Iterator[tuple[str, int, int, int]]:
    """What tells whether a file was written, for each that there is."""
    for path, name, _ in _sources(options):
        with contextlib.suppress(OSError):
            status = path.stat()
            yield name, status.st_mtime_ns, status.st_ino, status.st_size
