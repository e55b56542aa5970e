"""`scripts/engine`: the engine of the tests by hand."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.engine_rig import images, private, rig
from tests.engine_rig.engine import Engine
from tests.engine_rig.places import EngineRigError, cache_folder, here


def main(verb: str, arguments: list[str]) -> int:
    try:
        return _VERBS[verb](arguments)
    except (EngineRigError, subprocess.SubprocessError, OSError) as error:
        print(f"engine: {error}", file=sys.stderr)
        return 69


def _up(arguments: list[str]) -> int:
    rig.take(stay=True).leave()
    return _status(arguments)


def _down(arguments: list[str]) -> int:
    print("ended" if private.end(here()) else "no private engine runs")
    return 0


def _status(arguments: list[str]) -> int:
    engine = _engine()
    if engine is None:
        print("no engine runs")
        return 3
    print(engine.host)
    return 0


def _images(arguments: list[str]) -> int:
    taken = rig.take()
    try:
        for name in arguments or images.TAGS:
            print(taken.engine.image(name), flush=True)
    finally:
        taken.leave()
    return 0


def _docker(arguments: list[str]) -> int:
    engine = _engine()
    if engine is None:
        raise EngineRigError("cannot run docker: no engine runs; start it with 'scripts/engine up'")
    return engine.run(*arguments, check=False, quiet=False, limit_seconds=3600).returncode


def _engine() -> Engine | None:
    cache = cache_folder(os.environ, root=os.geteuid() == 0)
    if host := rig.found_host(os.environ):
        return Engine(host, private=False, cache=cache)
    places = here()
    return Engine(places.host, private=True, cache=cache) if private.answers(places.socket) else None


_VERBS = {"up": _up, "down": _down, "status": _status, "images": _images, "docker": _docker}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
