"""Why a generation was refused, for people: what it answered, what it wrote, and what the system shows of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread

from supervisor.app.front.model import Place
from supervisor.process.child import Child
from supervisor.process.listening import Listener, listeners_of, process_tree

OUTPUT_LINES = 20
_READ_LINES = 200  # a complaint may stand far above the last words
_NEAR_LINES = 12  # Node prints the error object, with the port in it, below its message and stack
# The words of Node, Python, gunicorn, Go, Java, Spring, Rust, Ruby, nginx, Erlang, .NET; musl leaves "already" out.
_IN_USE = re.compile(
    r"EADDRINUSE|address (?:is )?(?:already )?in use|AddrInUse|connection in use"
    r"|port \d+ (?:is|was) (?:already )?in use",
    re.IGNORECASE,
)
_NAMED = re.compile(r"""(?:\bport["']?\W{0,3}|(?<!"pid")[:,]\s?)(\d{2,5})(?!\d)""", re.IGNORECASE)
_PORT_FIELD = re.compile(r"""\bport["']?\W{0,3}(\d{2,5})(?!\d)""", re.IGNORECASE)
_LEAST_NAMED = 1024  # below are parts of times and numbers of errors
_EVERYWHERE = frozenset({"0.0.0.0", "::", "::ffff:0.0.0.0"})


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a refused generation; `listeners` is None where that cannot be seen, `answer` the last probe's.

    `public_port` is the port that the front holds; with a front of kind `restart` it is the place's own.
    """

    place: Place
    public_port: int
    alive: bool
    answer: str = ""
    output: Sequence[str] = ()
    listeners: tuple[Listener, ...] | None = None


@dataclass(frozen=True)
class Evidence:
    """The last answer to a probe, hints of what is wrong and how to mend it, and the last lines of output."""

    answer: str
    hints: tuple[str, ...]
    output: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"answer": self.answer, "hints": list(self.hints), "output": list(self.output)}

    def __str__(self) -> str:
        first = "; ".join((f"last answer: {self.answer}", *self.hints) if self.answer else self.hints)
        lines = "\n".join(f"    {line}" for line in self.output)
        return f"{first}\n  last lines of its output:\n{lines}" if lines else f"{first}\n  it wrote no output"


def hints(seen: Seen) -> tuple[str, ...]:
    """What is wrong, as far as it can be told; the surest first."""
    return tuple(hint for hint in (_taken(seen), _elsewhere(seen), _unreachable(seen)) if hint)


def _taken(seen: Seen) -> str:
    """It complains that a port is in use."""
    if seen.public_port == seen.place.port:
        return ""  # it was given the public port: who holds that is told before it is started
    found = [_ports(seen.output, number) for number, line in enumerate(seen.output) if _IN_USE.search(line)]
    if not found:
        return ""
    ports = frozenset[int]().union(*found)
    if seen.public_port in ports:
        return (
            f"it ignores PORT ({seen.place.port}) and tried the public port {seen.public_port}, which the front holds; "
            f"let it listen on the port in PORT, or set SUPERVISOR_FRONT=restart"
        )
    if seen.place.port in ports:
        return f"it found the port in PORT ({seen.place.port}) in use: does it listen there twice?"
    others = ", ".join(str(port) for port in sorted(ports) if port >= _LEAST_NAMED)
    if others:
        return (
            f"it tried port {others}, which is in use, perhaps by the generation that serves; "
            f"let it choose a free one, or set SUPERVISOR_OVERLAP=false"
        )
    return (
        f"an address it asked for is in use; let it listen on the port in PORT ({seen.place.port}), as the front holds "
        f"the public port {seen.public_port}, or set SUPERVISOR_FRONT=restart"
    )


def _ports(output: Sequence[str], number: int) -> frozenset[int]:
    """The ports a complaint names in its line, or as `port: 3000` soon after."""
    here = _NAMED.findall(output[number])
    below = _PORT_FIELD.findall("\n".join(output[number + 1 : number + 1 + _NEAR_LINES]))
    return frozenset(int(text) for text in (*here, *below))


def _elsewhere(seen: Seen) -> str:
    """It runs and listens, but not on its port; or nowhere."""
    if not seen.alive or seen.listeners is None:
        return ""
    ports = sorted({listener.port for listener in seen.listeners})
    if seen.place.port in ports:
        return ""
    if not ports:
        return (
            f"it listens on no port; let it listen on the port in PORT ({seen.place.port}), or set "
            f"SUPERVISOR_APP_HEALTH=none for an app without one"
        )
    word = "port" if len(ports) == 1 else "ports"
    return f"it listens on {word} {', '.join(str(port) for port in ports)}, not on the port in PORT ({seen.place.port})"


def _unreachable(seen: Seen) -> str:
    """It listens on its port, but on an address that we do not reach."""
    here = [listener for listener in seen.listeners or () if listener.port == seen.place.port]
    if not here or any(_reaches(listener.address, seen) for listener in here):
        return ""
    where = " and ".join(str(listener) for listener in here)
    return (
        f"it listens on {where} only, which {seen.place.host} does not reach; let it listen on the address in HOST and "
        f"HOSTNAME ({seen.place.host}), or on 0.0.0.0"
    )


def _reaches(address: str, seen: Seen) -> bool:
    if address == "::" and "connection refused" in seen.answer:
        return False  # IPv6 only: the kernel's table does not tell, the answer does
    return address in (_EVERYWHERE | {seen.place.host, f"::ffff:{seen.place.host}"})


async def look(child: Child, place: Place, *, public_port: int, answer: str, since: int = 0) -> Evidence:
    """The evidence against a generation: call it before it is stopped, as what is stopped listens nowhere.

    `since` is the number of the last line in its ring before it was spawned. /proc is read in a thread, as with ten
    thousand connections its tables are long.
    """
    output = tuple(line.text for line in child.ring.since(since)[-_READ_LINES:])
    alive = child.alive
    listeners = await anyio.to_thread.run_sync(_listeners, child.pid, child.marker) if alive else ()
    seen = Seen(
        place=place,
        public_port=public_port,
        alive=alive,
        answer=answer,
        output=output,
        listeners=listeners,
    )
    return Evidence(answer, hints(seen), output[-OUTPUT_LINES:])


def _listeners(leader: int, marker: str) -> tuple[Listener, ...] | None:
    return listeners_of(process_tree(leader, marker))
