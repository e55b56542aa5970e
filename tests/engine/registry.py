"""A registry with one image, or one that never answers; run as a program inside an engine's network namespace.

python registry.py PORT FOLDER    serves FOLDER/manifest.json and FOLDER/<sha256 hex> for any repository and tag
python registry.py PORT           accepts connections and stays silent
"""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def write_image(folder: Path, archive: Path) -> str:
    """Turn an archive of `docker save` with one layer into a registry's files; the image's digest."""
    with tarfile.open(archive) as tar:
        listed = json.load(_member(tar, "manifest.json"))[0]
        config = _member(tar, listed["Config"]).read()
        layer = gzip.compress(_member(tar, listed["Layers"][0]).read(), mtime=0)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _blob(folder, config, "application/vnd.docker.container.image.v1+json"),
        "layers": [_blob(folder, layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
    }
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _member(tar: tarfile.TarFile, name: str):  # type: ignore[no-untyped-def]
    file = tar.extractfile(name)
    assert file is not None, name
    return file


def _blob(folder: Path, data: bytes, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (folder / digest).write_bytes(data)
    return {"mediaType": kind, "size": len(data), "digest": f"sha256:{digest}"}


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        kind, name = "application/octet-stream", ""
        if "/blobs/" in self.path:
            name = self.path.rpartition(":")[2]
        elif "/manifests/" in self.path:
            kind, name = _MANIFEST, "manifest.json"
        path = self.folder / name
        if self.path != "/v2/" and not path.is_file():
            self._answer(404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        else:
            self._answer(200, kind, path.read_bytes() if name else b"{}")

    def _answer(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(data).hexdigest()}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET


def main(arguments: list[str]) -> None:
    """Serve until killed."""
    port = int(arguments[0])
    if len(arguments) > 1:
        _Handler.folder = Path(arguments[1])
        ThreadingHTTPServer(("127.0.0.1", port), _Handler).serve_forever()
    with socket.create_server(("127.0.0.1", port)) as listener:
        held = []
        while True:
            held.append(listener.accept())


if __name__ == "__main__":
    main(sys.argv[1:])
