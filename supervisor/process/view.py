"""A command that sees one folder in the place of another: bind mounts in a mount namespace of its own.

Nobody else sees them: what ran before goes on with its own, and two generations can run beside each other. It takes
CAP_SYS_ADMIN, and util-linux's `unshare`, `mount` and `setpriv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from supervisor.process.child import Command, Identity

PROGRAMS = ("unshare", "mount", "setpriv")
# The folder is entered anew: a process stays in what it was in before a mount.
_SCRIPT = """set -e
last=$1; shift
while [ "$1" != -- ]; do mount -o bind "$1" "$2"; shift 2; done; shift
cd "$last"
exec "$@"
"""


@dataclass(frozen=True)
class Mount:
    """`source` is seen at `at`; both are folders."""

    source: str
    at: str


def seen(command: Command, mounts: Sequence[Mount]) -> Command:
    """`command` with these mounts, made in their order; it runs in the place of the last one."""
    pairs = [path for mount in mounts for path in (mount.source, mount.at)]
    argv = ("unshare", "-m", "--", "/bin/sh", "-c", _SCRIPT, "sh", mounts[-1].at, *pairs, "--")
    return replace(command, argv=(*argv, *_dropped(command.identity), *command.argv), identity=None, cwd=mounts[-1].at)


def _dropped(identity: Identity | None) -> tuple[str, ...]:
    """Mounting takes privileges, so they are given up after it."""
    if identity is None:
        return ()
    groups = f"--groups={','.join(map(str, identity.groups))}" if identity.groups else "--clear-groups"
    return ("setpriv", f"--reuid={identity.uid}", f"--regid={identity.gid}", groups, "--")
