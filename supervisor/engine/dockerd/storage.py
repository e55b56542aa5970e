"""Which storage driver a data root takes, or why it takes none: by what is in it, and by trying a real mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import mounts
from supervisor.engine.dockerd.mounts import Mount

# The folders that graph drivers make below the data root; more than one with content makes dockerd refuse to start.
DRIVERS = ("overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs", "overlay", "aufs", "devicemapper")
REFUSED = frozenset({"tmpfs", "ramfs", "nfs", "nfs4", "cifs", "smb3", "9p", "squashfs", "iso9660"})
LEAST_BYTES = 256 * 1024 * 1024
LOW_BYTES = 2 * 1024 * 1024 * 1024
LEAST_FILES = 1000
_VOLUME = "give it a volume on the host's disk: docker run -v dokploy-docker:{root}"


@dataclass(frozen=True)
class StorageFacts:
    """`prior` are drivers with state in the root; `overlay_error` is empty where an overlay could be mounted there.

    `free_files` is None on file systems that do not count them.
    """

    root: str
    kind: str
    read_only: bool
    free_bytes: int
    free_files: int | None
    prior: tuple[str, ...]
    overlay_error: str
    has_fuse_overlay: bool = False


@dataclass(frozen=True)
class StorageChoice:
    """The driver, and what must be said loudly about it."""

    driver: str
    warnings: tuple[str, ...] = ()


def decide(facts: StorageFacts, *, allow_layer: bool) -> StorageChoice:
    """The driver for this root; `allow_layer` accepts data that dies with the container. Raises E23."""
    _require_usable(facts)
    _require_space(facts)
    warnings = list(_space_warnings(facts))
    if facts.kind == "overlay":
        if not allow_layer:
            raise _unsuitable(
                facts,
                "it lies in the container's own layer, so all images, volumes and databases would end with it "
                "(SUPERVISOR_ALLOW_LAYER_DATA=1 accepts that)",
            )
        warnings.append(
            f"DATA WILL BE LOST: {facts.root!r} lies in the container's own layer, and everything in it ends with "
            f"this container; it is slow, too; {_VOLUME.format(root=facts.root)}"
        )
    return StorageChoice(facts.prior[0] if facts.prior else _fresh_driver(facts), tuple(warnings))


def _require_usable(facts: StorageFacts) -> None:
    if facts.kind in REFUSED:
        why = "it does not outlive the container" if facts.kind in ("tmpfs", "ramfs") else "overlays do not work on it"
        raise _unsuitable(facts, f"it is on {facts.kind}: {why}")
    if facts.read_only:
        raise _unsuitable(facts, f"its file system ({facts.kind}) is mounted read-only")
    if len(facts.prior) > 1:
        raise EngineError(
            "E23",
            f"cannot use data root {facts.root!r}: it holds state of several storage drivers "
            f"({', '.join(facts.prior)}), and dockerd refuses that; move the folders of all but one away "
            f"(the images of the others are lost, volumes are not), or choose another data root",
        )


def _require_space(facts: StorageFacts) -> None:
    if facts.free_bytes < LEAST_BYTES:
        raise _unsuitable(facts, f"only {_mib(facts.free_bytes)} are free, {_mib(LEAST_BYTES)} is the least", full=True)
    if facts.free_files is not None and facts.free_files < LEAST_FILES:
        raise _unsuitable(facts, f"only {facts.free_files} more files can be made (no free inodes)", full=True)


def _space_warnings(facts: StorageFacts) -> Iterable[str]:
    if facts.free_bytes < LOW_BYTES:
        yield f"data root {facts.root!r} has only {_mib(facts.free_bytes)} left"


def _fresh_driver(facts: StorageFacts) -> str:
    """On an empty root. A graph driver in each case: they are the ones that every engine from 20.10 on knows."""
    if not facts.overlay_error:
        return "overlay2"
    if facts.kind in ("btrfs", "zfs"):
        return facts.kind
    if facts.kind == "overlay":
        return "fuse-overlayfs" if facts.has_fuse_overlay else "vfs"
    raise _unsuitable(facts, f"no overlay can be mounted on its file system ({facts.kind}): {facts.overlay_error}")


def _unsuitable(facts: StorageFacts, why: str, *, full: bool = False) -> EngineError:
    mend = "free some, or " if full else ""
    return EngineError("E23", f"cannot use data root {facts.root!r}: {why}; {mend}{_VOLUME.format(root=facts.root)}")


def _mib(count: int) -> str:
    return f"{count // (1024 * 1024)} MiB"


def read_facts(root: Path, table: Sequence[Mount], *, search_path: str) -> StorageFacts:
    """Look and try; `root` must exist. Blocks on the disk. Raises OSError where the root cannot be read at all."""
    real = root.resolve()
    holder = mounts.mount_of(real, table)
    space = os.statvfs(real)
    kind = holder.kind if holder is not None else "unknown"
    read_only = holder is not None and holder.read_only
    prior = find_prior(real)
    hopeless = kind in REFUSED or read_only
    return StorageFacts(
        root=str(root),
        kind=kind,
        read_only=read_only,
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        prior=prior,
        overlay_error="not tried" if hopeless or prior else try_overlay(real),
        has_fuse_overlay=os.path.exists("/dev/fuse") and shutil.which("fuse-overlayfs", path=search_path) is not None,
    )


def find_prior(root: Path) -> tuple[str, ...]:
    """Drivers whose folder has content, as dockerd itself looks for them."""
    return tuple(driver for driver in DRIVERS if _has_content(root / driver))


def _has_content(folder: Path) -> bool:
    # An unused overlay2 folder still holds its empty `l`, which dockerd leaves at every first start.
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except OSError:
        return False
    return bool(names - {"l"}) if folder.name == "overlay2" else bool(names)


def try_overlay(root: Path) -> str:
    """Mount a real overlay in the root and write through it; gives what failed, empty when it works."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".overlay-probe-", dir=root))
    except OSError as error:
        return error.strerror or str(error)
    try:
        return _try_overlay_in(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _try_overlay_in(place: Path) -> str:
    parts = {name: place / name for name in ("lower", "upper", "work", "merged")}
    options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
    try:
        for folder in parts.values():
            folder.mkdir()
        mounts.mount("overlay", parts["merged"], "overlay", options=options)
    except OSError as error:
        return error.strerror or str(error)
    try:
        (parts["merged"] / "probe").write_text("")
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            mounts.unmount(parts["merged"])
    return ""
