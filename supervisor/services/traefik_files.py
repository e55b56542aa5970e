"""Traefik's files: the static one, the routes, the middlewares; text from plain values, and their writing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import Settings, variable
from supervisor.store.files import Generated, make_folder, write_generated

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_MAX_HOST = 253
ANY_HOST = "*"
_YEAR_SECONDS = 31_536_000

READY_PATH = "/supervisor-ready"
CERT_COPY = "certs/cert.pem"
KEY_COPY = "certs/key.pem"


@dataclass(frozen=True)
class AppRoute:
    """The way to one app: the router's and service's name, the app's URL, and for which host."""

    name: str
    upstream: str
    host: str = ANY_HOST


def routed_host(settings: Settings, app: str) -> str | None:
    """For which host requests go to `app`: a name, `*` for any, None where none go there.

    One app alone gets what no host is named for. Of several each has its own, or `*`, or is not for the outside.
    """
    host = settings.for_app(app).app_host
    if host is None:
        return ANY_HOST if len(settings.app_names) == 1 else None
    return host


def routes_of(settings: Settings, address: str) -> tuple[AppRoute, ...]:
    """The routes to all apps, whose public ports Traefik reaches at `address`."""
    names = settings.app_names
    found: list[AppRoute] = []
    for app in names:
        host = routed_host(settings, app)
        if host is not None:
            name = settings.stack if len(names) == 1 else f"{settings.stack}-{app}"
            found.append(AppRoute(name, f"http://{address}:{settings.for_app(app).port}", host))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class TraefikOptions:
    """What the files depend on. `http_port` and `https_port` are what Traefik listens on.

    `private_address` is where ping and dashboard listen, empty for all of a container's own addresses.
    `public_https_port` is what clients use where that is another port. `seen_as` is the folder's path as Traefik sees
    it, where the files are copied to it: it keeps its store of certificates there itself then.
    `dashboard_port` None leaves the dashboard off. Certificates come from `acme_email` or from both files.
    """

    folder: Path
    stack: str
    routes: tuple[AppRoute, ...]
    http_port: int
    https_port: int
    ping_port: int
    private_address: str = "127.0.0.1"
    public_https_port: int | None = None
    seen_as: Path | None = None
    dashboard_port: int | None = None
    acme_email: str | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def https(self) -> bool:
        """Whether there is a certificate worth redirecting to."""
        return self.acme_email is not None or self.cert_file is not None

    @property
    def static_file(self) -> Path:
        """What Traefik is started with."""
        return self.folder / "traefik.yml"

    @property
    def dynamic_folder(self) -> Path:
        """The folder Traefik watches; routes of the user's own go here."""
        return self.folder / "dynamic"

    @property
    def acme_file(self) -> Path:
        """Certificates and account key; outside the watched folder, which Traefik would try to read whole."""
        return self.folder / "acme" / "acme.json"

    @property
    def certificate(self) -> tuple[Path, Path] | None:
        """The user's own, certificate and key, as Traefik sees them; None without one."""
        if self.cert_file is None or self.key_file is None:
            return None
        if self.seen_as is None:
            return self.cert_file, self.key_file
        return self.seen_as / CERT_COPY, self.seen_as / KEY_COPY

    def as_seen(self, path: Path) -> Path:
        """A path below the folder as Traefik sees it."""
        return path if self.seen_as is None else self.seen_as / path.relative_to(self.folder)


def write(options: TraefikOptions) -> list[Generated]:
    """Folders first, then every file; gives what became of each. Raises ConfigurationError for unusable values."""
    _check_certificate(options)
    texts = {
        options.static_file: static_text(options),
        options.dynamic_folder / "middlewares.yml": middlewares_text(options),
        options.dynamic_folder / "ready.yml": ready_text(),
        options.dynamic_folder / f"{options.stack}.yml": routes_text(options),
    }
    make_folder(options.folder, mode=0o755)
    make_folder(options.dynamic_folder, mode=0o755)
    if options.acme_email is not None and options.seen_as is None:
        _make_acme_file(options.acme_file)
    return [write_generated(path, text) for path, text in texts.items()]


def static_text(options: TraefikOptions) -> str:
    """Entry points and providers; a change here needs a restart of Traefik."""
    lines = [
        "global:",
        "  checkNewVersion: false",
        "  sendAnonymousUsage: false",
        "log:",
        "  level: WARN",
        "entryPoints:",
        "  web:",
        f"    address: {_quoted(f':{options.http_port}')}",
        "  websecure:",
        f"    address: {_quoted(f':{options.https_port}')}",
        "  ping:",
        f"    address: {_quoted(f'{options.private_address}:{options.ping_port}')}",
    ]
    if options.dashboard_port is not None:
        lines += ["  traefik:", f"    address: {_quoted(f'{options.private_address}:{options.dashboard_port}')}"]
        # `insecure` only means: on the entry point `traefik`, which is loopback's, or the container's own network's.
        lines += ["api:", "  dashboard: true", "  insecure: true"]
    lines += [
        "ping:",
        "  entryPoint: ping",
        "providers:",
        "  providersThrottleDuration: 100ms",
        "  file:",
        f"    directory: {_quoted(str(options.as_seen(options.dynamic_folder)))}",
        "    watch: true",
    ]
    if options.acme_email is not None:
        lines += [
            "certificatesResolvers:",
            "  letsencrypt:",
            "    acme:",
            f"      email: {_quoted(options.acme_email)}",
            f"      storage: {_quoted(str(options.as_seen(options.acme_file)))}",
            "      httpChallenge:",
            "        entryPoint: web",
        ]
    return _joined(lines)


