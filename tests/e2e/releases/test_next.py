"""A page that was loaded before an update still gets its hashed files after it: of a small app here, of a real Next.js
app in the long form, in a real browser.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from tests.chromium import Chromium, Tab, chromium, open_tab
from tests.e2e.conftest import Make
from tests.e2e.harness import request
from tests.e2e.releases.rig import ReleasedApp

pytestmark = pytest.mark.anyio
NEXT_APP = Path(__file__).parent / "next_app"
NEXT_ASSETS, ASSETS = ".next/static", "_next/static"
_SERVE_FILES = 'exec python -m http.server "$PORT"'
_BUILD_SECONDS = 300

MakePages = Callable[..., ReleasedApp]


@pytest.fixture
def make_pages(make: Make, folder: Path) -> MakePages:
    """The app of a tree, behind a supervisor that was not started yet."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.skip("haproxy is not installed")

    def make_one(tree: Path, *command: str) -> ReleasedApp:
        place = folder / "app"
        app = ReleasedApp(make("--no-services", "--app-dir", str(place), "--", *command), place)
        shutil.copytree(tree, place, dirs_exist_ok=True, symlinks=True)
        return app

    return make_one


def update(app: ReleasedApp, tree: Path, number: int, *, kept: str) -> None:
    """Apply a tree as a release."""
    options = ["--keep-assets", kept] if kept else []
    named = ["--app", "app", "--version", f"{number}.0", "--sequence", str(number)]
    ended = app.run("release", "build", str(tree), *named, *options)
    assert ended.code == 0, ended.error
    assert app.apply(tree / "dist-tarball" / f"app-{number}.0.tar.zst")["result"] == "ok"
    assert app.run("release", "confirm").code == 0


def hashed(app: ReleasedApp) -> dict[str, str]:
    """The hashed files that the page names, with what is answered for them."""
    status, page = request(app.supervisor.port, "/")
    assert status == 200
    names = set(re.findall(r"/_next/static/[\w./%-]+", page))
    assert names, page
    return {name: fetched(app, name) for name in names}


def fetched(app: ReleasedApp, name: str) -> str:
    status, text = request(app.supervisor.port, name)
    assert status == 200, f"{name}: {status}"
    return text


def pages(folder: Path, number: int) -> Path:
    """A page that names a file which is called after its content."""
    tree = folder / f"pages-{number}"
    chunks = tree / ASSETS / "chunks"
    chunks.mkdir(parents=True)
    (chunks / f"page-{number}.js").write_text(f"// of {number}")
    (tree / "index.html").write_text(f'<script src="/_next/static/chunks/page-{number}.js"></script>')
    return tree


def test_pages_of_two_releases_ago_of_the_image_and_of_a_release_that_was_left_still_get_their_files(
    make_pages: MakePages, tmp_path: Path
) -> None:
    app = make_pages(pages(tmp_path, 1), "sh", "-c", _SERVE_FILES)
    app.boot(SUPERVISOR_APP_HEALTH_PATH="/index.html")
    seen = hashed(app)
    for number in (2, 3):
        update(app, pages(tmp_path, number), number, kept=ASSETS)
        seen |= hashed(app)
    assert len(seen) == 3
    assert {name: fetched(app, name) for name in seen} == seen
    assert app.run("release", "rollback").code == 0
    assert len(hashed(app).keys() & seen.keys()) == 1
    assert {name: fetched(app, name) for name in seen} == seen, "also those of the release that was left"
    update(app, pages(tmp_path, 4), 4, kept="")
    assert [request(app.supervisor.port, name)[0] for name in seen] == [404] * 3


@pytest.fixture(scope="module")
def next_trees(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The app of `next_app`, built twice by Next.js itself: as version 1 and as version 2."""
    source = tmp_path_factory.mktemp("next") / "source"
    shutil.copytree(NEXT_APP, source)
    run(source, "npm", "ci", "--no-audit", "--no-fund")
    trees = []
    for number in (1, 2):
        for name in ("page.jsx", "details.jsx"):
            text = (NEXT_APP / "app" / name).read_text()
            (source / "app" / name).write_text(text.replace("version = 1", f"version = {number}"))
        run(source, "node_modules/.bin/next", "build")
        tree = source.parent / f"tree-{number}"
        shutil.copytree(source / ".next" / "standalone", tree, symlinks=True)
        shutil.copytree(source / NEXT_ASSETS, tree / NEXT_ASSETS)
        trees.append(tree)
    return trees


def run(folder: Path, *command: str) -> None:
    environ = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1"}
    ended = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"


@pytest.fixture
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


async def click_for_details(tab: Tab) -> str:
    """What the page shows once its chunk is there, or that it is not."""
    await tab.value("document.querySelector('button').click()")
    shown = ""
    while "details of" not in shown and "error" not in shown:
        shown = await tab.value("document.body.innerText") or ""
        await anyio.sleep(0.01)
    return shown


@pytest.mark.soak
async def test_next_js_page_loaded_before_an_update_gets_its_chunks_after_it(
    make_pages: MakePages, next_trees: list[Path], browser: Chromium
) -> None:
    app = make_pages(next_trees[0], "node", "server.js")
    await anyio.to_thread.run_sync(lambda: app.boot(SUPERVISOR_APP_START_SECONDS="30", SUPERVISOR_APP_HEALTH_PATH="/"))
    old = hashed(app)
    address = f"http://127.0.0.1:{app.supervisor.port}/"
    async with open_tab(browser) as tab:
        await tab.call("Page.navigate", url=address)
        await tab.until("version 1")
        await anyio.to_thread.run_sync(lambda: update(app, next_trees[1], 2, kept=NEXT_ASSETS))
        assert "details of version 1" in await click_for_details(tab)
        await tab.call("Page.navigate", url=address)
        await tab.until("version 2")
        assert "details of version 2" in await click_for_details(tab)
        assert "Failed to load" not in await tab.complaints()
    assert {name: fetched(app, name) for name in old} == old
    new = hashed(app)
    assert set(new) - set(old), "the new page has no file of its own"
