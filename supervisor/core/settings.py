"""Every setting, typed and frozen, read once. The order is command line, environment, `supervisor.toml`, default.

The reading of files and of the environment is the caller's (`commands/load_settings`); this module only decides.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret

PREFIX = "SUPERVISOR_"
# Settings with an option of their own on the command line of `run`; every other one goes by `--set NAME=VALUE`.
OPTIONS = ("mode", "app_dir", "app_host", "port", "state_dir", "runtime_dir", "log_format")
_SHELL = re.compile(r"[|&;<>()$`*?~#\n]")
# Given to children or set by other software under our prefix; none of them is a setting.
_NOT_SETTINGS = frozenset(
    {
        "SUPERVISOR_SPAWN",
        "SUPERVISOR_GENERATION",
        "SUPERVISOR_PUBLIC_PORT",
        "SUPERVISOR_OVERLAPPING",
        "SUPERVISOR_READY_FD",
        "SUPERVISOR_RELEASE",
        "SUPERVISOR_DOCKER_MODE",
        "SUPERVISOR_ENABLED",
        "SUPERVISOR_SERVER_URL",
        "SUPERVISOR_PROCESS_NAME",
        "SUPERVISOR_GROUP_NAME",
        "SUPERVISOR_CONFIG",
    }
)


# What pydantic says in Python's words, in those of a settings file.
_PLAINER = {
    "tuple_type": "give a string or a list of strings",
    "is_instance_of": "give a string",
    "model_type": "give a table",
    "dict_type": "give a table",
}


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


def _words(value: object) -> object:
    """A comma- or line-separated string, or a JSON list, as a tuple of strings."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                return tuple(json.loads(text))
            except ValueError as error:
                raise ValueError(f"not a JSON list: {error}") from None
        return tuple(item.strip() for item in re.split(r"[,\n]", text) if item.strip())
    return tuple(value) if isinstance(value, list) else value


def _service_words(value: object) -> object:
    """As `_words`; an empty variable counts as not set, so there is a word for no service."""
    return () if value == "none" else _words(value)


def _lines(value: object) -> object:
    """One item a line, or a JSON list, as a tuple of strings (commas are part of a command)."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return tuple(line.strip() for line in value.splitlines() if line.strip())
    return _words(value)


def parse_command(value: object) -> object:
    """A command as argv: a list as it is, a string split as a shell would; with shell signs in it, `sh -c` runs it."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if _SHELL.search(text):
            return ("/bin/sh", "-c", text)
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise ValueError(f"unbalanced quotes: {error}") from None
    if isinstance(value, list | tuple):
        return tuple(str(word) for word in value) or None
    return value


def _command(value: object) -> object:
    argv = parse_command(value)
    if argv is None and value is not None:
        raise ValueError("it is empty; give a command, or leave the setting out")
    return argv


