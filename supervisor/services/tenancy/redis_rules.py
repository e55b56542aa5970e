"""What an app may do in a Redis it shares: a user of its own, its keys and channels by prefix. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.names import role_name

OLDEST = (6, 2)
"""Before it channels have no rules: who may publish at all could read and write everybody's."""
_KINDS = ("keyspace", "string", "hash", "list", "set", "sortedset", "stream", "bitmap", "hyperloglog", "geo")
# An allowed list, so that neither a module's commands (a search goes past the keys' rules) nor those of a Redis to come
# are in it. -@dangerous takes KEYS, SORT (its BY and GET read any key), FLUSHALL, FLUSHDB, SWAPDB, MIGRATE and RESTORE;
# SCAN and RANDOMKEY tell everybody's keys, too. Of the scripts' commands those are left out that end or change
# another's (SCRIPT FLUSH and KILL, FUNCTION, which all share), of the connection's CLIENT LIST and KILL, and CLIENT
# TRACKING, whose broadcasts name every key that changes. SELECT is let through: the prefix holds in each database.
_COMMANDS = (
    "-@all",
    *(f"+@{kind}" for kind in _KINDS),
    *("+@transaction", "-@admin", "-@dangerous", "-scan", "-randomkey"),
    *("+eval", "+evalsha", "+script|load", "+script|exists"),
    *("+publish", "+subscribe", "+psubscribe", "+unsubscribe", "+punsubscribe", "+pubsub|numsub"),
    *("+auth", "+hello", "+ping", "+echo", "+reset", "+select", "+command", "+time", "+wait"),
    *("+client|setname", "+client|getname", "+client|id", "+client|reply", "+memory|usage"),
    # Queues ask it for the version before anything else; it tells counts and sizes of the server, no key.
    "+info",
)
_LATER: Mapping[tuple[int, int], tuple[str, ...]] = {
    (7, 0): ("+quit", "+eval_ro", "+evalsha_ro", "+spublish", "+ssubscribe", "+sunsubscribe", "+client|info"),
    (7, 2): ("+client|setinfo",),
}
_GLOB = re.compile(r"([*?\[\]\\^])")


@dataclass(frozen=True)
class Keys:
    """One app's part of Redis, as `[apps.NAME] redis` says it."""

    app: str
    prefix: str = ""

    @property
    def start(self) -> str:
        """What each of its keys and channels begins with."""
        return self.prefix or f"{self.app}:"


@dataclass(frozen=True, kw_only=True)
class RedisWish:
    """Every user there should be. `passwords` are those that shall be good, by app: two while one is being changed."""

    stack: str
    apps: tuple[Keys, ...]
    passwords: Mapping[str, Sequence[Secret]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.apps:
            if re.search(r"[\s\0]", one.start):
                raise ConfigurationError(
                    f"cannot give app {one.app!r} the Redis prefix {one.start!r}: it has a space; choose another"
                )
            for other in self.apps:
                if one is not other and other.start.startswith(one.start):
                    raise ConfigurationError(
                        f"cannot keep the apps {one.app!r} and {other.app!r} apart in Redis: the prefix "
                        f"{other.start!r} begins with {one.start!r}; end each with a sign of its own, such as `:`"
                    )

    def user(self, app: str) -> str:
        """The user an app logs in as: named as its role in Postgres is."""
        return role_name(self.stack, app)


def user_rules(wish: RedisWish, keys: Keys, *, version: tuple[int, int] = OLDEST) -> tuple[str, ...]:
    """The rules of ACL SETUSER for an app's user, whole, on a server of that version; no password is in them."""
    start = _GLOB.sub(r"\\\1", keys.start)
    later = (rule for since, rules in _LATER.items() if version >= since for rule in rules)
    hashes = (f"#{password_hash(password)}" for password in wish.passwords.get(keys.app, ()))
    # Redis 6.2 lets a new user have all channels; then one by name is an error.
    return ("reset", "resetchannels", "on", *hashes, f"~{start}*", f"&{start}*", *_COMMANDS, *later)


def password_hash(password: Secret) -> str:
    """As Redis keeps it."""
    return hashlib.sha256(password.reveal().encode()).hexdigest()


def config_lines(wish: RedisWish) -> tuple[str, ...]:
    """The users as lines of redis.conf: there from the first moment of a server that is started again."""
    return tuple(f"user {wish.user(keys.app)} {' '.join(user_rules(wish, keys))}" for keys in wish.apps)


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of what INFO calls redis_version; Valkey and FalkorDB say there which Redis they are like."""
    numbers = [int(number) for number in re.findall(r"\d+", text)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def forbidden_words(own: str, other: str) -> tuple[tuple[str, ...], ...]:
    """Commands that an app must be refused; `own` and `other` begin its own keys and another's."""
    key, mine = f"{other}supervisor:check", f"{own}supervisor:check"
    return (
        ("GET", key),
        ("SET", key, "1"),
        ("DEL", key),
        ("XADD", key, "*", "a", "b"),
        ("COPY", key, mine),
        ("COPY", mine, key),
        ("RENAME", mine, key),
        ("SUBSCRIBE", key),
        ("PUBLISH", key, "1"),
        ("PSUBSCRIBE", "*"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("RANDOMKEY",),
        ("SORT", mine, "BY", "*"),
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("SWAPDB", "0", "1"),
        ("CONFIG", "GET", "*"),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "TRACKING", "on", "BCAST"),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "default", "nopass"),
        ("SCRIPT", "FLUSH"),
        ("PUBSUB", "CHANNELS"),
        ("SLOWLOG", "GET"),
        ("SAVE",),
    )


def allowed_words(own: str) -> tuple[tuple[str, ...], ...]:
    """Commands that an app must be able to run."""
    mine = f"{own}supervisor:check"
    return (
        ("GET", mine),
        ("SET", mine, "1"),
        ("DEL", mine),
        ("XADD", mine, "*", "a", "b"),
        ("LPUSH", mine, "1"),
        ("PUBLISH", mine, "1"),
        ("SUBSCRIBE", mine),
        ("EVAL", "return 1", "0"),
        ("INFO",),
        ("PING",),
    )
