"""Getting an image: used where present, else pulled to completion, else loaded from an archive; else a full error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread

from supervisor.core.errors import UnreachableError
from supervisor.engine.archives import Archive, Folder, read_folder
from supervisor.engine.errors import EngineRefused, NotFound, Unavailable
from supervisor.engine.reference import Reference
from supervisor.engine.resources import Images

Progress = Callable[[str], None]


class ImageSource(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def images(self) -> Images: ...


@dataclass(frozen=True)
class ResolvedImage:
    """An image that the engine has. `pinned` is what a spec must name, so that no task ever asks a registry.

    A tag makes every task try to pull, which without a registry costs it 17 to 19 s; a digest that is present, or an
    id, does not. An id names the image on this node only.
    """

    reference: str
    id: str
    digest: str | None
    pinned: str


@dataclass(frozen=True)
class PullLimits:
    """Seconds without a line of progress after which a pull is given up; shorter where an archive is at hand."""

    stall_seconds: float = 60.0
    stall_with_archive_seconds: float = 3.0


def resolved(reference: Reference, inspected: Mapping[str, Any]) -> ResolvedImage:
    """What an inspected image is to be called: its digest of the same repository, else its id."""
    image_id = str(inspected["Id"])
    digest = _digest_for(reference, inspected.get("RepoDigests") or ())
    pinned = f"{reference.repository}@{digest}" if digest else image_id
    return ResolvedImage(reference.text, image_id, digest, pinned)


def _digest_for(reference: Reference, repo_digests: Iterable[str]) -> str | None:
    """The digest under the reference's own repository; another repository's may not be pullable by it."""
    for text in repo_digests:
        found = Reference.parse(text)
        if found.repository == reference.repository and found.digest:
            return found.digest
    return None


class ImageResolver:
    """Makes images present, one call an image; calls may run side by side.

    `folder` holds archives by `docker save`, used when a pull fails. `auth` are registry credentials by domain, as the
    API's AuthConfig words them. Cancelling a call ends its pull or load in the engine.
    """

    def __init__(
        self,
        engine: ImageSource,
        *,
        folder: Path | None = None,
        auth: Mapping[str, Mapping[str, str]] | None = None,
        limits: PullLimits | None = None,
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._auth = auth or {}
        self._limits = limits or PullLimits()
        self._loading = anyio.Lock()

    async def resolve(self, text: str, progress: Progress = lambda line: None) -> ResolvedImage:
        """The image of this reference or id, made present if it is not.

        Lines of progress are for people. Raises UnreachableError naming the image, the cause and the ways out.
        """
        if text.startswith("sha256:"):
            return await self._by_id(text)
        reference = Reference.parse(text)
        found = await self._present(reference)
        if found is not None:
            return found
        folder = await self._read_folder()
        archive = folder.find(reference)
        failure = await self._pull(reference, archive, progress)
        if failure is not None:
            if archive is None:
                raise UnreachableError(_no_way_left(reference, failure, self._folder, folder))
            progress(f"{reference.text}: not pulled ({failure}); loading {archive.path}")
            # One at a time: an archive may hold several of those that are wanted, and brings them all at once.
            async with self._loading:
                if await self._present(reference, archive) is None:
                    await self._load(reference, archive)
        found = await self._present(reference, archive)
        if found is None:
            raise UnreachableError(_vanished(reference, archive if failure else None))
        return found

    async def _by_id(self, image_id: str) -> ResolvedImage:
        try:
            inspected = await self._engine.images.inspect(image_id)
        except NotFound as error:
            raise UnreachableError(
                f"cannot use image {image_id!r}: the engine has none with this id, and an id cannot be pulled; "
                "load the image there, or name it by tag or digest"
            ) from error
        return ResolvedImage(image_id, str(inspected["Id"]), None, str(inspected["Id"]))

    async def _present(self, reference: Reference, archive: Archive | None = None) -> ResolvedImage | None:
        """The image as the engine has it. Loaded from an archive that vouches for the digest, it is found by tag."""
        names = [reference.text]
        if archive is not None and reference.digest is not None and reference.tagged is not None:
            names.append(reference.tagged)
        for name in names:
            try:
                return resolved(reference, await self._engine.images.inspect(name))
            except NotFound:
                continue
        return None

    async def _read_folder(self) -> Folder:
        if self._folder is None:
            return Folder((), ())
        return await anyio.to_thread.run_sync(read_folder, self._folder, abandon_on_cancel=True)

    async def _pull(self, reference: Reference, archive: Archive | None, progress: Progress) -> str | None:
        """Pull to the end; the cause where that failed."""
        limits = self._limits
        stall = limits.stall_seconds if archive is None else limits.stall_with_archive_seconds
        progress(f"{reference.text}: pulling")
        try:
            with anyio.CancelScope() as scope:
                await self._follow_pull(reference, stall, scope, progress)
        except (EngineRefused, Unavailable) as error:
            return error.message if isinstance(error, EngineRefused) else str(error)
        return f"no progress for {stall:g} s" if scope.cancelled_caught else None

    async def _follow_pull(
        self, reference: Reference, stall: float, scope: anyio.CancelScope, progress: Progress
    ) -> None:
        seen = PullProgress()
        scope.deadline = anyio.current_time() + stall
        auth = self._auth.get(reference.domain)
        async with self._engine.images.pulling(reference.text, auth=auth, opening_seconds=stall + 1) as lines:
            async for line in lines:
                scope.deadline = anyio.current_time() + self._limits.stall_seconds
                for told in seen.feed(line):
                    progress(f"{reference.text}: {told}")

    async def _load(self, reference: Reference, archive: Archive) -> None:
        try:
            with archive.path.open("rb") as file:
                await self._engine.images.load(file)
        except (OSError, EngineRefused) as error:
            raise UnreachableError(
                f"cannot load image {reference.text!r} from {str(archive.path)!r}: {error}; make the archive "
                f"again with `docker save -o {archive.path.name} {reference.tagged or reference.text}`"
            ) from error


class PullProgress:
    """Turns the engine's lines, several a second for each layer, into few for people: each quarter of what is known."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._told = 0

    def feed(self, line: Mapping[str, Any]) -> list[str]:
        """What is worth telling after this line."""
        detail = line.get("progressDetail") or {}
        status = str(line.get("status", ""))
        if "total" in detail and status == "Downloading":
            self._layers[str(line.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
            return self._quarter()
        if status in ("Download complete", "Pull complete") and str(line.get("id")) in self._layers:
            total = self._layers[str(line["id"])][1]
            self._layers[str(line["id"])] = (total, total)
            return self._quarter()
        return [status] if status.startswith(("Pulling from", "Digest:", "Status:")) or "id" not in line else []

    def _quarter(self) -> list[str]:
        done, total = (sum(pair[side] for pair in self._layers.values()) for side in (0, 1))
        quarter = 4 * done // total if total else 0
        if quarter <= self._told:
            return []
        self._told = quarter
        return [f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"]


def _no_way_left(reference: Reference, cause: str, path: Path | None, folder: Folder) -> str:
    name = reference.tagged or reference.text
    looked = f"no archive in {str(path)!r} holds it" if path else "no folder with archives is set"
    unread = f" (not readable there: {'; '.join(folder.unreadable)})" if folder.unreadable else ""
    return (
        f"cannot get image {reference.text!r}: the engine does not have it, pulling failed ({cause.rstrip('.')}), and "
        f"{looked}{unread}; let the engine reach {reference.domain}, or load it there (`docker load`), or put the "
        f"output of `docker save {name}` as a .tar into the folder named by SUPERVISOR_IMAGES_DIR"
    )


def _vanished(reference: Reference, archive: Archive | None) -> str:
    how = f"after loading {str(archive.path)!r}" if archive else "after a pull that succeeded"
    return (
        f"cannot use image {reference.text!r}: the engine does not have it {how}; is something removing images there "
        "(a prune job), or is the archive's name another?"
    )
