"""Getting images: names, archives, and the ways in their order; really pulled and loaded on a private engine."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.errors import ConfigurationError, ExitCode, UnreachableError
from supervisor.engine.archives import parse_lists, read_archive, read_folder
from supervisor.engine.client import Endpoint, Engine
from supervisor.engine.errors import NotFound
from supervisor.engine.images import ImageResolver, PullLimits, PullProgress, resolved
from supervisor.engine.reference import Reference
from tests.engine import registry
from tests.engine.daemons import BUSYBOX, Daemon, private_daemon, save_image

pytestmark = pytest.mark.anyio
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "domain", "repository", "tag", "digest", "asked"),
    [
        ("postgres", "docker.io", "postgres", "latest", None, "postgres:latest"),
        ("postgres:18", "docker.io", "postgres", "18", None, "postgres:18"),
        ("library/postgres:18", "docker.io", "postgres", "18", None, "postgres:18"),
        ("docker.io/library/postgres:18", "docker.io", "postgres", "18", None, "postgres:18"),
        ("index.docker.io/library/postgres:18", "docker.io", "postgres", "18", None, "postgres:18"),
        ("team/app", "docker.io", "team/app", "latest", None, "team/app:latest"),
        ("localhost/app:1", "localhost", "localhost/app", "1", None, "localhost/app:1"),
        ("reg:5000/a/b:2", "reg:5000", "reg:5000/a/b", "2", None, "reg:5000/a/b:2"),
        ("reg:5000/a", "reg:5000", "reg:5000/a", "latest", None, "reg:5000/a:latest"),
        ("ghcr.io/a/b:1", "ghcr.io", "ghcr.io/a/b", "1", None, "ghcr.io/a/b:1"),
        (f"postgres@{DIGEST}", "docker.io", "postgres", None, DIGEST, f"postgres@{DIGEST}"),
        (f"postgres:18@{DIGEST}", "docker.io", "postgres", "18", DIGEST, f"postgres@{DIGEST}"),
    ],
)
def test_reference_is_read_as_docker_reads_it(
    text: str, domain: str, repository: str, tag: str | None, digest: str | None, asked: str
) -> None:
    found = Reference.parse(text)
    assert (found.domain, found.repository, found.tag, found.digest, found.text) == (
        domain,
        repository,
        tag,
        digest,
        asked,
    )


@pytest.mark.parametrize("text", ["", "Postgres:18", "postgres :18", "a/", "a@digest", ":18", "@sha256:1"])
def test_what_is_no_reference_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot use image .*: it is no image reference; write it as"):
        Reference.parse(text)


def test_pinned_is_the_digest_of_the_same_repository_and_else_the_id() -> None:
    reference = Reference.parse("postgres:18")
    image: dict[str, Any] = {"Id": "sha256:1", "RepoDigests": [f"mirror.test/postgres@{OTHER_DIGEST}"]}
    assert resolved(reference, image).pinned == "sha256:1"
    image["RepoDigests"].append(f"postgres@{DIGEST}")
    found = resolved(reference, image)
    assert (found.id, found.digest, found.pinned) == ("sha256:1", DIGEST, f"postgres@{DIGEST}")
    assert resolved(reference, {"Id": "sha256:1", "RepoDigests": None}).pinned == "sha256:1"


# --- archives -----------------------------------------------------------------------------------------------------


def test_lists_give_canonical_names_and_digests() -> None:
    manifest = [{"RepoTags": ["docker.io/library/redis:8", "reg:5000/x:1"]}, {"RepoTags": None}, "odd"]
    index = {
        "manifests": [
            {"digest": DIGEST, "annotations": {"io.containerd.image.name": "docker.io/library/traefik:3"}},
            {"digest": OTHER_DIGEST, "annotations": {"org.opencontainers.image.ref.name": "3"}},
        ]
    }
    names, digests = parse_lists(manifest, index)
    assert names == {"redis:8", "reg:5000/x:1", "traefik:3"}
    assert digests == {DIGEST, OTHER_DIGEST}
    assert parse_lists(None, None) == (frozenset(), frozenset())
    assert parse_lists({"not": "a list"}, ["not an object"]) == (frozenset(), frozenset())


def test_archive_is_matched_by_tag_and_by_digest_only_where_it_tells_one(tmp_path: Path) -> None:
    save_image(tmp_path / "one.tar", "redis:8")
    archive = read_archive(tmp_path / "one.tar")
    assert archive.holds(Reference.parse("docker.io/library/redis:8"))
    assert not archive.holds(Reference.parse("redis:7"))
    assert not archive.holds(Reference.parse(f"redis:8@{DIGEST}"))


def test_folder_names_what_it_could_not_read_and_looks_into_the_rest(tmp_path: Path) -> None:
    save_image(tmp_path / "b.tar", "redis:8")
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress((tmp_path / "b.tar").read_bytes()))
    (tmp_path / "a.tar").write_bytes(b"no tar at all")
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    (tmp_path / "e.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:700])
    (tmp_path / "notes.txt").write_text("not looked at")
    folder = read_folder(tmp_path)
    assert [archive.path.name for archive in folder.archives] == ["b.tar", "c.tar.gz"]
    assert [text.split(":")[0] for text in folder.unreadable] == ["a.tar", "d.tar", "e.tar"]
    found = folder.find(Reference.parse("redis:8"))
    assert found is not None
    assert found.path.name == "b.tar"


def test_missing_folder_is_a_configuration_error_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read image folder .*No such file.*SUPERVISOR_IMAGES_DIR"):
        read_folder(tmp_path / "none")


def test_progress_is_told_by_quarters_and_not_by_the_line() -> None:
    told = PullProgress()
    lines: list[dict[str, Any]] = [{"status": "Pulling from library/redis", "id": "8"}]
    lines += [{"status": "Pulling fs layer", "id": layer} for layer in ("a", "b")]
    for current in range(0, 1_000_001, 10_000):
        lines += [
            {"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": 1_000_000}}
            for layer in ("a", "b")
        ]
    lines += [{"status": "Download complete", "id": "a"}, {"status": f"Digest: {DIGEST}"}]
    words = [word for line in lines for word in told.feed(line)]
    assert words[0] == "Pulling from library/redis"
    assert words[1:-1] == ["0.5 of 2.0 MB", "1.0 of 2.0 MB", "1.5 of 2.0 MB", "2.0 of 2.0 MB"]
    assert words[-1] == f"Digest: {DIGEST}"


# --- really -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """An engine without any way to a registry but those that tests start beside it on loopback."""
    with private_daemon() as made:
        yield made


@pytest.fixture
async def engine(daemon: Daemon) -> AsyncIterator[Engine]:
    made = Engine(Endpoint(daemon.host))
    yield made
    for image in await made.images.find():
        for name in image["RepoTags"] or image["RepoDigests"] or [image["Id"]]:
            await made.images.remove(name)
    made.close()


def asked(daemon: Daemon) -> int:
    """How often the engine's log names a pull."""
    return daemon.log().count("POST /v1.41/images/create")


