"""The app as the settings say it now, and which settings a reload puts in force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.app.front.model import Place
from supervisor.app.notify import NotifySocket, ReadyFd
from supervisor.app.spec import Launch
from supervisor.core.errors import ConfigurationError
from supervisor.core.mode import Mode, traits
from supervisor.core.secret import Secret
from supervisor.core.settings import Loaded, Settings
from supervisor.migrations.command import CommandMigrations
from supervisor.planning.plan import RELOADED, AppPlan, Surroundings, reloaded
from supervisor.planning.variables import AppVariables
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.stack.built_in import Web
from supervisor.stack.placement import Placement
from supervisor.store.app_secrets import AppSecrets
from supervisor.store.given_files import GivenFiles

ENVIRON = {"PATH": "/bin", "SUPERVISOR_MODE": "none", "STRIPE_KEY": "of-api", "SHARED": "of-all"}


def variables(folder: Path, database_url: Secret | None) -> AppVariables:
    return AppVariables(
        environ=ENVIRON,
        secrets_folder=folder / "secrets",
        database_url=lambda app: database_url,
        redis_url=lambda app: None,
    )


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    return Surroundings(
        runtime_dir=tmp_path,
        placement=Placement(Mode.NONE, traits(Mode.NONE), ()),
        variables=variables(tmp_path, Secret("postgresql://db")),
        migration_url=lambda app: Secret("postgresql://db"),
        files=GivenFiles(tmp_path / "given"),
        hold=True,
        excuse=lambda: "",
        reaper=Reaper(),
        ring=Ring,
    )


def settings(tmp_path: Path, **values: Any) -> Settings:
    return Settings(**{"app_command": ("serve", "--fast"), "app_dir": tmp_path, "port": 3000, **values})


def said(settings: Settings) -> Loaded:
    return Loaded(settings=settings, origins={})


def launch(plan: AppPlan, place: Place, *, overlapping: bool = False) -> dict[str, str]:
    """The environment of one generation."""
    return dict(plan.spec.command(Launch(7, place, ReadyFd(), overlapping)).env)


def test_settings_become_the_spec(tmp_path: Path, around: Surroundings) -> None:
    given = settings(tmp_path, bake_seconds=7.0, drain_seconds=8.0, stream_seconds=9.0, overlap=False, app_ready="fd")
    spec = AppPlan("app", said(given), around).spec
    limits = spec.limits
    assert (limits.bake_seconds, limits.drain_seconds, limits.stream_seconds) == (7.0, 8.0, 9.0)
    assert not spec.overlap
    assert spec.hold
    assert spec.must_say_ready
    assert isinstance(spec.readiness(1), ReadyFd)


def test_readiness_is_a_socket_of_its_own_unless_a_pipe_is_asked_for(tmp_path: Path, around: Surroundings) -> None:
    spec = AppPlan("app", said(settings(tmp_path)), around).spec
    assert not spec.must_say_ready
    first, second = spec.readiness(1), spec.readiness(2)
    assert isinstance(first, NotifySocket)
    assert first.environ != second.environ


def test_generation_behind_a_front_is_given_its_private_place(tmp_path: Path, around: Surroundings) -> None:
    plan = AppPlan("app", said(settings(tmp_path)), around)
    env = launch(plan, Place("one", "127.0.0.1", 4001), overlapping=True)
    assert (env["PORT"], env["HOST"], env["HOSTNAME"], env["SUPERVISOR_PUBLIC_PORT"]) == (
        "4001",
        "127.0.0.1",
        "127.0.0.1",
        "3000",
    )
    assert (env["SUPERVISOR_GENERATION"], env["SUPERVISOR_OVERLAPPING"]) == ("7", "1")
    assert env["DATABASE_URL"] == "postgresql://db"
    assert "SUPERVISOR_MODE" not in env


def test_generation_with_the_public_port_is_given_that(tmp_path: Path, around: Surroundings) -> None:
    env = launch(AppPlan("app", said(settings(tmp_path)), around), Place("public", "127.0.0.1", 3000, private=False))
    assert env["PORT"] == "3000"
    assert not {"SUPERVISOR_PUBLIC_PORT", "SUPERVISOR_OVERLAPPING", "HOST", "HOSTNAME"} & set(env)


def test_environment_file_is_read_anew_by_each_plan(tmp_path: Path, around: Surroundings) -> None:
    (tmp_path / "env").write_text("COLOUR=red\n")
    given = settings(tmp_path, env_file=tmp_path / "env")
    first = AppPlan("app", said(given), around)
    (tmp_path / "env").write_text("COLOUR=blue\n")
    place = Place("one", "127.0.0.1", 4001)
    assert launch(first, place)["COLOUR"] == "red"
    assert launch(AppPlan("app", said(given), around), place)["COLOUR"] == "blue"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"app_command": None}, "no command is set"),
        ({"app_dir": Path("/nowhere")}, "its folder '/nowhere' does not exist"),
        ({"env_file": Path("/nowhere/env")}, "cannot read '/nowhere/env'"),
        ({"restart_limit": 50, "restart_window_seconds": 60.0}, "cannot use the restart settings"),
        ({"app_user": "no-such-user"}, "no-such-user"),
    ],
)
def test_what_cannot_be_is_an_error_and_nothing_was_done(
    tmp_path: Path, around: Surroundings, values: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        AppPlan("app", said(settings(tmp_path, **values)), around)


def test_migrations_are_of_the_command_or_of_the_folder_or_none(tmp_path: Path, around: Surroundings) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "0001_a.sql").write_text("select 1;")
    assert AppPlan("app", said(settings(tmp_path)), around).migrations is None
    by_command = AppPlan("app", said(settings(tmp_path, migrate_command=("migrate",))), around).migrations
    assert isinstance(by_command, CommandMigrations)
    in_folder = settings(tmp_path, migrate_dir=Path("sql"))
    assert AppPlan("app", said(in_folder), around).migrations is not None
    with pytest.raises(ConfigurationError, match="there is no database; set DATABASE_URL"):
        AppPlan("app", said(in_folder), replace(around, migration_url=lambda app: None))


def test_reload_puts_the_apps_settings_in_force_and_names_the_others(tmp_path: Path) -> None:
    before = settings(tmp_path)
    read = settings(tmp_path, port=4000, bake_seconds=1.0, app_command=("other",), stack="another")
    now, told = reloaded(before, read)
    assert (now.bake_seconds, now.app_command) == (1.0, ("other",))
    assert (now.port, now.stack) == (before.port, before.stack)
    assert told.startswith("changed, but in force only from the next start on: ")
    assert "PORT" in told
    assert "SUPERVISOR_BAKE_SECONDS" not in told


def test_reload_of_the_same_settings_tells_nothing(tmp_path: Path) -> None:
    now, told = reloaded(settings(tmp_path), settings(tmp_path))
    assert now == settings(tmp_path)
    assert told == ""


def test_every_setting_that_is_reloaded_exists() -> None:
    assert set(Settings.model_fields) >= RELOADED


TABLES: dict[str, dict[str, Any]] = {
    "api": {
        "command": "serve",
        "env": {"required": ["STRIPE_KEY"], "vars": {"SESSION": {"generate": True, "give": "file"}}},
    },
    "web": {"command": "serve", "port": 3001, "env": {"optional": {"GREETING": "hello"}}},
}


def of(app: str, tmp_path: Path, apps: dict[str, Any] = TABLES) -> Settings:
    return Settings(apps=apps, app_dir=tmp_path).for_app(app)


def test_each_app_gets_what_it_declares_and_nothing_that_only_others_do(tmp_path: Path, around: Surroundings) -> None:
    api, web = (AppPlan(app, said(of(app, tmp_path)), around).environment.base for app in ("api", "web"))
    assert (api["STRIPE_KEY"], api["SHARED"]) == ("of-api", "of-all")
    assert (web["GREETING"], web["SHARED"], web["PUBLIC_URL"]) == ("hello", "of-all", "http://localhost:3001")
    assert "STRIPE_KEY" not in web
    assert "GREETING" not in api
    assert api["TRUSTED_ORIGINS"] == "http://localhost:3000,http://localhost:3001"
    assert api["BETTER_AUTH_SECRET"] != web["BETTER_AUTH_SECRET"]


def test_an_app_that_declares_port_and_host_is_told_those_of_its_generation(
    tmp_path: Path, around: Surroundings
) -> None:
    env = {"optional": {"PORT": "9", "HOST": "0.0.0.0"}}
    plan = AppPlan("web", said(of("web", tmp_path, {**TABLES, "web": {**TABLES["web"], "env": env}})), around)
    stated = replace(around, variables=replace(around.variables, environ={"PORT": "8"}))
    assert AppPlan("web", said(of("web", tmp_path)), stated).environment.base["PORT"] == "3001"
    private = launch(plan, Place("one", "127.0.0.1", 4001))
    assert [private[name] for name in ("PORT", "SUPERVISOR_PUBLIC_PORT", "HOST")] == ["4001", "3001", "127.0.0.1"]
    public = launch(plan, Place("public", "127.0.0.1", 3001, private=False))
    assert [public[name] for name in ("PORT", "HOST")] == ["3001", "0.0.0.0"]


def test_an_app_without_database_and_redis_gets_no_urls_whoever_gives_them(
    tmp_path: Path, around: Surroundings
) -> None:
    urls = {"DATABASE_URL": "postgresql://db", "REDIS_URL": "redis://cache"}
    given = replace(around.variables, environ=urls, database_url=lambda app: None)
    without = {**TABLES, "web": {**TABLES["web"], "database": False, "redis": False}}
    plans = [AppPlan(app, said(of(app, tmp_path, without)), replace(around, variables=given)) for app in without]
    api, web = ({name: plan.environment.base.get(name) for name in urls} for plan in plans)
    assert api == urls
    assert web == dict.fromkeys(urls)


def test_an_app_knows_where_its_siblings_are_whatever_its_own_port_and_host(
    tmp_path: Path, around: Surroundings
) -> None:
    web = Web("127.0.0.1", 80, {"traefik_http": "http://localhost:80", "traefik_https": "https://localhost:443"})
    proxied = replace(around, variables=replace(around.variables, web=web))
    tables = {**TABLES, "web": {**TABLES["web"], "host": "web.example"}}
    loaded = said(Settings(apps=tables, app_dir=tmp_path, port=3000)).for_app("web")
    environment = AppPlan("web", loaded, proxied).environment
    assert environment.base["TRUSTED_ORIGINS"] == "http://web.example,http://localhost:3000"


def test_what_is_given_in_a_file_is_there_for_every_command_and_in_no_environment(
    tmp_path: Path, around: Surroundings
) -> None:
    environment = AppPlan("api", said(of("api", tmp_path)), around).environment
    path = Path(environment.base["SESSION_FILE"])
    assert "SESSION" not in environment.base
    assert not path.exists()
    environment.one_shot("migrate", "true")
    assert path.read_text() == (tmp_path / "secrets/apps/api/made/SESSION").read_text()
    assert path.stat().st_mode & 0o777 == 0o400
    AppSecrets(tmp_path / "secrets", "api").renew("SESSION")
    again = AppPlan("api", said(of("api", tmp_path)), around).environment
    again.one_shot("migrate", "true")
    assert Path(again.base["SESSION_FILE"]).read_text() != path.read_text(), "code that still runs keeps its own"


def test_what_is_missing_is_known_of_every_plan_and_refused_when_asked(tmp_path: Path, around: Surroundings) -> None:
    apps = {**TABLES, "web": {**TABLES["web"], "env": {"required": ["NOWHERE"]}}}
    plan = AppPlan("web", said(of("web", tmp_path, apps)), around)
    assert plan.variables.missing == ("NOWHERE",)
    with pytest.raises(ConfigurationError, match="supervisor secrets set web NOWHERE"):
        plan.check_variables()


def test_reload_takes_over_what_an_app_declares_and_tells_of_its_place_in_the_database(tmp_path: Path) -> None:
    changed = {**TABLES, "web": {**TABLES["web"], "env": {"optional": {"GREETING": "moin"}}, "database": False}}
    now, told = reloaded(of("web", tmp_path), of("web", tmp_path, changed))
    assert now.apps["web"].env.optional == {"GREETING": "moin"}
    assert now.apps["web"].database is not None
    assert told == "changed, but in force only from the next start on: [apps.web] database"
