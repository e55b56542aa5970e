"""Prints `ready`, then the number of each signal it receives, until number `argv[1]` (default: never)."""

import os
import signal
import sys

signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_SETMASK, signals)
print("ready", flush=True)
while True:
    number = signal.sigwaitinfo(signals).si_signo
    os.write(1, b"%d\n" % number)  # one write: others share the pipe
    if len(sys.argv) > 1 and number == int(sys.argv[1]):
        sys.exit(0)
