"""A stack with two apps of `asker.py`."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.docker.stack import Stack

_FILES = Path(__file__).parent
_DOCKERFILE = """
FROM {parent}
RUN rm -rf /app/*
COPY . /app
ENV APP_COMMAND= SUPERVISOR_APP_COMMAND=
"""
_ASK = """import sys, urllib.request as web
asked = web.Request(sys.argv[1], sys.argv[2].encode())
sys.stdout.write(web.urlopen(asked).read().decode())
"""


@dataclass
class SeveralStack(Stack):
    """`api` on the published port, and `auth` on 3001 in the container."""

    def prepare(self) -> SeveralStack:
        if not self.image:
            super().prepare()
            tag = f"supervisor-test/several:{self.kind}"
            with tempfile.TemporaryDirectory(prefix="several-") as name:
                shutil.copytree(_FILES, name, dirs_exist_ok=True)
                (Path(name) / "Dockerfile").write_text(_DOCKERFILE.format(parent=self.image))
                self.share.engine.run("build", "--quiet", "--tag", tag, name)
            self.image = tag
        return self

    @property
    def is_whole(self) -> bool:
        return self.overall == "running"

    def ask(self, app: str, path: str, what: str) -> dict[str, Any]:
        port = {"api": 3000, "auth": 3001}[app]
        url, body = f"http://127.0.0.1:{port}{path}", json.dumps({"ask": what})
        answer: dict[str, Any] = json.loads(self.inside("python", "-c", _ASK, url, body))
        return answer
