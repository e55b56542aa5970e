"""What a value must be: the kinds, lengths and patterns that an app declares. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from supervisor.core.settings import AppVariable

_TRUTH = frozenset({"true", "false", "1", "0", "yes", "no", "on", "off"})
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(parts.scheme and parts.netloc and parts.port != 0)
    except ValueError:
        return False


def _is_int(value: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,18}", value) is not None


_KINDS: dict[str, tuple[Callable[[str], bool], str]] = {
    "text": (lambda value: True, ""),
    "url": (_is_url, "a URL with scheme and host"),
    "port": (lambda value: _is_int(value) and 1 <= int(value) <= 65535, "a port, 1 to 65535"),
    "int": (_is_int, "a whole number"),
    "bool": (lambda value: value.lower() in _TRUTH, f"one of {', '.join(sorted(_TRUTH))}"),
    "email": (lambda value: _EMAIL.fullmatch(value) is not None, "an e-mail address"),
}


def why_wrong(value: str, rule: AppVariable) -> str:
    """Why `value` is not what `rule` asks for, without the value, which may be a secret; empty where it is."""
    good, wanted = _KINDS[rule.kind]
    if not good(value):
        return f"is not {wanted}"
    if len(value) < rule.min_length:
        return f"has {len(value)} characters; it must have {rule.min_length} or more"
    if rule.pattern is not None and re.search(rule.pattern, value) is None:
        return f"does not match {rule.pattern!r}"
    return ""
