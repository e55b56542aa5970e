"""`python kill_at.py STEP ... run ...`: a supervisor that ends itself by kill -9 once a rotation has reached STEP."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

from supervisor import rotations
from supervisor.__main__ import main
from supervisor.services.tenancy.rotation import Step


def kill_at(last: Step) -> None:
    """At the first time that it is reached."""

    def reached(step: Step) -> None:
        if step is last:
            os.kill(os.getpid(), signal.SIGKILL)

    module: Any = rotations
    module.Rotations = partial(rotations.Rotations, reached=reached)


if __name__ == "__main__":
    kill_at(Step[sys.argv[1]])
    sys.argv[1:] = sys.argv[sys.argv.index("run") :]
    main()