@pytest.fixture(scope="module")
def logging_daemon() -> Iterator[Daemon]:
    """An engine that logs its requests."""
    with private_daemon("--debug") as made:
        yield made


@pytest.mark.engine
async def test_present_image_is_used_without_asking_a_registry(logging_daemon: Daemon, tmp_path: Path) -> None:
    save_image(tmp_path / "busybox.tar", BUSYBOX)
    logging_daemon.docker("load", "--input", str(tmp_path / "busybox.tar"))
    engine = Engine(Endpoint(logging_daemon.host))
    told: list[str] = []
    found = await ImageResolver(engine, folder=tmp_path / "not-looked-at").resolve(BUSYBOX, told.append)
    assert found.id.startswith("sha256:")
    assert (found.reference, found.digest, found.pinned) == (BUSYBOX, None, found.id)
    again = await ImageResolver(engine).resolve(found.pinned)
    assert again.id == found.id
    assert (told, asked(logging_daemon)) == ([], 0)
    with pytest.raises(UnreachableError):
        await ImageResolver(engine).resolve("supervisor-test/none:1")
    assert asked(logging_daemon) > 0, "a pull is not seen in the log, so its absence proved nothing"
    engine.close()


@pytest.mark.engine
async def test_missing_image_is_loaded_from_the_one_archive_that_holds_it(engine: Engine, tmp_path: Path) -> None:
    save_image(tmp_path / "a.tar", "supervisor-test/other:1", command=("/bin/true",))
    save_image(tmp_path / "b.tar", BUSYBOX)
    told: list[str] = []
    found = await ImageResolver(engine, folder=tmp_path).resolve(BUSYBOX, told.append)
    assert found.pinned == found.id
    assert told[0] == f"{BUSYBOX}: pulling"
    assert told[-1].startswith(f"{BUSYBOX}: not pulled (")
    assert told[-1].endswith(f"loading {tmp_path / 'b.tar'}")
    assert [image["RepoTags"] for image in await engine.images.find()] == [[BUSYBOX]]


