"""PID 1 of the private engine's own PID and mount namespaces: dockerd runs and comes back until TERM.

When this ends, the kernel ends dockerd, containerd, the shims, every container and every mount: nothing can be left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SIGNALS = {signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM}
_STOP_SECONDS = 20
_GIVE_UP_AFTER = 5
_SHORT_LIFE_SECONDS = 5.0


def main(run_folder: str, argv: list[str]) -> int:
    """0 after a TERM; 1 when dockerd ended at once several times in a row."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _own_mounts(Path(run_folder))
    failures = 0
    while failures < _GIVE_UP_AFTER:
        started = time.monotonic()
        daemon = os.posix_spawnp(argv[0], argv, os.environ, setsigmask=())
        if _outlives(daemon):
            return 0
        failures = failures + 1 if time.monotonic() - started < _SHORT_LIFE_SECONDS else 0
        print(f"dockerd ended, failure {failures} of {_GIVE_UP_AFTER}", file=sys.stderr, flush=True)
    return 1


def _own_mounts(run_folder: Path) -> None:
    # Shared among the namespaces below us, so that a container may ask for a shared volume.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    # /run/containerd is where the shims' sockets go whatever the settings, and where dockerd looks for a containerd
    # of the system, which is not to be found from here.
    for folder in (run_folder, Path("/run/containerd")):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "tmpfs", folder], check=True)


def _outlives(daemon: int) -> bool:
    """True when we were told to stop (and did, within the limit), False when the daemon ended by itself."""
    while True:
        if signal.sigwait(_SIGNALS) == signal.SIGTERM:
            _stop(daemon)
            return True
        if _ended(daemon):
            return False


def _stop(daemon: int) -> None:
    signal.alarm(_STOP_SECONDS)
    os.kill(daemon, signal.SIGTERM)
    while not _ended(daemon) and signal.sigwait(_SIGNALS) != signal.SIGALRM:
        pass


def _ended(daemon: int) -> bool:
    """Reap all there is: orphans of the engine come to us, and a containerd left a zombie wedges the next dockerd."""
    found = False
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            found = found or pid == daemon
    except ChildProcessError:
        return True
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
