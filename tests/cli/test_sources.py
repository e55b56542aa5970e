"""Where a release is read from; a server of the standard library gives what it is told to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli import sources
from supervisor.cli.sources import UnusableError


class _Handler(http.server.BaseHTTPRequestHandler):
    files: dict[str, bytes]
    cut: int

    def do_GET(self) -> None:
        data = self.files.get(self.path.partition("?")[0])
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write((data or b"")[: self.cut])

    def log_message(self, format: str, *values: object) -> None:
        """Nothing."""


class Web:
    def __init__(self, address: str, handler: type[_Handler]) -> None:
        self.address = address
        self.handler = handler


@pytest.fixture
def web() -> Iterator[Web]:
    class Handler(_Handler):
        """Of this test only."""

    Handler.files = {"/r/a.tar.zst": b"archive", "/r/manifest.json": b"{}", "/r/manifest.json.minisig": b"signature"}
    Handler.cut = 1000
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Web(f"http://127.0.0.1:{server.server_address[1]}", Handler)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_lies_beside_an_address_keeps_its_query(web: Web) -> None:
    archive = f"{web.address}/r/a.tar.zst?token=secret"
    manifest = sources.manifest_beside(archive)
    assert manifest == f"{web.address}/r/manifest.json?token=secret"
    assert sources.read(manifest) == b"{}"
    assert sources.signatures_beside(manifest) == [b"signature"]
    assert sources.name_of(archive) == "a.tar.zst"


def test_the_size_is_known_before_it_is_read(web: Web) -> None:
    with sources.opened(f"{web.address}/r/a.tar.zst") as found:
        assert (found.size, b"".join(found.blocks())) == (7, b"archive")


def test_no_signature_beside_an_address_is_none(web: Web) -> None:
    del web.handler.files["/r/manifest.json.minisig"]
    assert sources.signatures_beside(f"{web.address}/r/manifest.json") == []


def test_an_answer_that_ends_early_is_an_error(web: Web) -> None:
    web.handler.cut = 3
    with pytest.raises(UnusableError, match="it ended after 3 of 7 bytes; send it again"):
        sources.read(f"{web.address}/r/a.tar.zst")


@pytest.mark.parametrize("path", ["/nothing?token=secret", "/nothing#secret"])
def test_an_error_does_not_tell_what_may_be_secret_in_an_address(web: Web, path: str) -> None:
    with pytest.raises(UnusableError) as caught:
        sources.read(web.address.replace("//", "//user:secret@") + path)
    assert "secret" not in str(caught.value)
    assert "cannot read 'http://127.0.0.1:" in str(caught.value)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="No such file or directory; check the name"):
        sources.read(str(tmp_path / "nothing"))


def test_what_is_too_large_for_a_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 * 1024 * 1024))
    with pytest.raises(UnusableError, match="it has more than 1048576 bytes"):
        sources.read(str(tmp_path / "large"))


def test_signatures_of_several_signers_lie_beside_a_manifest(tmp_path: Path) -> None:
    for name in ("manifest.json", "manifest.json.minisig", "manifest.json.anna.minisig", "other.minisig"):
        (tmp_path / name).write_text(name)
    found = sources.signatures_beside(str(tmp_path / "manifest.json"))
    assert sorted(found) == [b"manifest.json.anna.minisig", b"manifest.json.minisig"]


def test_the_standard_input_needs_its_manifest() -> None:
    with pytest.raises(UnusableError, match="give --manifest FILE"):
        sources.manifest_beside("-")