SecretStr = Annotated[Secret, BeforeValidator(_secret)]
Argv = Annotated[tuple[str, ...], BeforeValidator(_command)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
ServiceWords = Annotated[tuple[str, ...], BeforeValidator(_service_words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
Port = Annotated[int, Field(ge=1, le=65535)]
FreePort = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")]


class UserService(BaseModel):
    """A service of the user's own, `[services.NAME]` in supervisor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    command: Argv = Field(description="what to run")
    cwd: Path | None = Field(None, description="working folder; default: the app's")
    env: dict[str, str] = Field(default_factory=dict, description="added to the app's environment", repr=False)
    requires: Words = Field(
        (), description="services that must be ready first; when one of them fails, this one is not started"
    )
    wants: Words = Field((), description="services that are waited for, but may fail")
    health_http: str | None = Field(None, description="URL that must answer 200 to 399")
    health_tcp: str | None = Field(None, description="host:port that must accept")
    health_command: Argv | None = Field(None, description="command that must exit 0")
    check_interval_seconds: Seconds | None = Field(None, description="fixed probe interval; default: the schedule")
    timeout_seconds: Seconds = Field(60, description="how long it may take to become ready")
    retries: Annotated[int, Field(ge=0)] = Field(0, description="probes before giving up; 0: until the timeout")
    optional: bool = Field(False, description="the boot goes on, degraded, without it")
    restart: Literal["no", "on-failure", "always"] = Field("always", description="restart policy")
    stop_signal: Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"] = Field("TERM", description="stop signal")
    stop_seconds: Seconds = Field(10, description="grace before KILL")

    @model_validator(mode="after")
    def _one_health_check(self) -> Self:
        given = [check for check in (self.health_http, self.health_tcp, self.health_command) if check]
        if len(given) > 1:
            raise ValueError("give one of health_http, health_tcp and health_command")
        return self


class Settings(BaseSettings):
    """All settings. The environment variable of `x` is `SUPERVISOR_X`; its `aliases` are accepted too."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    mode: Literal["auto", "dind", "socket", "remote", "embedded", "none"] = Field(
        "auto", description="where Postgres, Redis and Traefik run; `embedded`: child processes, `none`: nowhere"
    )
    stack: Name = Field("dokploy", description="name of the stack; services, database and user are named after it")
    state_dir: Path | None = Field(
        None, description="data, secrets and records; default /var/lib/supervisor as root, else below XDG_STATE_HOME"
    )
    runtime_dir: Path | None = Field(
        None, description="sockets; default /run/supervisor as root, else below XDG_RUNTIME_DIR"
    )
    socket: Path | None = Field(None, description="control socket; default control.sock in the runtime folder")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level printed")
    stop_seconds: Seconds | None = Field(
        None, description="whole budget of a stop in seconds; default 8.5 as PID 1 (Docker gives 10), else 60"
    )
    boot_seconds: Seconds = Field(900, description="deadline of the whole boot in seconds")

    app_command: Argv | None = Field(
        None,
        description="the app; a string with shell signs runs under sh -c",
        json_schema_extra={"aliases": "APP_COMMAND"},
    )
    app_dir: Path = Field(
        Path("/app"),
        description="the app's folder; default: that of the file in --config, else /app, else the working folder",
        json_schema_extra={"aliases": "APP_DIR"},
    )
    app_user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")] | None = (
        Field(
            None,
            description="user or user:group (names, numbers) the app, its migrations and hooks run as; default: ours",
        )
    )
    app_host: str | None = Field(
        None, description="host name Traefik routes to the app; default: any", json_schema_extra={"aliases": "APP_HOST"}
    )
    port: Port = Field(3000, description="the app's public port", json_schema_extra={"aliases": "PORT"})
    app_health: Literal["http", "tcp", "none"] = Field(
        "http", description="how the app is probed; `none`: it is healthy as soon as it runs"
    )
    app_health_path: Annotated[str, Field(pattern=r"^/\S*$")] = Field(
        "/api/health", description="path that must answer 200 to 399; on 404 `/` is asked instead"
    )
    app_health_interval_seconds: Seconds = Field(10, description="liveness probe interval once it serves")
    app_health_timeout_seconds: Seconds = Field(3, description="limit of one liveness probe")
    app_health_retries: Annotated[int, Field(ge=1)] = Field(3, description="failed liveness probes that make it hung")
    app_start_seconds: Seconds = Field(60, description="how long a start of the app may take")
    app_stop_seconds: Seconds = Field(10, description="grace between stop signal and KILL")
    app_stop_signal: Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2"] = Field("TERM", description="stop signal")
    app_restart: Literal["no", "on-failure", "always"] = Field("on-failure", description="restart policy of the app")
    on_unhealthy: Literal["restart", "none", "exit"] = Field("restart", description="what a hung app leads to")
    on_app_failure: Literal["exit", "hold"] | None = Field(
        None, description="what an app that gave up leads to; default: exit (hold in dind)"
    )
    app_protocol: Literal["http", "h2c", "tcp"] = Field(
        "http", description="what the app speaks; `h2c`: HTTP/2 without TLS (gRPC), `tcp`: anything, by connection"
    )
    app_ready: Literal["probe", "notify", "fd"] = Field(
        "probe",
        description="what says that new code is ready: the probe alone, or READY=1 on NOTIFY_SOCKET, or a line on "
        "SUPERVISOR_READY_FD, before it",
    )
    app_min_uptime_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        0.5, description="how long new code must run before a reload may switch to it"
    )
    app_ports: Annotated[str, Field(pattern=r"^\d{1,5}-\d{1,5}$")] = Field(
        "12000-12999", description="private ports that generations are given behind the proxy"
    )
    overlap: bool = Field(
        True, description="whether two generations may run at a time; if not, a reload makes requests wait"
    )
    front: Literal["auto", "proxy", "restart"] = Field(
        "auto", description="how requests reach the app: through HAProxy (auto, where it is installed), or directly"
    )
    haproxy_binary: Path | None = Field(None, description="haproxy; default: found")
    front_connections: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        4000, description="connections at a time; more wait"
    )
    front_head_seconds: Seconds = Field(30, description="how long a client may take to send a request's head")
    front_keep_alive_seconds: Seconds = Field(75, description="how long an idle connection of a client is kept")
    front_idle_seconds: Seconds = Field(3600, description="longest silence within a request and its answer")
    front_tunnel_seconds: Seconds = Field(86400, description="longest silence of a WebSocket or a TCP connection")
    trusted_proxies: Words = Field(
        ("private",),
        description="whose X-Forwarded-* are believed: networks, `private` (loopback and private ones), or `none`",
    )
    hold_seconds: Seconds = Field(10, description="how long requests wait for a generation after a crash")
    bake_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        5, description="how long the old generation is kept warm after a switch"
    )
    bake_errors: Annotated[int, Field(ge=1)] = Field(
        3, description="bad answers of new code, at least, that move requests back to the old one"
    )
    drain_seconds: Seconds = Field(30, description="how long the old generation may finish its requests")
    stream_seconds: Seconds = Field(30, description="how long it may keep WebSockets and event streams")
    release_keys: Path | None = Field(
        None, description="folder of public keys (*.pub, minisign) that may sign releases; default in the state folder"
    )
    release_threshold: Annotated[int, Field(ge=1, le=16)] = Field(1, description="how many of these keys must sign")
    release_unsigned: Literal["refuse", "allow"] = Field("refuse", description="what is done with unsigned releases")
    release_bake_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        30, description="how long the old code is kept warm after a switch to a release"
    )
    release_probation_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        600, description="how long a release must hold after that to be good"
    )
    release_snapshot_seconds: Seconds = Field(
        1800, description="longest time for saving the database before a release that asks for it"
    )
    on_image_change: Literal["newest", "volume", "image"] = Field(
        "newest",
        description="which app is started after the image was changed: the newer one, the release's, the image's",
    )
    release_mount: bool = Field(
        False, description="show a release at the app's own folder, to the app only; takes CAP_SYS_ADMIN"
    )
    release_keep: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="how many good releases are kept")
    env_file: Path | None = Field(
        None, description="file of KEY=VALUE lines for the app, read again at each reload; our environment comes first"
    )
    restart_limit: Annotated[int, Field(ge=0)] = Field(
        5, description="restarts in the window before giving up; 0: no limit"
    )
    restart_window_seconds: Seconds = Field(120, description="window of the restart limit")
    restart_base_seconds: Seconds = Field(0.5, description="first backoff; doubles")
    restart_cap_seconds: Seconds = Field(30, description="longest backoff, and the healthy run that resets it")
    trigger_file: Path | None = Field(
        None, description="touching it reloads; default .reload-trigger in the app's folder"
    )

    database_url: SecretStr | None = Field(
        None, description="an external Postgres; then none is started", json_schema_extra={"aliases": "DATABASE_URL"}
    )
    redis_url: SecretStr | None = Field(
        None, description="an external Redis; then none is started", json_schema_extra={"aliases": "REDIS_URL"}
    )
    migrate_command: Argv | None = Field(
        None,
        description="migration command, run before each start of new code",
        json_schema_extra={"aliases": "MIGRATE_COMMAND"},
    )
    migrate_dir: Path | None = Field(None, description="folder of NNNN_name.sql files, or a Drizzle folder")
    migrate_seconds: Seconds = Field(300, description="deadline of the migrations")

    services: ServiceWords = Field(
        ("postgres", "redis", "traefik"), description="which services to start; `none`: no one"
    )
    optional_services: Words = Field((), description="services the boot goes on without, degraded")
    essential_services: Words = Field((), description="data services whose failure after boot stops everything")
    postgres_bin_dir: Path | None = Field(None, description="folder with postgres and initdb; default: found")
    redis_binary: Path | None = Field(None, description="redis-server; default: found")
    traefik_binary: Path | None = Field(None, description="traefik; default: found")
    postgres_port: FreePort = Field(0, description="loopback port; 0: chosen once and remembered")
    redis_port: FreePort = Field(0, description="loopback port; 0: chosen once and remembered")
    postgres_start_seconds: Seconds = Field(180, description="deadline to become ready; recovery extends it")
    postgres_recovery_seconds: Seconds = Field(1800, description="longest extension while Postgres recovers")
    redis_start_seconds: Seconds = Field(120, description="deadline to become ready; loading its data extends it")
    redis_recovery_seconds: Seconds = Field(1800, description="longest extension while Redis loads its data")
    traefik_start_seconds: Seconds = Field(60, description="deadline to become ready")
    watch_interval_seconds: Seconds = Field(10, description="probe interval of services after the boot")
    watch_timeout_seconds: Seconds = Field(3, description="limit of one such probe")
    watch_retries: Annotated[int, Field(ge=1)] = Field(3, description="failed probes that make a service unhealthy")

    http_port: Port | None = Field(
        None, description="Traefik's web entry point; default 80, or 8080 where 80 is not ours"
    )
    https_port: Port | None = Field(
        None, description="Traefik's websecure entry point; default 443, or 8443 where 443 is not ours"
    )
    traefik_dir: Path | None = Field(
        None, description="Traefik's files; default /etc/<stack>/traefik with an engine, in the state folder without"
    )
    traefik_dashboard: bool = Field(False, description="Traefik's dashboard, on loopback")
    acme_email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = Field(
        None, description="e-mail for certificates; turns https redirection on"
    )
    tls_cert_file: Path | None = Field(None, description="own certificate (PEM); turns https redirection on")
    tls_key_file: Path | None = Field(None, description="its key (PEM)")

    post_start_hooks: Lines = Field(
        (), description="commands or http(s) URLs run in parallel once the app is healthy; one a line, or a JSON list"
    )
    hook_seconds: Seconds = Field(60, description="limit of one hook")
    webhook_url: SecretStr | None = Field(None, description="URL that gets the boot notification as JSON (POST)")

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

    user_services: dict[Name, UserService] = Field(
        default_factory=dict, description="services of your own: [services.NAME] tables, in supervisor.toml only"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `build` merged: it knows the aliases and remembers where each value came from."""
        return (init_settings,)


class Loaded(BaseModel):
    """Settings with where each value came from, and what deserves a warning."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def aliases(field: str) -> tuple[str, ...]:
    """Other environment variables accepted for it; the first one set wins after the variable itself."""
    extra = Settings.model_fields[field].json_schema_extra
    names = extra.get("aliases", "") if isinstance(extra, dict) else ""
    return tuple(str(names).split())


def secret_file_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """`{setting: (variable, path)}` for the `X_FILE` forms of secret settings in `environ`.

    As without a file, the variable itself comes before its aliases. Where X and X_FILE are set, `build` says so.
    """
    found: dict[str, tuple[str, str]] = {}
    for field in _secret_fields():
        for name in (variable(field), *aliases(field)):
            if environ.get(name):
                break
            path = environ.get(f"{name}_FILE")
            if path:
                found[field] = f"{name}_FILE", path
                break
    return found


def _both_set(environ: Mapping[str, str]) -> Iterator[str]:
    for field in _secret_fields():
        for name in (variable(field), *aliases(field)):
            if environ.get(name) and environ.get(f"{name}_FILE"):
                yield f"{name} and {name}_FILE are both set: it is not known which is meant; unset one of them"


def _secret_fields() -> list[str]:
    return [name for name, info in Settings.model_fields.items() if "Secret" in str(info.annotation)]


def build(
    *,
    arguments: Mapping[str, Any],
    environ: Mapping[str, str],
    secret_files: Mapping[str, str],
    toml: Mapping[str, Any],
    toml_name: str,
    defaults: Mapping[str, Any] | None = None,
    earlier: Sequence[str] = (),
) -> Loaded:
    """Merge the sources and validate. Raises ConfigurationError that lists every mistake, not only the first.

    `arguments` and `toml` map setting to value, `secret_files` setting to the text of its file. `defaults` are what
    stands in for the model's own, and `earlier` the mistakes that were found while the sources were read.
    """
    mistakes = [*earlier, *_both_set(environ)]
    given = [*_from_toml(toml, toml_name, mistakes), *_from_environment(environ)]
    given += [(name, text.strip(), f"{variable(name)}_FILE") for name, text in secret_files.items()]
    given += [(name, value, _argument_name(name)) for name, value in arguments.items()]
    merged = {**(defaults or {}), **{name: value for name, value, _ in given}}
    origins = {name: origin for name, _, origin in given}
    bad: set[str] = set()
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        mistakes.extend(_describe(detail, merged, origins) for detail in error.errors())
        bad = {str(detail["loc"][0]) for detail in error.errors()}
        settings = Settings(**{name: value for name, value in merged.items() if name not in bad})
    # What needs a look at several settings, where all of those are good by themselves.
    mistakes.extend(text for fields, check in _CHECKS if not bad.intersection(fields) for text in check(settings))
    if mistakes:
        raise ConfigurationError("cannot use the settings:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))
    return Loaded(settings=settings, origins=origins, warnings=tuple(_unknown_variables(environ)))


def _argument_name(field: str) -> str:
    """How a setting was given on the command line."""
    if field == "app_command":
        return "the command behind --"
    return f"--{field.replace('_', '-')}" if field in OPTIONS else f"--set {field}"


def _from_toml(toml: Mapping[str, Any], toml_name: str, mistakes: list[str]) -> Iterator[tuple[str, Any, str]]:
    for key, value in toml.items():
        name = "user_services" if key == "services" and isinstance(value, Mapping) else key
        if name not in Settings.model_fields or key == "user_services":
            mistakes.append(f"{toml_name}: unknown key {key!r}{did_you_mean(key, Settings.model_fields)}")
        else:
            yield name, value, toml_name


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    for name in Settings.model_fields:
        if name == "user_services":
            continue
        for candidate in (variable(name), *aliases(name)):
            if environ.get(candidate):
                yield name, environ[candidate], candidate
                break


def _check_certificate(settings: Settings) -> Iterator[str]:
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        yield "tls_cert_file and tls_key_file go together: set both or neither"


def _check_ports(settings: Settings) -> Iterator[str]:
    taken: dict[int, str] = {}
    for name in _PORTS:
        port = getattr(settings, name)
        if port and taken.setdefault(port, name) != name:
            yield f"{taken[port]} and {name} are both {port}; give each a port of its own"


def _check_services(settings: Settings) -> Iterator[str]:
    for name in settings.services:
        if name not in _BUILT_IN:
            known = ", ".join(_BUILT_IN)
            yield f"{variable('services')}: no service {name!r}{did_you_mean(name, _BUILT_IN)}; there are {known}"
    for name in settings.user_services:
        if name in _BUILT_IN:
            yield f"[services.{name}] is the name of a built-in service; choose another"


def _check_names(settings: Settings) -> Iterator[str]:
    names = {*settings.services, *settings.user_services}
    for field in ("optional_services", "essential_services"):
        for name in getattr(settings, field):
            if name not in names:
                yield f"{variable(field)}: no service {name!r}{did_you_mean(name, names)}"
    for name, service in settings.user_services.items():
        for other in (*service.requires, *service.wants):
            if other not in names:
                yield f"[services.{name}]: no service {other!r}{did_you_mean(other, names)}"


def _check_proxies(settings: Settings) -> Iterator[str]:
    for word in settings.trusted_proxies:
        if word in ("private", "none"):
            continue
        try:
            ip_network(word)
        except ValueError as error:
            yield f"{variable('trusted_proxies')}: {error}; give networks like 10.0.0.0/8, `private`, or `none`"


def _check_app_ports(settings: Settings) -> Iterator[str]:
    low, high = (int(word) for word in settings.app_ports.split("-"))
    if not 1024 <= low < high <= 65535 or high - low < 9:
        yield f"{variable('app_ports')} is {settings.app_ports!r}: give ten ports or more from 1024 to 65535, low-high"


_BUILT_IN = ("postgres", "redis", "traefik")
_PORTS = ("port", "http_port", "https_port", "postgres_port", "redis_port")
_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Settings], Iterator[str]]], ...] = (
    (("tls_cert_file", "tls_key_file"), _check_certificate),
    (_PORTS, _check_ports),
    (("trusted_proxies",), _check_proxies),
    (("app_ports",), _check_app_ports),
    (("services", "user_services"), _check_services),
    (("services", "user_services", "optional_services", "essential_services"), _check_names),
)


