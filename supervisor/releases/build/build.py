"""Building a release: look through the folder, pack it, say in a manifest what was packed, sign that."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from supervisor.releases.build.archive import Packed, write_archive
from supervisor.releases.build.collect import Collected, collect
from supervisor.releases.build.compress import SUFFIX
from supervisor.releases.build.deploy_script import deploy_script
from supervisor.releases.build.identity import Moment
from supervisor.releases.build.options import ReleaseOptions
from supervisor.releases.build.output import MANIFEST, SCRIPT, SIGNATURE, open_output
from supervisor.releases.build.refusal import refusal
from supervisor.releases.build.sign import Signer
from supervisor.releases.manifest import FORMAT, Git, Manifest, manifest_bytes, manifest_id
from supervisor.releases.model import Compression, Kind, ReleaseError
from supervisor.releases.signature import claimed_key
from supervisor.releases.tree import tree_digest

NO_GIT = Git()
_PLACEHOLDER = hashlib.sha256().hexdigest()
_MAX_RATIO = 200
_FREE_OF_RATIO = 16 * 1024 * 1024


@dataclass(frozen=True)
class Order:
    """What to build from what, and into which folder. `sequence` of None is the moment's."""

    folder: Path
    output: Path
    options: ReleaseOptions
    app: str
    version: str
    moment: Moment
    sequence: int | None = None
    git: Git = NO_GIT
    compression: Compression = Compression.ZSTD
    key: Path | None = None
    key_password: Path | None = None


@dataclass(frozen=True)
class Built:
    """What was built, and where it lies."""

    release: str
    manifest: Manifest
    output: Path
    key_id: str
    """Of the key it is signed with; empty where it is not."""
    file_count: int
    left_out: int
    secrets: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def archive(self) -> Path:
        """The file to deploy."""
        return self.output / self.manifest.archive.file

    @property
    def script(self) -> Path:
        """What deploys it."""
        return self.output / SCRIPT

    @property
    def files(self) -> tuple[Path, ...]:
        """All that was written."""
        signature = (self.output / SIGNATURE,) if self.key_id else ()
        return (self.archive, self.output / MANIFEST, *signature, self.script)


def build(order: Order) -> Built:
    """Build it; blocks for as long as packing takes. Raises ReleaseError; no file of the output has changed then, but
    where the disk failed at the very end.

    Killed at any moment it leaves files whole or not there; temporary ones go with the next build.
    """
    if os.path.realpath(order.output) == os.path.realpath(order.folder):
        raise ReleaseError(
            f"cannot build a release of {str(order.folder)!r} into itself; name another folder with --output"
        )
    _manifest(order, _EMPTY)  # mistakes in it are told before the long part
    signer = None if order.key is None else Signer.read(order.key, order.key_password)
    collected = collect(
        order.folder, output=order.output, private=_private(order), needed=sorted(order.options.replace)
    )
    with open_output(order.output) as output:
        with output.new_archive(_archive_name(order)) as target:
            packed = write_archive(
                order.folder, collected.entries, target, compression=order.compression, mtime=order.moment.mtime
            )
            manifest = _manifest(order, packed)
            data = manifest_bytes(manifest)
            signature = None if signer is None else signer.sign(data, _comment(manifest))
        output.describe(data, signature, deploy_script())
    return _built(order, manifest, data, signature, collected)


_EMPTY = Packed(_PLACEHOLDER, 0, ())


def _private(order: Order) -> dict[str, Path]:
    files = {"the signing key": order.key, "the signing key's password": order.key_password}
    return {what: place for what, place in files.items() if place is not None}


def _manifest(order: Order, packed: Packed) -> Manifest:
    values = {
        **order.options.as_values(),
        "format": FORMAT,
        "app": order.app,
        "version": order.version,
        "sequence": order.moment.sequence if order.sequence is None else order.sequence,
        "created": order.moment.at,
        "git": order.git,
        "archive": {
            "file": _archive_name(order),
            "sha256": packed.sha256,
            "size": packed.size,
            "compression": order.compression,
        },
        "tree": {
            "digest": tree_digest(packed.entries),
            "bytes": packed.tree_bytes,
            "entries": len(packed.entries),
        },
    }
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, each['loc']))} is {each['input']!r}: {each['msg']}" for each in error.errors()]
        raise refusal(f"build a release of {str(order.folder)!r}", mistakes) from None
    if manifest.expires is not None and manifest.expires <= manifest.created:
        raise ReleaseError(
            f"cannot build a release of {str(order.folder)!r}: it expires at {manifest.expires}, not after its time, "
            f"{manifest.created}; set expires to a later time"
        )
    return manifest


def _archive_name(order: Order) -> str:
    return f"{order.app}-{order.version}{SUFFIX[order.compression]}"


def _comment(manifest: Manifest) -> str:
    return (
        f"timestamp:{int(manifest.created.timestamp())} file:{MANIFEST} "
        f"app:{manifest.app} version:{manifest.version} sequence:{manifest.sequence}"
    )


def _built(order: Order, manifest: Manifest, data: bytes, signature: bytes | None, collected: Collected) -> Built:
    return Built(
        release=manifest_id(manifest, data),
        manifest=manifest,
        output=order.output,
        key_id="" if signature is None else claimed_key(signature),
        file_count=sum(entry.kind is Kind.FILE for entry in collected.entries),
        left_out=collected.left_out,
        secrets=collected.secrets,
        warnings=(*collected.warnings, *_bomb(manifest)),
    )


def _bomb(manifest: Manifest) -> list[str]:
    """Whether it unpacks to so much that it may be taken for a trap."""
    size, unpacked = manifest.archive.size, manifest.tree.bytes
    if unpacked < _FREE_OF_RATIO or unpacked <= _MAX_RATIO * size:
        return []
    return [
        f"it unpacks to {unpacked // size} times its size, and may be refused for that (the limit is {_MAX_RATIO}); "
        f"leave out what is nearly empty"
    ]
