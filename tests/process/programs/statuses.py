"""Runs `supervisor init` for many endings of its command and prints the ones whose status is not the expected one.

Each run is a fork that calls the same function as the command does, so 256 of them take a second.
"""

import os
import resource
import signal
import sys

from supervisor.process.init import main


def init(*argv: str) -> int:
    """The exit status of one run."""
    pid = os.fork()
    if pid == 0:
        os._exit(main(list(argv)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ends_with(script: str, expected: int, *options: str) -> None:
    """Print a line when it does not."""
    status = init(*options, "--", "/bin/sh", "-c", script)
    if status != expected:
        print(f"{options} {script!r}: {status}, not {expected}")


resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
harmless = {"CHLD", "CONT", "URG", "WINCH", "KILL", "STOP", "TSTP", "TTIN", "TTOU"}
match sys.argv[1]:
    case "codes":
        for code in range(256):
            ends_with(f"exit {code}", code)
    case "remapped":
        for code in range(0, 256, 5):
            ends_with(f"exit {code}", 0, f"-e{code}")
            ends_with(f"exit {(code + 1) % 256}", (code + 1) % 256, "-e", str(code))
        ends_with("kill -TERM $$", 0, "-e", "143")
    case "early":
        setsid = os.setsid

        def interrupted() -> None:
            """An INT that arrives between fork and exec waits, as all signals are blocked there."""
            setsid()
            os.kill(os.getpid(), signal.SIGINT)

        os.setsid = interrupted
        ends_with("exit 0", 130)
    case "signals":
        gentle = {int(getattr(signal, f"SIG{name}")) for name in harmless}
        for number in sorted(signal.valid_signals() - gentle):
            ends_with(f"kill -{int(number)} $$", 128 + number)
        ends_with("kill -KILL $$", 137)
print("done")
