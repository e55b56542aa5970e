"""One pass over an archive: what comes from the reader is decided on, written and counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from supervisor.releases.model import Kind
from supervisor.releases.tree import tree_digest
from supervisor.releases.unpack.ahead import read_ahead
from supervisor.releases.unpack.contents import ABOVE, INFO, TOP, Contents, bare_name, tree_path
from supervisor.releases.unpack.decompress import Source, decompress
from supervisor.releases.unpack.job import Extracted, Job
from supervisor.releases.unpack.links import check_links
from supervisor.releases.unpack.refusal import SEND_AGAIN, refusal, shown
from supervisor.releases.unpack.stream import Stream
from supervisor.releases.unpack.tar import Member, TarReader, Type
from supervisor.releases.unpack.writer import Writer

MAX_INFO_BYTES = 64 * 1024
Tell = Callable[[int, int], None]
"""Told the bytes and files that are made so far, very often."""


def extract(job: Job, tell: Tell, confine: Callable[[int], None] = lambda folder: None) -> Extracted:
    """Make the tree at `job.destination`. Raises ReleaseError, or OSError from the system; what is made then stays.

    `confine` is called with the tree's open folder before the first byte of the archive is read.
    """
    with closing(Source(job.archive)) as source:
        if source.size != job.size:
            raise refusal(f"the file has {source.size} bytes, not the {job.size} that were announced", SEND_AGAIN)
        with Writer(job.destination) as writer:
            confine(writer.root)
            chunks = decompress(source, job.compression, max_bytes=job.limits.stream_bytes)
            with closing(read_ahead(chunks)) as ahead:
                making = _Making(TarReader(Stream(ahead)), writer, job, tell)
                making.run()
        if source.sha256 != job.sha256:
            raise refusal(f"the file has the SHA-256 {source.sha256}, not {job.sha256} as announced", SEND_AGAIN)
        contents = making.contents
        return Extracted(
            entries=len(contents.entries),
            bytes=contents.bytes,
            digest=tree_digest(contents.entries.values()),
            sha256=source.sha256,
            info=making.info,
        )


class _Making:
    """The tree as it grows."""

    def __init__(self, reader: TarReader, writer: Writer, job: Job, tell: Tell) -> None:
        self._reader = reader
        self._writer = writer
        self._tell = tell
        self._now = int(time.time())
        self._mtime = job.mtime
        self._beside: set[str] = set()
        self._files = 0
        self.contents = Contents(job.limits, case_insensitive=job.case_insensitive)
        self.info = ""

    def run(self) -> None:
        """Links come last, when all of them are known to be good: until then there is none to pass through."""
        for member in self._reader.members():
            self._take(member)
        if not self.contents.entries:
            raise refusal(f"there is nothing below {TOP!r}/ in it")
        check_links(self.contents.entries)
        for entry in self.contents.entries.values():
            if entry.kind is Kind.LINK:
                self._writer.link(entry.path, entry.content)

    def _take(self, member: Member) -> None:
        bare = bare_name(member.name, folder=member.type is Type.FOLDER)
        if bare in (ABOVE, TOP, INFO):
            self._take_beside(bare, member)
            return
        path = tree_path(bare)
        match member.type:
            case Type.FOLDER:
                self._make(self.contents.admit_folder(path))
            case Type.LINK:
                self._make(self.contents.admit_link(path, member.target))
            case Type.FILE:
                self._make(self.contents.admit_file(path, member.size))
                self._add_file(path, member)
            case Type.HARD_LINK:
                self._copy(path, member)

    def _take_beside(self, bare: str, member: Member) -> None:
        """What is not in the tree itself: its own folder, the one above, and the record beside it."""
        wanted = Type.FILE if bare == INFO else Type.FOLDER
        if member.type is not wanted:
            raise refusal(f"the entry {shown(bare)} is a {member.type}, not a {wanted}")
        if bare in self._beside:
            raise refusal(f"the entry {shown(bare)} is in it twice")
        self._beside.add(bare)
        if bare == INFO:
            self.info = _info(self._reader, member)

    def _make(self, folders: list[str]) -> None:
        for folder in folders:
            self._writer.folder(folder)

    def _add_file(self, path: str, member: Member) -> None:
        self._tell(self.contents.bytes, self._files)
        whole = self._reader.whole()
        content = self._told(self._reader.content()) if whole is None else (whole,)
        digest = self._writer.file(path, content, executable=member.executable, mtime=self._time_of(member))
        self.contents.add_file(path, digest, member.size, executable=member.executable)
        self._files += 1

    def _time_of(self, member: Member) -> int:
        return min(max(member.mtime, 0), self._now) if self._mtime is None else self._mtime

    def _told(self, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        done = self.contents.bytes
        for piece in pieces:
            yield piece
            done += len(piece)
            self._tell(done, self._files)

    def _copy(self, path: str, member: Member) -> None:
        source = self.contents.file(tree_path(bare_name(member.target, folder=False)), of=path)
        self._make(self.contents.admit_file(path, source.size))
        mtime = self._time_of(member)
        digest = self._writer.copy(path, source.path, executable=source.executable, mtime=mtime)
        self.contents.add_file(path, digest, source.size, executable=source.executable)
        self._files += 1
        self._tell(self.contents.bytes, self._files)


def _info(reader: TarReader, member: Member) -> str:
    """The record beside the tree, as JSON in ASCII."""
    if member.size > MAX_INFO_BYTES:
        raise refusal(f"{INFO!r} has {member.size} bytes, {MAX_INFO_BYTES} are allowed", "shorten it")
    try:
        values = json.loads(b"".join(reader.content()))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise refusal(f"{INFO!r} is no JSON object", "correct it, or leave it out")
    return json.dumps(values)
