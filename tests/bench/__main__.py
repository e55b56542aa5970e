"""`python -m tests.bench [--quick | --full] [--rounds N] [NAME...]`: measure, print tables, write `results.md`."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from tests.bench import boot, crash, docker_boot, exec_to_signals, idle, machine, orphans, ready, release, report
from tests.bench.figures import Section, as_text
from tests.bench.reload import run as reload
from tests.bench.rig import Plan, adopt, sweep

BENCHES: dict[str, Callable[[Plan], Section]] = {
    "ready": ready.run,
    "boot": boot.run,
    "signals": exec_to_signals.run,
    "crash": crash.run,
    "idle": idle.run,
    "reload": reload.run,
    "release": release.run,
    "docker": docker_boot.run,
    "orphans": orphans.run,  # last, as the machine is busy with their end for a while
}
LIMIT_SECONDS = 600
QUICK_LIMIT_SECONDS = 180
LIMITS_SECONDS = {"docker": (2700, 900), "reload": (5400, 600)}  # full and quick, where they differ from those


def main() -> int:
    """1 when a benchmark could not be made; a missed target is not an error."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the supervisor.")
    parser.add_argument("--quick", action="store_true", help="few and short runs; prints only, writes no results.md")
    parser.add_argument("--full", action="store_true", help="reload: 300,000 requests over 40 reloads, too")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of docker; default 3, with --quick 1")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which, default all: {', '.join(BENCHES)}")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no benchmark {unknown.pop()!r}; there are {', '.join(BENCHES)}")
    adopt()
    made: list[tuple[Section, str]] = []
    names = options.names or list(BENCHES)
    for name in names:
        load = machine.load()
        section = _measure(name, Plan(options.quick, options.rounds, options.full))
        if section is not None:
            made.append((section, load))
            print(as_text(section) + "\n", flush=True)
            if not options.quick:
                report.write(made, list(BENCHES))
    if options.quick:
        print("quick: results.md is left as it is", file=sys.stderr)
    return 0 if len(made) == len(names) else 1


def _measure(name: str, plan: Plan) -> Section | None:
    """One benchmark within its limit; what it left behind is ended."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    full, quick = LIMITS_SECONDS.get(name, (LIMIT_SECONDS, QUICK_LIMIT_SECONDS))
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(quick if plan.quick else full)
    try:
        return BENCHES[name](plan)
    except Exception:
        print(f"cannot measure {name}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return None
    finally:
        signal.alarm(0)
        if left := sweep():
            print(f"{name}: ended {left} processes it left behind", file=sys.stderr)


def _out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError("the benchmark is over its time limit")


if __name__ == "__main__":
    sys.exit(main())
