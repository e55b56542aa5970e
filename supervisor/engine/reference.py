"""Image references, in the words people write and in the canonical ones that engines compare."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.errors import ConfigurationError

_HUB = "docker.io"


@dataclass(frozen=True)
class Reference:
    """`[domain/]path[:tag][@digest]`; without tag and digest the tag is `latest`, as everywhere."""

    domain: str
    path: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises ConfigurationError for what can be no image's name."""
        name, _, digest = text.partition("@")
        head, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        name = head + slash + last
        usable = name and not name.endswith("/") and name == name.lower() and not any(map(str.isspace, text))
        if not usable or (digest and ":" not in digest):
            raise ConfigurationError(
                f"cannot use image {text!r}: it is no image reference; "
                "write it as name:tag or registry/name:tag@sha256:..."
            )
        domain, path = _split_domain(name)
        return cls(domain, path, tag or (None if digest else "latest"), digest or None)

    @property
    def repository(self) -> str:
        """The name without tag and digest, as engines show it."""
        if self.domain != _HUB:
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix("library/")

    @property
    def tagged(self) -> str | None:
        """`repository:tag`, or None for a reference by digest alone."""
        return f"{self.repository}:{self.tag}" if self.tag else None

    @property
    def text(self) -> str:
        """What an engine is asked for: the digest where there is one, as it wins over a tag."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def _split_domain(name: str) -> tuple[str, str]:
    """As Docker reads it: the first part is a domain only with a dot or a port in it, or as `localhost`."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        domain, path = first.replace("index.docker.io", _HUB), rest
    else:
        domain, path = _HUB, name
    return domain, f"library/{path}" if domain == _HUB and "/" not in path else path
