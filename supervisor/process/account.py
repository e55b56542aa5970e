"""Who a command runs as: a user of this system, by name or by number."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.process.child import Identity

_RIGHTS = {0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 5: "CAP_KILL", 6: "CAP_SETGID", 7: "CAP_SETUID"}


@dataclass(frozen=True)
class Account:
    """An identity to spawn with (None: our own), and what goes into the environment with it.

    `warning` says why it is not the one that was asked for.
    """

    identity: Identity | None
    environ: dict[str, str]
    warning: str = ""


def find_account(text: str, setting: str) -> Account | None:
    """`user` or `user:group`, names or numbers; None where it is whom we are already.

    A user that is a number needs no entry in the user database; it then has its own number as group, no others, and no
    home. Without root it is our own, with a warning: an image names a user for all who start it as root, and is started
    with `--user`, too. Raises ConfigurationError for one that is not there.
    """
    user, _, group = text.partition(":")
    entry = _user(user, setting)
    uid = entry.pw_uid if entry is not None else int(user)
    gid = _group(group, setting) if group else (entry.pw_gid if entry is not None else uid)
    if os.geteuid() != 0:
        if uid == os.geteuid() and gid == os.getegid():
            return None
        why = f"the app runs as uid {os.geteuid()}, as we do, not as {text!r} ({setting}): only root can become another"
        return Account(None, {}, why)
    if uid == 0 and gid == 0:
        return None
    if lacking := lacking_rights():
        raise ConfigurationError(
            f"cannot run the app as {text!r} ({setting}): root lacks {', '.join(lacking)} here; give the container "
            f"these capabilities (--cap-add), or run it with --user {uid}:{gid} instead"
        )
    named = entry is not None and not group
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if named and entry is not None else (gid,)
    environ = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name} if entry is not None else {}
    return Account(Identity(uid, gid, groups), environ or {"HOME": "/"})


def _user(user: str, setting: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return None
        raise ConfigurationError(
            f"cannot run the app as user {user!r} ({setting}): there is no such user here; add it to the image "
            f"(`useradd {user}`), or give a number"
        ) from None


def _group(group: str, setting: str) -> int:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigurationError(
            f"cannot run the app with group {group!r} ({setting}): there is no such group here; add it to the image "
            f"(`groupadd {group}`), or give a number"
        ) from None


def lacking_rights(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """The capabilities that root lacks here to run a child as another user, to reach its files and to end it.

    Empty where there are no capabilities to be read. Containers are given fewer (`--cap-drop`).
    """
    try:
        lines = status.read_text().splitlines()
        held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError):
        return ()
    return tuple(name for bit, name in _RIGHTS.items() if not held >> bit & 1)


def is_mapped(number: int, table: str) -> bool:
    """Whether our user namespace has this uid (table `uid_map`) or gid (`gid_map`): else nobody can become it."""
    try:
        rows = [line.split() for line in Path(f"/proc/self/{table}").read_text().splitlines()]
    except OSError:
        return True  # no namespaces, so no limit
    return any(int(first) <= number < int(first) + int(count) for first, _, count in rows)
