"""`supervisor init [OPTIONS] -- CMD ARGS...`: a plain init for a container, a drop-in for tini and dumb-init.

Imports next to nothing: as PID 1 it must hold signals a few milliseconds after exec. Synchronous throughout.

- All signals are blocked first and taken one by one; each that can be caught is forwarded to the child alone (`-g`: to
  its process group). Signals merge while they wait, as everywhere; real-time ones queue.
- The child gets a session of its own. With a terminal as stdin it gets the terminal's foreground process group instead,
  so that ^C reaches it and reading does not fail; `-c` leaves it in our session and group.
- Signal mask, ignored signals and environment reach the child as we got them, save that PIPE and XFSZ are at their
  default (Python ignores both before any code of ours runs, so what they were is not known).
- Every process that ends is reaped; as PID 1 orphans come to us, elsewhere we ask for them (subreaper).
- When the child ends, what is left gets TERM and at most `--grace` seconds, then KILL: as PID 1 everything in the PID
  namespace, elsewhere our own children, adopted ones included. We leave as soon as none is left. Signals that arrive
  meanwhile go to what is left. (tini leaves at once; in a container the kernel then kills the rest without notice.)
- Our status is the child's, 128 + n for a signal, 126 or 127 when it cannot be executed.

Simpler than dumb-init: TSTP, TTIN and TTOU are forwarded as they are and we are not stopped along with the child. A
child in a session of its own ignores them unless it handles them; `-r 20:19` makes TSTP a STOP.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator

from supervisor.core.errors import ExitCode

GRACE_SECONDS = 5.0
_FINAL_SECONDS = 2.0
_CATCHABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_FROM_KERNEL = 0x80  # si_code SI_KERNEL, sigaction(2)
_FROM_TERMINAL = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

USAGE = """\
usage: supervisor init [OPTIONS] [--] CMD [ARGS...]

Runs CMD as a container's init should: forwards signals, reaps orphans, passes the exit status on.

  -g                  signal the process group of CMD, not CMD alone
  -c, --single-child  leave CMD in our session and process group
  -r, --rewrite S:R   send signal R for every S (numbers or names; R = 0 drops it); may be repeated
  -p SIG              be sent SIG, to be forwarded, when our parent ends
  -e CODE             exit 0 where the status would be CODE (0 to 255); may be repeated
  -w                  warn of every orphan reaped
  -s                  adopt orphans although not PID 1; always on, taken for tini's sake
  -v, --verbose       say what is done; may be repeated
  --grace SECONDS     what CMD leaves behind gets TERM, and KILL after this long (default 5)
  -V, --version       print the version
  -h, --help          print this text

Exit status: that of CMD, 128 + n when signal n ended it, 126 not executable, 127 not found, 64 usage.
"""

_LONG = {
    "--single-child": "-c",
    "--rewrite": "-r",
    "--verbose": "-v",
    "--version": "-V",
    "--help": "-h",
    "--grace": "--grace",
}
_FLAGS = {"-g", "-c", "-w", "-s", "-v", "-V", "-h"}
_WITH_VALUE = {"-r", "-p", "-e", "--grace"}


class UsageError(Exception):
    """The command line cannot be understood; the text says which part."""


class Options:
    """What the command line asks for. A plain class: dataclasses would double the time to the first signal."""

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.group = False
        self.single_child = False
        self.warn_of_orphans = False
        self.verbosity = 0
        self.show: str | None = None
        self.parent_death_signal = 0
        self.success_codes: set[int] = set()
        self.rewrites: dict[int, int] = {}
        self.grace_seconds = GRACE_SECONDS

    def flag(self, name: str) -> None:
        """Take an option without a value."""
        match name:
            case "-g":
                self.group = True
            case "-c":
                self.single_child = True
            case "-w":
                self.warn_of_orphans = True
            case "-v":
                self.verbosity += 1
            case "-V" | "-h":
                self.show = name

    def value(self, name: str, value: str) -> None:
        """Take an option with its value; raises UsageError."""
        match name:
            case "-p":
                self.parent_death_signal = _signal_number(value)
            case "-e":
                if not (value.isascii() and value.isdigit() and int(value) <= 255):
                    raise UsageError(f"-e takes an exit code from 0 to 255, not {value!r}")
                self.success_codes.add(int(value))
            case "-r":
                source, separator, target = value.partition(":")
                if not separator:
                    raise UsageError(f"--rewrite takes SIGNAL:REPLACEMENT, not {value!r}")
                self.rewrites[_signal_number(source)] = 0 if target == "0" else _signal_number(target)
            case "--grace":
                self.grace_seconds = _seconds(value)


def parse(argv: list[str]) -> Options:
    """Read the command line: options as getopt has them, up to `--` or the first word that is none."""
    options = Options()
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        for name, value in _split(word, words):
            if value is None:
                options.flag(name)
            else:
                options.value(name, value)
    options.argv = words
    if options.group and options.single_child:
        raise UsageError("-g and -c exclude each other: with -c the command has no process group of its own")
    if not words and options.show is None:
        raise UsageError("no command given")
    return options


def _split(word: str, rest: list[str]) -> Iterator[tuple[str, str | None]]:
    """The options in one word (`-gvv`, `-e143`, `--rewrite=15:3`); a missing value is taken from `rest`."""
    if word.startswith("--"):
        name, separator, value = word.partition("=")
        name = _LONG.get(name, "")
        if name in _FLAGS and not separator:
            yield name, None
        elif name in _WITH_VALUE:
            yield name, value if separator else _next(word, rest)
        else:
            raise UsageError(f"unknown option {word!r}")
        return
    letters = word[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        if name in _FLAGS:
            yield name, None
        elif name in _WITH_VALUE:
            yield name, letters or _next(name, rest)
            return
        else:
            raise UsageError(f"unknown option {name!r}")


def _next(name: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"option {name!r} needs a value")
    return rest.pop(0)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise UsageError(f"--grace takes seconds from 0 to 86400, not {value!r}")
    return seconds


def _signal_number(word: str) -> int:
    if word.isascii() and word.isdigit():
        number = int(word)
    else:
        name = word.upper()
        number = getattr(signal.Signals, name if name.startswith("SIG") else f"SIG{name}", 0)
    if number not in signal.valid_signals():
        raise UsageError(f"no such signal: {word!r}")
    return int(number)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _say(text: str) -> None:
    # Past sys.stderr: it may be closed, and in a forked child its buffer is not ours.
    with contextlib.suppress(OSError):
        os.write(2, f"supervisor init: {text}\n".encode(errors="surrogateescape"))


def main(argv: list[str]) -> int:
    """Run the command in `argv` to its end and give the status to exit with. Leaves all signals blocked."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _CATCHABLE)
    try:
        options = parse(argv)
    except UsageError as error:
        _say(str(error))
        with contextlib.suppress(OSError):
            os.write(2, USAGE.encode())
        return ExitCode.USAGE
    if options.show is not None:
        from supervisor import __version__

        print(USAGE if options.show == "-h" else f"supervisor {__version__}\n", end="")
        return ExitCode.OK
    return Init(options, mask).run()


