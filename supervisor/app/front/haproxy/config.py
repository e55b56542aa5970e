"""The text of HAProxy's configuration: one process, a frontend and two backends an app. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.app.front.haproxy.lines import HOLD, NOBODY, Lines
from supervisor.app.front.model import Wire

TRIES_A_SECOND = 25
"""A request that waits is tried this often: `timeout connect` is also the pause between two tries."""
PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
_HEADER_BYTES = 64 * 1024
_REWRITE_BYTES = 4 * 1024
_NOBODY_SERVES = "nobody serves this app for now; try again in a moment"
_SPARE_TRIES = 2 * TRIES_A_SECOND
_FORWARDED = (
    ("X-Forwarded-For", "%[src]"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Host", "%[req.hdr(host)]"),
)
_CLIENTS_WORD = ("Forwarded", "X-Real-IP")


@dataclass(frozen=True, kw_only=True)
class FrontLimits:
    """Bounds of one app's front; seconds throughout.

    `hold_seconds` and `hold_requests` bound the wait for somebody to serve, `idle_seconds` the silence of either side
    within a request, `request_seconds` the time for a request's headers, `tunnel_seconds` the silence of a stream.
    """

    hold_seconds: float = 10.0
    hold_requests: int = 1000
    idle_seconds: float = 3600.0
    request_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    tunnel_seconds: float = 86400.0
    max_connections: int = 4096


@dataclass(frozen=True, kw_only=True)
class AppFront:
    """One app: its listening sockets, which HAProxy inherits under these numbers, and what is spoken on them.

    `public_port` is told to the app. `hold_socket` is the unix socket of the holding answer, "" for none; it must be
    one that HAProxy's user may connect to. `trusted` are the networks whose X-Forwarded headers are believed.
    `repeat`: GET, HEAD and OPTIONS that got no byte of an answer are sent again, as often as a request that waits is
    tried, without a pause between. Off, as a request that crashes the app would crash every replacement, too (measured:
    sent 121 times in 34 ms); HAProxy has no limit of its own for it.
    """

    name: str
    public_port: int
    public_fds: tuple[int, ...]
    wire: Wire = Wire.HTTP
    hold_socket: str = ""
    limits: FrontLimits = field(default_factory=FrontLimits)
    trusted: tuple[str, ...] = PRIVATE_NETWORKS
    repeat: bool = False

    @property
    def backends(self) -> tuple[str, ...]:
        """Its backends by name: requests first, then streams, so that they are counted apart. Plain TCP has no second.

        The prefix keeps the API from taking a name that begins with a digit for a number.
        """
        return (f"app:{self.name}",) if self.wire is Wire.TCP else (f"app:{self.name}", f"app:{self.name}:streams")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What all apps share: the runtime API's listening socket, a loopback port that refuses, threads, connections."""

    runtime_fd: int
    nobody_port: int
    threads: int
    max_connections: int


def render(machine: Machine, apps: Sequence[AppFront], lines: Mapping[str, Lines]) -> str:
    """The whole configuration. `lines` are in it, so that a HAProxy that is started again comes up as the last was."""
    parts = [_global(machine), *(_app(machine, app, lines[app.name]) for app in apps)]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _global(machine: Machine) -> list[str]:
    return [
        "# Generated at every start; changes are lost.",
        "global",
        f"    stats socket fd@{machine.runtime_fd} level admin",
        "    stats timeout 1h",
        f"    nbthread {machine.threads}",
        f"    maxconn {machine.max_connections}",
        # A message's headers must fit in one buffer, less what our own headers may take.
        f"    tune.bufsize {_HEADER_BYTES + _REWRITE_BYTES}",
        f"    tune.maxrewrite {_REWRITE_BYTES}",
    ]


def _app(machine: Machine, app: AppFront, lines: Lines) -> list[str]:
    mode = "tcp" if app.wire is Wire.TCP else "http"
    backends = [_backend(machine, app, lines, name, mode) for name in app.backends]
    return [*_frontend(app, mode), *(line for backend in backends for line in backend)]


