"""The manifest: all that is said of a release, in the bytes that are signed."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from supervisor.releases.model import Compression, ReleaseError, release_id, why_bad_path

FORMAT = 1
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_SEQUENCE = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""


def _tree_path(path: str) -> str:
    if why := why_bad_path(path):
        raise ValueError(f"{path!r} {why}")
    return path


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")]
TreePath = Annotated[str, AfterValidator(_tree_path)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Count = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]


class _Part(BaseModel):
    """Unknown fields are left out: a newer builder may say more of the same format."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Git(_Part):
    """Where the source was; `dirty` with changes that were not committed."""

    commit: str = ""
    branch: str = ""
    dirty: bool = False


class Platform(_Part):
    """What the release runs on. `any` is all; `runtime` maps a program to a range of versions (`>=20,<23`)."""

    os: str = "linux"
    arch: str = "any"
    libc: str = "any"
    runtime: dict[str, str] = Field(default_factory=dict)


class Archive(_Part):
    """The file that holds the tree: name, SHA-256 (hex) and size in bytes of it as it is sent."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,200}$")]
    sha256: Digest
    size: Count
    compression: Compression = Field(strict=False)


class Tree(_Part):
    """What is in the archive: `tree_digest`, bytes of all files, and number of entries."""

    digest: Digest
    bytes: Count
    entries: Count


class Health(_Part):
    """How the app says that it is well; what is None is as the settings have it."""

    path: str | None = None
    timeout_seconds: Seconds | None = None
    start_seconds: Seconds | None = None


class FrontHints(_Part):
    """What the front should know; what is None is as the settings have it."""

    overlap: bool | None = None
    drain_seconds: Seconds | None = None


class Schema(_Part):
    """The level of the database's schema after this release's migrations, and the lowest level of code that can live on
    it. With level 0 nothing is said, and any will do.
    """

    level: Count = 0
    min_supported: Count = 0


class Migrations(_Part):
    """`folder` in the tree holds them (None: as the settings have it); `snapshot`: the database is saved first."""

    folder: TreePath | None = None
    snapshot: bool = False


class Said(_Part):
    """What a release says of its app beside the files. `replace` are folders that come whole from the archive, `merge`
    those whose missing parts come from the image's tree; `keep_assets` are hashed files that pages of older releases
    still ask for; `shared` are folders that all releases have in common.
    """

    expires: AwareDatetime | None = Field(None, strict=False)
    platform: Platform = Platform()
    replace: tuple[TreePath, ...] = Field((), strict=False)
    merge: tuple[TreePath, ...] = Field((), strict=False)
    link: bool = True
    shared: tuple[TreePath, ...] = Field((), strict=False)
    keep_assets: tuple[TreePath, ...] = Field((), strict=False)
    command: str | None = None
    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = Field((), strict=False)
    health: Health = Health()
    front: FrontHints = FrontHints()
    schema_: Schema = Field(Schema(), alias="schema")
    migrations: Migrations = Migrations()
    min_supervisor: str = ""


class Manifest(Said):
    """See CONTAINERIZATION.md, "Releases"."""

    format: Literal[1]
    app: Name
    version: Version
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    created: AwareDatetime = Field(strict=False)
    git: Git = Git()
    archive: Archive
    tree: Tree


def parse_manifest(data: bytes) -> Manifest:
    """Raises ReleaseError with all that is wrong in it, at most 20 mistakes."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ReleaseError(f"cannot read the manifest: it has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"cannot read the manifest: it is no JSON ({error}); build the release again") from None
    if not isinstance(values, dict):
        raise ReleaseError("cannot read the manifest: it is no JSON object; build the release again")
    if values.get("format") != FORMAT:
        raise ReleaseError(
            f"cannot read the manifest: its format is {values.get('format')!r}, this supervisor reads {FORMAT}; "
            f"build the release for it, or update the supervisor in the image"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise ReleaseError(f"cannot use the manifest: {_mistakes(error)}; build the release again") from None


def _mistakes(error: ValidationError) -> str:
    found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)]
    more = f"; and {len(found) - 20} more" if len(found) > 20 else ""
    return "; ".join(found[:20]) + more


def manifest_bytes(manifest: Manifest) -> bytes:
    """The bytes to sign and to keep: the same manifest, the same bytes."""
    values: dict[str, Any] = manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values["created"] = _time(manifest.created)
    if manifest.expires is not None:
        values["expires"] = _time(manifest.expires)
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def manifest_id(manifest: Manifest, data: bytes) -> str:
    """The release's id, from the manifest's exact bytes."""
    return release_id(manifest.version, hashlib.sha256(data).hexdigest())


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
