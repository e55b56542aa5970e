"""Takes in archives of the older kind, which say nothing of themselves: unpacked once to be measured. Wiring."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

from supervisor.process.reaper import Reaper
from supervisor.releases.layout import Layout
from supervisor.releases.manifest import Tree, manifest_bytes
from supervisor.releases.original import Received, compression_of, original_manifest, parse_info
from supervisor.releases.receive import blocks_of, receive
from supervisor.releases.recovery import discard, empty_trash
from supervisor.releases.unpack.unpack import UnpackJob, unpack
from supervisor.rollout.unpacking import UNPACK_SECONDS

MAX_ARCHIVE_BYTES = 4 * 1024**3
MAX_TREE_BYTES = 16 * 1024**3


@asynccontextmanager
async def measured(
    layout: Layout, app: str, name: str, blocks: AsyncIterator[bytes], reaper: Reaper
) -> AsyncIterator[tuple[bytes, AsyncIterator[bytes]]]:
    """The manifest's bytes that the archive lacks, and the archive's blocks again, for as long as the block runs.

    Raises ReleaseError, OSError.
    """
    folder = layout.staging / f"original-{secrets.token_hex(6)}"
    try:
        archive = folder / "archive"
        receipt = await receive(blocks, archive, limit_bytes=MAX_ARCHIVE_BYTES)
        head = await anyio.to_thread.run_sync(_head, archive)
        received = Received(name, receipt.size, receipt.sha256, compression_of(head), datetime.now(UTC))
        job = UnpackJob(
            archive, receipt.size, receipt.sha256, received.compression, folder / "tree", max_bytes=MAX_TREE_BYTES
        )
        found = await unpack(reaper, job, on_progress=lambda progress: None, limit_seconds=UNPACK_SECONDS)
        info = parse_info(json.dumps(found.info or {}).encode())
        tree = Tree(digest=found.digest, bytes=found.bytes, entries=found.entries)
        yield manifest_bytes(original_manifest(app, received, info, tree)), blocks_of(archive)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_drop, layout, folder)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _drop(layout: Layout, folder: Path) -> None:
    discard(layout, folder)
    empty_trash(layout)
