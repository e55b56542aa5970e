"""A folder of image archives made by `docker save`, baked into or mounted beside our own image."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.engine.reference import Reference

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LISTS = ("manifest.json", "index.json")
_MAX_LIST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Archive:
    """One tar: the names of the images in it, canonical as `Reference.tagged`, and the digests it tells."""

    path: Path
    names: frozenset[str]
    digests: frozenset[str]

    def holds(self, reference: Reference) -> bool:
        """Whether it has this image; a digest must be told by the archive, a tag alone proves nothing then."""
        if reference.digest is not None:
            return reference.digest in self.digests
        return reference.tagged in self.names


@dataclass(frozen=True)
class Folder:
    """What was found: archives, and the files that could not be read as such, with the reason."""

    archives: tuple[Archive, ...]
    unreadable: tuple[str, ...]

    def find(self, reference: Reference) -> Archive | None:
        """The first archive, by name of its file, that holds the image."""
        return next((archive for archive in self.archives if archive.holds(reference)), None)


def read_folder(folder: Path) -> Folder:
    """Look into every archive of a folder; blocks (a compressed one is read through). Raises ConfigurationError."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read image folder {str(folder)!r}: {error.strerror}; "
            "mount the folder with the archives there, or unset SUPERVISOR_IMAGES_DIR"
        ) from error
    archives: list[Archive] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            archives.append(read_archive(path))
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            unreadable.append(f"{path.name}: {error}")
    return Folder(tuple(archives), tuple(unreadable))


def read_archive(path: Path) -> Archive:
    """The lists of an archive. Raises OSError, tarfile.TarError, EOFError, or ValueError where there is no list."""
    lists: dict[str, Any] = {}
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.name in _LISTS and member.isfile() and member.size <= _MAX_LIST_BYTES:
                file = tar.extractfile(member)
                lists[member.name] = json.load(file) if file is not None else None
            if len(lists) == len(_LISTS):
                break
    if not lists:
        raise ValueError("it has neither manifest.json nor index.json, so `docker save` did not make it")
    names, digests = parse_lists(lists.get("manifest.json"), lists.get("index.json"))
    return Archive(path, names, digests)


def parse_lists(manifest: Any, index: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Names and digests out of Docker's own list and the OCI layout's; either may be missing (None)."""
    names: set[str] = set()
    digests: set[str] = set()
    for image in _objects(manifest):
        names.update(_canonical(image.get("RepoTags")))
    for descriptor in _objects(index.get("manifests") if isinstance(index, Mapping) else None):
        digests.update({str(descriptor["digest"])} if "digest" in descriptor else ())
        annotation = (descriptor.get("annotations") or {}).get("io.containerd.image.name")
        names.update(_canonical([annotation]))
    return frozenset(names), frozenset(digests)


def _objects(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []


def _canonical(names: Iterable[Any] | None) -> set[str]:
    found: set[str] = set()
    for name in names or ():
        try:
            tagged = Reference.parse(name).tagged if isinstance(name, str) else None
        except ConfigurationError:
            continue
        found |= {tagged} if tagged else set()
    return found