class Init:
    """One command, run to its end. `mask` holds the signals that were blocked when we were started."""

    def __init__(self, options: Options, mask: set[signal.Signals] | set[int]) -> None:
        self._options = options
        self._mask = mask
        self._terminal = not options.single_child and _in_foreground()
        self._pid = 0
        self._status: int | None = None
        # A parent that ignores CHLD hands that on, and the kernel would then throw every status away.
        self._ignore_child = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def run(self) -> int:
        """Start the command, see it and what it leaves behind to their end; gives the status to exit with."""
        self._prepare()
        try:
            self._pid = os.fork()
        except OSError as error:
            _say(f"cannot start {self._options.argv[0]!r}: {error.strerror}; is the limit of processes reached?")
            return ExitCode.NOT_EXECUTABLE
        if self._pid == 0:
            self._become_command()
        self._note(f"started {self._options.argv[0]!r} as pid {self._pid}")
        status = self._run_to_end()
        if self._terminal:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(0, os.getpgrp())
        self._end_rest()
        self._note(f"{self._options.argv[0]!r} ended with status {status}")
        return 0 if status in self._options.success_codes else status

    def _prepare(self) -> None:
        if os.getpid() != 1:
            from supervisor.process.pid1 import Reaping, adopt_orphans  # loads ctypes, which PID 1 can do without

            if adopt_orphans() is Reaping.NONE:
                _say("warning: cannot reap orphans: neither PID 1 nor allowed to adopt them; they go to another init")
        if self._options.parent_death_signal:
            import ctypes

            if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, self._options.parent_death_signal, 0, 0, 0) != 0:
                _say("warning: cannot ask for a signal at the parent's end")

    def _become_command(self) -> None:
        """In the child: never returns. Signals are still blocked, so TTOU cannot stop the call for the terminal."""
        try:
            if self._terminal:
                os.setpgid(0, 0)
                with contextlib.suppress(OSError):  # hung up meanwhile
                    os.tcsetpgrp(0, os.getpid())
            elif not self._options.single_child:
                os.setsid()
            self._restore_signals()
            _drop_coerced_locale()
            _execute(self._options.argv)
        except OSError as error:
            code, why = _explain(self._options.argv[0], error)
            _say(f"cannot execute {self._options.argv[0]!r}: {why}")
            os._exit(code)
        finally:
            os._exit(ExitCode.NOT_EXECUTABLE)

    def _restore_signals(self) -> None:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        # Exec would reset Python's handler, but an INT between here and there would be taken by it and be lost.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._ignore_child:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _run_to_end(self) -> int:
        while True:
            self._reap()
            if self._status is not None:
                value = os.waitstatus_to_exitcode(self._status)
                return value if value >= 0 else 128 - value
            info = signal.sigwaitinfo(_CATCHABLE)
            if info.si_signo != signal.SIGCHLD:
                self._forward(info)

    def _reap(self) -> bool:
        """Collect every ended process; whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._status = status
            elif self._options.warn_of_orphans:
                _say(f"warning: reaped the orphan {pid}")
            else:
                self._note(f"reaped the orphan {pid}")

    def _forward(self, info: signal.struct_siginfo) -> None:
        number = self._options.rewrites.get(info.si_signo, info.si_signo)
        if number == 0 or self._has_it_already(info):
            self._note(f"dropped {_name(info.si_signo)}")
            return
        with contextlib.suppress(OSError):  # a command that became another user may not be ours to signal
            self._send(number)
            self._note(f"forwarded {_name(info.si_signo)} as {_name(number)}")

    def _has_it_already(self, info: signal.struct_siginfo) -> bool:
        """With `-c` the terminal's driver signals the child along with us; a second ^C means "at once" to many."""
        return self._options.single_child and info.si_code == _FROM_KERNEL and info.si_signo in _FROM_TERMINAL

    def _send(self, number: int) -> None:
        # The child is unreaped here, so neither number can belong to anybody else.
        if self._options.group:
            try:
                os.killpg(self._pid, number)
                return
            except ProcessLookupError:
                pass  # between fork and its own group
        os.kill(self._pid, number)

    def _end_rest(self) -> None:
        """Stop what the command left behind: TERM, the grace, KILL; returns as soon as no child is left."""
        if not self._reap():
            return
        if self._options.grace_seconds > 0 and not self._wait_rest(signal.SIGTERM, self._options.grace_seconds):
            return
        if self._wait_rest(signal.SIGKILL, _FINAL_SECONDS):
            _say("warning: processes are left that cannot be killed")

    def _wait_rest(self, number: int, limit_seconds: float) -> bool:
        """Send `number` once to all that is left and is yet to come to us, and wait; whether any child is left then."""
        self._note(f"sending {_name(number)} to what is left")
        deadline = time.monotonic() + limit_seconds
        told: set[int] = set()
        _signal_rest(number, told)
        while self._reap():
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                return True
            info = signal.sigtimedwait(_CATCHABLE, left_seconds)
            if info is not None and info.si_signo != signal.SIGCHLD:
                _signal_rest(info.si_signo, set())
            elif os.getpid() != 1:
                _signal_rest(number, told)
        return False

    def _note(self, text: str) -> None:
        if self._options.verbosity:
            _say(text)


