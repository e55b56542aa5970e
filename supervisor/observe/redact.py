"""Keeps secrets out of everything that is printed or handed out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from supervisor.core.secret import Secret

MASK = "***"
_LEAST_LENGTH = 8
_LEAST_WORD_LENGTH = 16
_URL_PASSWORD = re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+@")


class Redactor:
    """Masks `Secret` values, registered strings, and the password of any URL.

    A registered string shorter than 8 characters, or of letters only and shorter than 16, cannot be told from ordinary
    words (`postgres` is a common password): it is masked inside URLs alone. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def register_secret(self, value: str | Secret) -> None:
        """From now on mask `value`, and, where it is a URL, the password in it; also percent-encoded."""
        text = value.reveal() if isinstance(value, Secret) else value
        if "://" in text and (password := _password(text)):
            self.register_secret(unquote(password))
        if len(text) < _LEAST_LENGTH or (text.isalpha() and len(text) < _LEAST_WORD_LENGTH):
            return
        self._secrets |= {text, quote(text, safe="")}
        # The longest first: one secret may hold another (a DSN its password).
        longest_first = sorted(self._secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(secret) for secret in longest_first))

    def text(self, text: str) -> str:
        """`text` without its secrets."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _URL_PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text else text

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
