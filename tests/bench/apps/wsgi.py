"""For `gunicorn tests.bench.apps.wsgi:app`: the import is the start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.bench.apps.release import Release, boot

release: Release = boot()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """One request."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    time.sleep(release.work_seconds(environ["PATH_INFO"]))
    answer = body if environ["REQUEST_METHOD"] == "POST" else b"ok\n"
    status = f"{release.status()} Whatever"
    start_response(status, [("Content-Length", str(len(answer))), ("App-Version", str(release.version))])
    return [answer]