def _signal_rest(number: int, told: set[int]) -> None:
    """Signal what is left, save the pids in `told`, which grows by those signalled.

    As PID 1 one call reaches the whole namespace. Elsewhere only our own children: nobody else can reap those, so their
    pids cannot have passed to a stranger; what they leave comes to us in turn.
    """
    if os.getpid() == 1:
        _kill(-1, number)
        return
    for pid in _own_children():
        if pid not in told:
            told.add(pid)
            _kill(pid, number)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
        if number == signal.SIGTERM:
            os.kill(pid, signal.SIGCONT)  # a stopped process cannot act on its TERM


def _own_children() -> list[int]:
    """Our children as /proc has them; none where it is not mounted."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and _parent(int(name)) == os.getpid():
                found.append(int(name))
    return found


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1


def _in_foreground() -> bool:
    """Whether stdin is our controlling terminal and we may hand its foreground on."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _drop_coerced_locale() -> None:
    """Take back the LC_CTYPE that Python itself sets where the locale is C (PEP 538)."""
    with contextlib.suppress(OSError), open("/proc/self/environ", "rb") as file:
        if not any(entry.startswith(b"LC_CTYPE=") for entry in file.read().split(b"\0")):
            os.environ.pop("LC_CTYPE", None)


def _execute(argv: list[str]) -> None:
    """Exec by the rules of execvp(3), a script without a #! line included; raises OSError."""
    program = argv[0]
    paths = [program] if "/" in program else [os.path.join(folder, program) for folder in os.get_exec_path()]
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in paths if program else []:
        try:
            os.execv(path, argv)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                os.execv("/bin/sh", ["/bin/sh", path, *argv[1:]])
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error
    raise failure


def _explain(program: str, error: OSError) -> tuple[ExitCode, str]:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if "/" not in program:
            return ExitCode.NOT_FOUND, "no such program on the PATH; check the command's first word"
        if os.path.exists(program):
            return ExitCode.NOT_FOUND, "the interpreter its #! line or its header names does not exist; install that"
        return ExitCode.NOT_FOUND, "no such file; check the path"
    if error.errno == errno.EACCES:
        return ExitCode.NOT_EXECUTABLE, f"not executable for uid {os.getuid()}; check its mode and folder"
    return ExitCode.NOT_EXECUTABLE, os.strerror(error.errno or 0)
