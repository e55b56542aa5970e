"""`python -m tests.load URL --rate N ...`: send the load, say on standard output what happens, a JSON object a line.

The last line is the report. TERM or INT stops the sending; what is on its way is waited for.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
from typing import Any

from tests.load.generator import Generator
from tests.load.plan import Plan


def main() -> int:
    """0 whatever was found: how good it is the caller decides."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description="Open-loop load over HTTP/1.1.")
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--connections", type=int, default=0, help="kept open; 0: a new one for each request")
    parser.add_argument("--post-every", type=int, default=0, help="every Nth is a POST; 0: none")
    parser.add_argument("--quiet-seconds", type=float, default=0.0, help="reported apart, at the start")
    parser.add_argument("--limit-seconds", type=float, default=10.0, help="for one request")
    generator = Generator(Plan(**vars(parser.parse_args())), _say)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: generator.stop())
    gc.disable()  # a collection would make answers look late; nothing here is cyclic
    _say({"event": "report", **generator.run().as_dict()})
    return 0


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
