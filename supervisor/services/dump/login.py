"""How Postgres' programs log in: a URL without the password for their arguments, the password in their environment."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret

# Names of libpq's own that matter to a dump. What else a URL may hold are settings of a session (`search_path`), or of
# a driver (Prisma's `schema`): pg_dump would refuse the URL for them.
_KNOWN = frozenset(
    {
        *("host", "hostaddr", "port", "dbname", "user", "options", "connect_timeout", "passfile", "service"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding", "require_auth", "requirepeer"),
        *("gssencmode", "gsslib", "krbsrvname", "target_session_attrs", "load_balance_hosts", "tcp_user_timeout"),
    }
)


@dataclass(frozen=True)
class Login:
    """`url` may be seen by everybody, `environ` by the one child that gets it."""

    url: str
    environ: dict[str, str]


def login_of(dsn: Secret) -> Login:
    """From a URL with a password. Raises ConfigurationError for one that cannot be taken apart."""
    try:
        parts = urlsplit(dsn.reveal())
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    except ValueError:
        raise _unfit("it cannot be taken apart") from None
    options = parse_qsl(parts.query, keep_blank_values=True)
    named = dict(options)
    if "sslpassword" in named:
        raise _unfit("it has an `sslpassword`, which pg_dump takes from its arguments only; use a key without one")
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{user}@{host}" if user else host
    # libpq does not read a `+` as a space, so what was decoded is encoded in full.
    query = urlencode([each for each in options if each[0] in _KNOWN], quote_via=quote)
    secret = named.get("password") or unquote(password)
    # Put together by hand: urlunsplit leaves the slashes out where there is no host (a unix socket).
    url = f"{parts.scheme}://{netloc}{urlunsplit(('', '', parts.path, query, ''))}"
    return Login(url, {"PGPASSWORD": secret} if secret else {})


def _unfit(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot save the database: DATABASE_URL is unfit for pg_dump: {why}; correct it, or save the database "
        f"yourself and build the release without `migrations.snapshot`"
    )
