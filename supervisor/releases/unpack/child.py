"""The program that unpacks: `python -m supervisor.releases.unpack.child`, its job as JSON on its standard input.

It writes one JSON object a line: `{"bytes": n, "files": n}` at most four times a second, the record beside the tree in
pieces (`{"info": "..."}`), and last `{"result": "ok", ...}` or `{"result": "refused", "reason": "..."}`.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import time

from supervisor.releases.model import ReleaseError
from supervisor.releases.unpack.confine import confine
from supervisor.releases.unpack.extract import extract
from supervisor.releases.unpack.job import Extracted, Job
from supervisor.releases.unpack.limits import MIB, die_with, restrict
from supervisor.releases.unpack.refusal import refusal

TELL_SECONDS = 0.25
INFO_PIECE = 4096
"""Characters of the record to a line: with all of them escaped it still is no longer than a line of output may be."""


def main() -> int:
    """Do the job, once it is there; none came where it has no bytes. A refusal is said and is no failure of this
    program: 0.
    """
    data = sys.stdin.buffer.read()
    if not data:
        return 0
    job = Job.parse(data)
    os.umask(0o022)
    die_with(job.parent)
    restrict(job.limits)
    gc.disable()  # there are no cycles, only ever more entries, which it would walk again and again
    try:
        done = extract(job, _Teller(), confine)
    except ReleaseError as error:
        _refuse(error)
    except MemoryError:
        _refuse(refusal(f"it needs more than {job.limits.memory_bytes // MIB} MiB of memory"))
    except OSError as error:
        _refuse(_explain(error))
    else:
        _tell_done(done)
    return 0


class _Teller:
    """Says how far it is, now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + TELL_SECONDS

    def __call__(self, made: int, files: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + TELL_SECONDS
            _say({"bytes": made, "files": files})


def _tell_done(done: Extracted) -> None:
    for start in range(0, len(done.info), INFO_PIECE):
        _say({"info": done.info[start : start + INFO_PIECE]})
    _say(
        {
            "result": "ok",
            "entries": done.entries,
            "bytes": done.bytes,
            "digest": done.digest,
            "sha256": done.sha256,
        }
    )


def _refuse(error: Exception) -> None:
    _say({"result": "refused", "reason": str(error)})


def _say(values: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _explain(error: OSError) -> ReleaseError:
    at = f" at {error.filename!r}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return refusal(f"there is no room for it{at} ({error.strerror})", "make room on the disk of the releases")
    return refusal(
        f"the system does not let it be made{at} ({error.strerror})", "look at the disk and folder of the releases"
    )


if __name__ == "__main__":
    code = main()
    # All is said and written. Taking apart what is in memory would take longer than starting did.
    os._exit(code)