@pytest.mark.engine
async def test_image_that_is_nowhere_is_an_error_with_cause_and_ways_out(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_bytes(b"rubbish")
    with pytest.raises(UnreachableError) as caught:
        await ImageResolver(engine, folder=tmp_path).resolve("supervisor-test/none:7")
    text = str(caught.value)
    assert text.startswith("cannot get image 'supervisor-test/none:7': the engine does not have it, pulling failed (")
    for part in ("registry", "no archive in", "broken.tar", "docker.io", "docker load", "docker save", "_IMAGES_DIR"):
        assert part in text, part
    assert caught.value.exit_code is ExitCode.UNREACHABLE


@pytest.mark.engine
async def test_missing_id_says_that_ids_cannot_be_pulled(engine: Engine) -> None:
    with pytest.raises(UnreachableError, match="has none with this id, and an id cannot be pulled"):
        await ImageResolver(engine).resolve(DIGEST)


@pytest.mark.engine
async def test_broken_archive_says_how_to_make_it_again(engine: Engine, tmp_path: Path) -> None:
    manifest = json.dumps([{"Config": "none.json", "RepoTags": [BUSYBOX], "Layers": ["none/layer.tar"]}]).encode()
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        tar.addfile(member, io.BytesIO(manifest))
    with pytest.raises(UnreachableError, match=r"cannot load image .* from .*b.tar.*docker save -o b.tar"):
        await ImageResolver(engine, folder=tmp_path).resolve(BUSYBOX)


@pytest.mark.engine
async def test_image_is_pulled_to_completion_and_pinned_by_its_digest(
    engine: Engine, daemon: Daemon, tmp_path: Path
) -> None:
    save_image(tmp_path / "busybox.tar", BUSYBOX)
    digest = registry.write_image(tmp_path, tmp_path / "busybox.tar")
    daemon.leave_running(sys.executable, registry.__file__, "5001", str(tmp_path), port=5001)
    told: list[str] = []
    found = await ImageResolver(engine).resolve("127.0.0.1:5001/team/box:1", told.append)
    assert (found.digest, found.pinned) == (digest, f"127.0.0.1:5001/team/box@{digest}")
    assert told[0] == "127.0.0.1:5001/team/box:1: pulling"
    assert f"127.0.0.1:5001/team/box:1: Digest: {digest}" in told
    assert (await ImageResolver(engine).resolve(found.pinned)).pinned == found.pinned
    again = await engine.containers.create({"Image": found.pinned, "Cmd": ["/bin/true"]}, "pulled")
    await engine.containers.remove(again)


@pytest.mark.engine
async def test_tag_that_the_registry_lacks_is_refused_in_its_words(
    engine: Engine, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    daemon.leave_running(sys.executable, registry.__file__, "5002", str(tmp_path / "empty"), port=5002)
    with pytest.raises(UnreachableError, match=r"pulling failed \(manifest .*unknown.*no folder with archives is set"):
        await ImageResolver(engine).resolve("127.0.0.1:5002/team/box:1")


@pytest.mark.engine
async def test_registry_that_stays_silent_is_given_up_for_the_archive(
    engine: Engine, daemon: Daemon, tmp_path: Path
) -> None:
    daemon.leave_running(sys.executable, registry.__file__, "5003", port=5003)
    name = "127.0.0.1:5003/team/box:1"
    save_image(tmp_path / "box.tar", name)
    told: list[str] = []
    limits = PullLimits(stall_seconds=30, stall_with_archive_seconds=0.3)
    found = await ImageResolver(engine, folder=tmp_path, limits=limits).resolve(name, told.append)
    assert found.pinned == found.id
    assert f"{name}: not pulled (no progress for 0.3 s); loading {tmp_path / 'box.tar'}" in told


@pytest.mark.engine
async def test_digest_is_not_taken_from_an_archive_that_cannot_vouch_for_it(engine: Engine, tmp_path: Path) -> None:
    save_image(tmp_path / "box.tar", BUSYBOX)
    with pytest.raises(UnreachableError, match=r"no archive in .* holds it"):
        await ImageResolver(engine, folder=tmp_path).resolve(f"{BUSYBOX}@{DIGEST}")
    with pytest.raises(NotFound):
        await engine.images.inspect(BUSYBOX)
