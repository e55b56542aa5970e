"""Keeps secrets out of everything that is printed or handed out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from supervisor.core.secret import Secret

MASK = "***"
_LEAST_LENGTH = 8
_LEAST_WORD_LENGTH = 16
_AROUND_BYTES = 4 * 1024
_URL_PASSWORD = re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+@")
_URL_PASSWORD_BYTES = re.compile(_URL_PASSWORD.pattern.encode())


class Redactor:
    """Masks `Secret` values, registered strings, and the password of any URL.

    A registered string shorter than 8 characters, or of letters only and shorter than 16, cannot be told from ordinary
    words (`postgres` is a common password): it is masked inside URLs alone. Safe to use from several threads.
    """

    def __init__(self) -> None:
        # Longest first: one secret may hold another (a DSN its password).
        self._secrets: tuple[str, ...] = ()
        self._pattern: re.Pattern[str] | None = None
        self._bytes_pattern: re.Pattern[bytes] = _URL_PASSWORD_BYTES

    def register_secret(self, value: str | Secret) -> None:
        """From now on mask `value`, and, where it is a URL, the password in it; also percent-encoded, as JSON has it,
        and each line of a long one (a key in PEM), as output comes line by line.
        """
        text = value.reveal() if isinstance(value, Secret) else value
        if "://" in text and (password := _password(text)):
            self.register_secret(unquote(password))
        if len(text) < _LEAST_LENGTH or (text.isalpha() and len(text) < _LEAST_WORD_LENGTH):
            return
        forms = {text, quote(text, safe=""), *(json.dumps(text, ensure_ascii=plain)[1:-1] for plain in (True, False))}
        lines = {line for line in text.splitlines() if len(line) >= _LEAST_WORD_LENGTH and "-----" not in line}
        if {*forms, *lines} <= set(self._secrets):
            return
        self._secrets = tuple(sorted({*self._secrets, *forms, *lines}, key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self._secrets)))
        found = b"|".join(re.escape(secret.encode(errors="replace")) for secret in self._secrets)
        self._bytes_pattern = re.compile(found + b"|" + _URL_PASSWORD_BYTES.pattern)

    def text(self, text: str) -> str:
        """`text` without its secrets."""
        # Looking for each by itself is ten times as fast as the pattern, and most lines of a flood hold none.
        if self._pattern is not None and any(secret in text for secret in self._secrets):
            text = self._pattern.sub(MASK, text)
        return _URL_PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text else text

    def keep_whole(self, line: bytes, cut: int) -> int:
        """The place, `cut` or before it, where `line` can be cut in two without a secret in both halves.

        Looks at 4 KiB on either side: a longer secret is not seen.
        """
        start = max(0, cut - _AROUND_BYTES)
        for match in self._bytes_pattern.finditer(line, start, cut + _AROUND_BYTES):
            if match.start() < cut < match.end():
                return match.start()
        return cut

    def value(self, value: Any) -> Any:
        """A JSON-like value with every string in it masked; keys stay as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""
