"""What this process may still do once all that it needs is open: make things below one folder, and nothing as root.

By Landlock (linux/landlock.h; from Linux 5.13 on) and without capabilities (capabilities(7)). Neither asks for rights.
"""

from __future__ import annotations

import ctypes
import os
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # asm-generic/unistd.h
_ASK_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_MAKE_FOLDER, _MAKE_FILE, _MAKE_LINK = 1 << 7, 1 << 8, 1 << 12
_NEEDED = _WRITE_FILE | _READ_FILE | _READ_FOLDER | _MAKE_FOLDER | _MAKE_FILE | _MAKE_LINK
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many there are, by version; all of them are taken."""
_BIND_AND_CONNECT, _NET_SINCE = 0b11, 4
_OTHERS_SOCKETS_AND_SIGNALS, _SCOPES_SINCE = 0b11, 6
_CAPABILITY_VERSION = 0x20080522  # of linux/capability.h: two words for each set


def confine(folder: int) -> None:
    """Hold this thread, and those it starts, to what is below an open folder that we made. What is open stays so.

    As far as the kernel and the container's sandbox let us: without this the limits and the reader's care are what is
    left, as they were. Nothing can be imported after it.
    """
    _drop_capabilities(folder)
    _landlock(folder)


def _drop_capabilities(folder: int) -> None:
    # A filesystem that gives owners of its own (a share of the host's) may let only a root with rights write to it.
    if os.fstat(folder).st_uid == os.geteuid():
        ctypes.CDLL(None).capset(struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24))


def _landlock(folder: int) -> None:
    call = ctypes.CDLL(None).syscall
    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return
    taken = struct.pack(
        "QQQ",
        (1 << _FILE_RIGHTS.get(version, 16)) - 1,
        _BIND_AND_CONNECT if version >= _NET_SINCE else 0,
        _OTHERS_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0,
    )
    # An older kernel takes a longer structure whose end is zeros.
    rules = call(_CREATE_RULESET, taken, ctypes.c_size_t(len(taken)), 0)
    if rules < 0:
        return
    try:
        if call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", _NEEDED, folder), 0) == 0:
            call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
