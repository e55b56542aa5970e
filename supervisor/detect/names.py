"""What the name of a variable says: its kind, a value that an app may take for real, and whose it is. Pure."""

from __future__ import annotations

import re

from supervisor.detect.model import Kind, Plain

_CLOSED = "127.0.0.1:9"
"""Nobody listens there: the discard port. The app learns so at once."""
_URLS = (
    (r"REDIS|VALKEY|CACHE|BULL|CELERY", f"redis://{_CLOSED}/0"),
    (r"DATABASE|POSTGRES|PG|DB|SQL", f"postgres://user:password@{_CLOSED}/database"),
    (r"MONGO", f"mongodb://{_CLOSED}/database"),
    (r"AMQP|RABBIT|BROKER", f"amqp://{_CLOSED}"),
    (r"SMTP|MAIL", f"smtp://{_CLOSED}"),
)
_SQL_DIALECTS = ((r"MYSQL|MARIA", f"mysql://user:password@{_CLOSED}/database"),)
_PORT = "39127"
_DUMMIES = {Kind.PORT: _PORT, Kind.INT: "10", Kind.BOOL: "true", Kind.EMAIL: "user@example.com"}
_KINDS = (
    (Kind.URL, r"(^|_)(URL|URI|DSN|ORIGIN)$"),
    (Kind.PORT, r"(^|_)PORT$"),
    (Kind.EMAIL, r"(^|_)EMAIL$"),
    (Kind.INT, r"_(SECONDS|MS|MINUTES|HOURS|DAYS|BYTES|COUNT|LIMIT|SIZE|TIMEOUT|TTL|WORKERS|RETRIES|CONCURRENCY)$"),
    (Kind.BOOL, r"^(ENABLE|DISABLE|IS|USE|ALLOW)_|_(ENABLED|DISABLED)$|^DEBUG$"),
)
_TYPES = {"int": Kind.INT, "bool": Kind.BOOL, "EmailStr": Kind.EMAIL}
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|PRIVATE|(^|_)(API)?KEYS?(_|$)|(^|_)PWD|SALT")
_FILE = "/proc/version"  # a file that is there, with some text, whatever an app makes of it
_SECRET_VALUE = "0123456789abcdef" * 4  # 64 hexadecimal digits: long enough, and base64 as well
_RUNTIME = re.compile(
    r"(PATH|HOME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TMP|TEMP|USER|LOGNAME|SHELL|PWD|TERM|COLORTERM|NO_COLOR|FORCE_COLOR"
    r"|NODE_(?!ENV$)\w+|UV_\w+|npm_\w+|NPM_\w+|PYTHON\w+|LD_\w+|XDG_\w+|SSL_CERT_\w+|(HTTPS?|NO|ALL)_PROXY"
    r"|https?_proxy|no_proxy|all_proxy|VIRTUAL_ENV|COLUMNS|LINES|TSX_\w+|ESBUILD_\w+|SUPERVISOR_\w+)$"
)


def is_runtimes(name: str) -> bool:
    """Whether every program on the system has it, whoever reads it."""
    return _RUNTIME.match(name) is not None


def is_secret(name: str) -> bool:
    """Whether a value or a default of it must not be shown."""
    return _SECRET.search(name.upper()) is not None and kind_of(name) is not Kind.URL


def kind_of(name: str, type_name: str = "", default: Plain | None = None) -> Kind:
    """The kind by what the code says, then by the name, then by the default."""
    upper = name.upper()
    if type_name.endswith(("Url", "Dsn")):
        return Kind.URL
    named = next((kind for kind, pattern in _KINDS if re.search(pattern, upper)), None)
    if named is Kind.PORT or (named is not None and type_name not in _TYPES):
        return named
    if type_name in _TYPES:
        return _TYPES[type_name]
    if isinstance(default, bool) or default in ("true", "false"):
        return Kind.BOOL
    return Kind.INT if isinstance(default, int) else Kind.TEXT


def dummy(name: str, type_name: str = "", default: Plain | None = None) -> str:
    """A value that lets an app go on which only wants one: well-formed, of no use, leading nowhere."""
    kind = kind_of(name, type_name, default)
    if kind is Kind.URL:
        patterns = (*_SQL_DIALECTS, *_URLS)
        return next((url for pattern, url in patterns if re.search(pattern, name.upper())), f"http://{_CLOSED}")
    if kind is Kind.TEXT:
        if name.upper().endswith("_FILE"):
            return _FILE
        if name.upper().endswith(("HOST", "HOSTNAME")):
            return "127.0.0.1"
        return _SECRET_VALUE if is_secret(name) else "detect"
    return _DUMMIES[kind]
