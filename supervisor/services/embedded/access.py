"""As whom a server runs, and whether that user can get at its files."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from supervisor.process.account import lacking_rights
from supervisor.process.child import Identity

POSTGRES_UID = 26026
"""Reserved: the uid and gid of Postgres where we are root and there is no user `postgres`."""
REDIS_UID = 26027
"""Reserved: the same for Redis and the user `redis`."""
_NOBODY = Identity(65534, 65534)


def identity_for(account: str, reserved_uid: int, *, our_uid: int) -> Identity | None:
    """As root that may, the user `account`, or the reserved uid where there is none; None (ourselves) otherwise."""
    if our_uid != 0 or lacking_rights():
        return None
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        return Identity(reserved_uid, reserved_uid)
    return Identity(entry.pw_uid, entry.pw_gid)


def named_identity(identity: Identity | None) -> Identity | None:
    """`identity`, or `nobody` where it has no account: initdb refuses to run as a uid without a name."""
    return identity if identity is None or has_account(identity.uid) else _NOBODY


def has_account(uid: int) -> bool:
    """Whether the uid has an entry in the user database."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def owner_of(identity: Identity | None) -> tuple[int, int] | None:
    """uid and gid for the files of a server; None leaves them ours."""
    return None if identity is None else (identity.uid, identity.gid)


def blocked_path(path: Path, identity: Identity | None, *, leaf_mode: int = stat.S_IXOTH) -> str:
    """Why `identity` (None: ourselves) cannot get at `path`, naming the folder that blocks; empty when it can.

    Every folder above must let it pass, and `path` itself grant `leaf_mode` (rwx in the last three bits). Reads mode
    bits, so an access list that allows more is not seen; a path that is not there yet is judged by what is.
    """
    uid = os.geteuid() if identity is None else identity.uid
    groups = set(os.getgroups()) | {os.getegid()} if identity is None else {identity.gid, *identity.groups}
    if uid == 0:
        return ""
    for part in _with_parents(path):
        try:
            found = part.stat()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"uid {uid} cannot look at {str(part)!r}: {error.strerror}"
        wanted = leaf_mode if part == path else stat.S_IXOTH
        if not grants(found, uid, groups, wanted):
            verb = "use" if part == path else "enter"
            way = "" if part == path else f", which is on the way to {str(path)!r}"
            mode = f"mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}"
            return f"uid {uid} may not {verb} {str(part)!r} ({mode}){way}"
    return ""


def _with_parents(path: Path) -> Iterator[Path]:
    """Every folder from the root down, symbolic links followed, and the path itself."""
    yield from reversed(path.resolve().parents)
    yield path


def grants(found: os.stat_result, uid: int, groups: set[int], wanted: int) -> bool:
    """Whether the mode bits give `uid` all of `wanted` (rwx in the last three bits), as the kernel decides it."""
    if found.st_uid == uid:
        given = found.st_mode >> 6
    elif found.st_gid in groups:
        given = found.st_mode >> 3
    else:
        given = found.st_mode
    return given & wanted == wanted


def has_other_owner(folder: Path, owner: tuple[int, int]) -> bool:
    """Whether the folder is there and belongs to somebody else than `owner` (uid, gid)."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return False
    return (found.st_uid, found.st_gid) != owner


def give_tree(folder: Path, owner: tuple[int, int]) -> None:
    """Give `folder` and all in it to `owner`, itself last: one that has the owner has it throughout. Blocks."""
    folder = folder.resolve()
    for _, folders, files, descriptor in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(name, *owner, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, *owner)