def _frontend(app: AppFront, mode: str) -> list[str]:
    limits = app.limits
    http = [
        f"    timeout http-request {_time(limits.request_seconds)}",
        f"    timeout http-keep-alive {_time(limits.keep_alive_seconds)}",
        *_forwarded(app),
        f"    use_backend {app.backends[-1]} if {{ req.hdr(Upgrade) -i -m str websocket }}",
        f"    use_backend {app.backends[-1]} if {{ req.hdr(Accept) -i -m sub text/event-stream }}",
    ]
    return [
        f"frontend app:{app.name}:front",
        f"    mode {mode}",
        *(f"    bind fd@{descriptor}" for descriptor in app.public_fds),
        f"    maxconn {limits.max_connections}",
        f"    timeout client {_time(limits.idle_seconds)}",
        *(http if mode == "http" else ()),
        f"    default_backend {app.backends[0]}",
    ]


def _forwarded(app: AppFront) -> list[str]:
    """X-Forwarded headers: a trusted proxy's as they came, else our own in place of whatever the client wrote."""
    ours = [*_FORWARDED, ("X-Forwarded-Port", str(app.public_port))]
    believed = "{ var(txn.relayed) -m bool }"
    trusted = f"{{ src {' '.join(app.trusted)} }} {{ req.hdr(X-Forwarded-For) -m found }}"
    return [
        # A variable: the first rule below changes what the condition looks at.
        *([f"    http-request set-var(txn.relayed) bool(true) if {trusted}"] if app.trusted else []),
        *(f"    http-request set-header {name} {value} unless {believed}" for name, value in ours),
        *(f"    http-request del-header {name} unless {believed}" for name in _CLIENTS_WORD),
    ]


def _backend(machine: Machine, app: AppFront, lines: Lines, name: str, mode: str) -> list[str]:
    limits = app.limits
    return [
        f"backend {name}",
        f"    mode {mode}",
        "    balance roundrobin",
        f"    retries {round(limits.hold_seconds * TRIES_A_SECOND) + _SPARE_TRIES}",
        "    option redispatch 1",
        f"    timeout connect {1000 // TRIES_A_SECOND}ms",
        f"    timeout server {_time(limits.idle_seconds)}",
        f"    timeout tunnel {_time(limits.tunnel_seconds)}",
        *(_http_rules(app, name) if mode == "http" else _tcp_rules(app, name)),
        *_servers(machine, app, lines),
    ]


def _http_rules(app: AppFront, name: str) -> list[str]:
    repeat = [
        "    retry-on conn-failure empty-response",
        # What was sent may have been done. This leaves alone the retries of a connection that was never made.
        "    http-request disable-l7-retry if !METH_GET !{ method OPTIONS }",
    ]
    return [
        # A connection to the app carries one request: kept open, it may be closed by the app just as one is sent.
        "    option http-server-close",
        f"    http-error status 503 content-type text/plain string {_quoted(_NOBODY_SERVES)} hdr Retry-After 1",
        f"    http-request return status 503 default-errorfiles if {_crowded(app, name)}",
        *(repeat if app.repeat else ["    retry-on conn-failure"]),
    ]


def _tcp_rules(app: AppFront, name: str) -> list[str]:
    return [f"    tcp-request content reject if {_crowded(app, name)}"]


def _crowded(app: AppFront, name: str) -> str:
    return f"{{ srv_is_up({name}/{NOBODY}) }} {{ be_conn({name}) gt {app.limits.hold_requests} }}"


def _servers(machine: Machine, app: AppFront, lines: Lines) -> list[str]:
    spoken = " proto h2" if app.wire is Wire.H2C else ""
    made = [
        f"    server {line.name} 127.0.0.1:{line.port} weight {line.weight}{spoken}{'' if line.ready else ' disabled'}"
        for line in lines.servers
    ]
    made.append(f"    server {NOBODY} 127.0.0.1:{machine.nobody_port}{'' if lines.waiting else ' disabled'}")
    if app.hold_socket and app.wire is not Wire.TCP:
        made.append(f"    server {HOLD} {_quoted('unix@' + app.hold_socket)} backup")
    return made


def _quoted(word: str) -> str:
    """One word whatever is in it, as within HAProxy's strong quotes nothing but a quote means anything."""
    return "'" + word.replace("'", "'\\''") + "'"


def _time(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
