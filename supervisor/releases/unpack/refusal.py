"""The one error of this room, and how a name from an archive is shown in it."""

from __future__ import annotations

from supervisor.releases.model import ReleaseError

BUILD_AGAIN = "build the release again"
SEND_AGAIN = "copy the archive here again, and build the release again if that does not help"
_SHOWN_CHARACTERS = 120


def refusal(what: str, advice: str = BUILD_AGAIN) -> ReleaseError:
    """The error to raise: what is wrong, at which entry or byte, and what to do."""
    return ReleaseError(f"cannot unpack the archive: {what}; {advice}")


def shown(name: str) -> str:
    """A name quoted for an error text: cut, and without what a terminal or a log would stumble over."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")