def _describe(detail: ErrorDetails, merged: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """One mistake: where it was set, the value (secrets masked), and what is allowed."""
    path = [str(part) for part in detail["loc"]]
    message = _PLAINER.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    field = path[0]
    where = origins.get(field, variable(field))
    if field == "user_services":
        return f"{where}: {_describe_service(path[1:], detail, message)}"
    if where.startswith("/") or where.endswith(".toml"):  # a file, which has many keys
        where = f"{where}: {field}"
    value = "***" if field in _secret_fields() else merged.get(field)
    shown = f" is {value!r}" if value is not None else ""
    return f"{where}{shown}: {message[0].lower()}{message[1:]}"


def _describe_service(path: Sequence[str], detail: ErrorDetails, message: str) -> str:
    """The same within `[services.NAME]`; `env` may hold secrets, so its values are not shown."""
    name, *key = path
    if detail["type"] == "extra_forbidden":
        return f"[services.{name}]: unknown key {key[0]!r}{did_you_mean(key[0], UserService.model_fields)}"
    if detail["type"] == "missing":
        return f"[services.{name}]: key {key[0]!r} is missing"
    if key == ["[key]"]:
        key, message = [], f"the name of a service is 1 to 63 of a-z 0-9 _ . -, not {name!r}"
    hidden = isinstance(detail["input"], Mapping) or "env" in key
    shown = "" if hidden or not key else f" is {detail['input']!r}"
    place = f"[services.{name}]" + (f": {'.'.join(key)}" if key else "")
    return f"{place}{shown}: {message[0].lower()}{message[1:]}"


def did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any] | set[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, empty when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {variable(name) for name in Settings.model_fields if name != "user_services"} | _NOT_SETTINGS
    files = {f"{variable(name)}_FILE" for name in _secret_fields()}
    return [
        f"unknown setting {name}{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known | files
    ]
