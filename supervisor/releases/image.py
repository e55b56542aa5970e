"""What a newer image means for the releases on the volume: decided at the boot, by sequence, and said."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.releases.base import fingerprint
from supervisor.releases.manifest import Manifest, parse_manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.seal import MANIFEST_FILE
from supervisor.releases.tree import RECORDS
from supervisor.store.files import write_atomic


class OnImageChange(StrEnum):
    """Which app is started after the image was changed."""

    NEWEST = "newest"
    VOLUME = "volume"
    IMAGE = "image"


@dataclass(frozen=True)
class Image:
    """The app of an image: a fingerprint of its tree, and the sequence of the release it was made from (0: not known).

    Files written after `until_ns` (nanoseconds since 1970) do not count: apps write some beside their code.

    An image that is made from a release keeps that one's manifest in `.release/manifest.json` of the app's folder.
    """

    fingerprint: str
    sequence: int = 0
    until_ns: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether the image's own app is started from now on, and what to tell; nothing where nothing changed."""

    use_image: bool = False
    told: str = ""


def decide(policy: OnImageChange, image: Image, before: Image | None, active: str, sequence: int) -> Verdict:
    """What is started: `active` is the release on the volume, of `sequence`; `before` the image of the last start."""
    if before is None or image.fingerprint == before.fingerprint:
        return Verdict()
    if policy is OnImageChange.VOLUME:
        return Verdict(
            told=f"the image's app has changed; release {active} stays, as SUPERVISOR_ON_IMAGE_CHANGE asks for"
        )
    if policy is OnImageChange.IMAGE:
        return Verdict(True, f"the image's app has changed and is started instead of release {active}")
    if not image.sequence:
        return Verdict(
            told=f"the image's app has changed, and nothing says whether it is newer than release {active}, which "
            f"stays; set SUPERVISOR_ON_IMAGE_CHANGE=image to start the image's"
        )
    if image.sequence > sequence:
        return Verdict(
            True, f"the image's app (sequence {image.sequence}) is newer than release {active} and is started"
        )
    return Verdict(told=f"the image's app (sequence {image.sequence}) is not newer than release {active}, which stays")


def image_manifest(base: Path) -> Manifest | None:
    """Of the release that the image was made from; None where it does not say that. Blocks."""
    try:
        return parse_manifest((base / RECORDS / MANIFEST_FILE).read_bytes())
    except (OSError, ReleaseError):
        return None


def image_schema(base: Path) -> tuple[int, int]:
    """Level of the image's own app, and the lowest level of code beside it; 0 where it does not say that. Blocks."""
    manifest = image_manifest(base)
    return (manifest.schema_.level, manifest.schema_.min_supported) if manifest is not None else (0, 0)


def read_image(base: Path, until_ns: int) -> Image:
    """The app of this image, up to a moment. Blocks while each of its files is looked at; raises OSError."""
    manifest = image_manifest(base)
    sequence = manifest.sequence if manifest is not None else 0
    return Image(fingerprint(base, until_ns=until_ns) if base.is_dir() else "", sequence, until_ns)


class ImageFile:
    """The image of the last start. Methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Image | None:
        """None where none is known."""
        try:
            return Image(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, image: Image) -> None:
        """Durable; a record that says so already stays, as a start must not need room on the disk. Raises OSError."""
        if self.read() == image:
            return
        write_atomic(self._path, json.dumps(asdict(image)) + "\n")
