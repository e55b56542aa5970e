"""Proves at the start that releases can be shown at the app's own folder, where that is asked for. Wiring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anyio

from supervisor.core.errors import ConfigurationError
from supervisor.planning.view import view_of
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.view import PROGRAMS, seen
from supervisor.releases.layout import Layout
from supervisor.services.backend import run_and_quote

_SECONDS = 10.0


async def prove_mounting(layout: Layout, app_dir: Path, reaper: Reaper, environ: Mapping[str, str]) -> None:
    """With the first of its mounts. Raises ConfigurationError where they are not possible here."""
    await anyio.to_thread.run_sync(partial((layout.base_mount / "tree").mkdir, parents=True, exist_ok=True))
    proof = Command(name="mount", argv=("true",), env=dict(environ))
    first = view_of(layout.kept / "none", app_dir)[:2]
    status, said = await run_and_quote(reaper, seen(proof, first), Ring("mount"), limit_seconds=_SECONDS)
    if status != 0:
        raise ConfigurationError(
            f"cannot show releases at {str(app_dir)!r}, as SUPERVISOR_RELEASE_MOUNT asks for: {said}; it takes "
            f"{', '.join(PROGRAMS)} in the image and CAP_SYS_ADMIN (`docker run --privileged`, or `--cap-add SYS_ADMIN "
            f"--security-opt apparmor=unconfined`); else unset it, and let commands name files from the app's folder on"
        )
