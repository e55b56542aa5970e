"""`with_signals.py BLOCKED IGNORED CMD...`: executes CMD with exactly these signals (comma-separated) so set."""

import os
import signal
import sys

blocked, ignored = ([int(word) for word in text.split(",") if word] for text in sys.argv[1:3])
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
os.execvp(sys.argv[3], sys.argv[3:])