def ready_text() -> str:
    """A route that is there once the files of the dynamic folder are loaded: `/ping` alone is answered before that."""
    return _joined(
        [
            "http:",
            "  routers:",
            '    "supervisor-ready":',
            f"      rule: {_quoted(f'Path(`{READY_PATH}`)')}",
            "      entryPoints:",
            "        - ping",
            '      service: "ping@internal"',
        ]
    )


def routes_text(options: TraefikOptions) -> str:
    """The routes to the apps: plain and TLS; with a certificate the plain one only redirects.

    Without one the TLS route still answers, with the certificate Traefik makes up.
    """
    if not options.routes:
        return _joined(_certificate_lines(options))
    lines = ["http:", "  routers:"]
    for route in options.routes:
        lines += _router_lines(route, options)
    lines.append("  services:")
    for route in options.routes:
        lines += [
            f"    {_quoted(route.name)}:",
            "      loadBalancer:",
            "        passHostHeader: true",
            "        servers:",
            f"          - url: {_quoted(route.upstream)}",
        ]
    return _joined(lines + _certificate_lines(options))


def _router_lines(route: AppRoute, options: TraefikOptions) -> list[str]:
    rule = f"      rule: {_quoted(rule_of(route.host))}"
    plain = "redirect-to-https" if options.https else "security-headers"
    lines: list[str] = []
    for name, entry_point, middleware in (
        (f"{route.name}-web", "web", plain),
        (f"{route.name}-websecure", "websecure", "security-headers"),
    ):
        lines += [f"    {_quoted(name)}:", rule, "      entryPoints:", f"        - {entry_point}"]
        lines += ["      middlewares:", f"        - {middleware}", f"      service: {_quoted(route.name)}"]
    return lines + (["      tls:", "        certResolver: letsencrypt"] if options.acme_email else ["      tls: {}"])


def _certificate_lines(options: TraefikOptions) -> list[str]:
    """The user's own certificate, also for clients that name no host, or another one."""
    if options.certificate is None:
        return []
    cert, key = (_quoted(str(path)) for path in options.certificate)
    return [
        "tls:",
        "  certificates:",
        f"    - certFile: {cert}",
        f"      keyFile: {key}",
        "  stores:",
        "    default:",
        "      defaultCertificate:",
        f"        certFile: {cert}",
        f"        keyFile: {key}",
    ]


def middlewares_text(options: TraefikOptions) -> str:
    """Middlewares by the names that routes of the user's own rely on."""
    https_port = options.public_https_port or options.https_port
    lines = [
        "http:",
        "  middlewares:",
        "    redirect-to-https:",
        "      redirectScheme:",
        "        scheme: https",
        # Browsers keep a permanent redirect for good; on a stand-in port that would outlive the port.
        f"        permanent: {'true' if https_port == 443 else 'false'}",
        *([] if https_port == 443 else [f"        port: {_quoted(str(https_port))}"]),
        "    security-headers:",
        "      headers:",
        "        contentTypeNosniff: true",
        "        customFrameOptionsValue: SAMEORIGIN",
        "        referrerPolicy: strict-origin-when-cross-origin",
    ]
    if options.https:
        lines.append(f"        stsSeconds: {_YEAR_SECONDS}")
    return _joined(lines)


def rule_of(host: str) -> str:
    """The router's rule. Raises ConfigurationError for a host that is none: it stands between backticks in a rule."""
    if host == ANY_HOST:
        return "PathPrefix(`/`)"
    if len(host) > _MAX_HOST or not _HOST.fullmatch(host):
        raise ConfigurationError(
            f"cannot route to {variable('app_host')} {host!r}: not a host name; give the name alone, without scheme, "
            f"port or path, and international names in their xn-- form"
        )
    return f"Host(`{host}`)"


def _quoted(value: str) -> str:
    """A JSON string, which is a YAML one as well: nothing in it can end it."""
    if any(ord(character) < 32 or 0x7F <= ord(character) <= 0x9F for character in value):
        raise ConfigurationError(f"cannot write {value!r} into Traefik's files: it has control characters in it")
    return json.dumps(value, ensure_ascii=False)


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _check_certificate(options: TraefikOptions) -> None:
    """Traefik itself would only log it and serve a made-up certificate."""
    for field, path in (("tls_cert_file", options.cert_file), ("tls_key_file", options.key_file)):
        if path is None:
            continue
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {variable(field)} {str(path)!r}: {error.strerror}; correct the path or its mode"
            ) from error
        if b"-----BEGIN " not in text:
            raise ConfigurationError(f"cannot use {variable(field)} {str(path)!r}: it is not PEM; convert it first")


def _make_acme_file(path: Path) -> None:
    """Traefik leaves certificates out, with no more than a line in its log, unless the file is 0600."""
    make_folder(path.parent, mode=0o700)
    try:
        if path.is_dir():
            path.rmdir()
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make {str(path)!r}, where certificates are kept: {error.strerror}; move away what is there"
        ) from error
