"""What apps find in their environment: bound names, secrets in files, declared defaults, nothing of each other's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.secret import Secret
from supervisor.store.app_secrets import AppSecrets
from tests.e2e.apps import SERVER, write_app
from tests.e2e.conftest import Make
from tests.e2e.harness import Supervisor, answers, free_port, wait_until

_NOBODY = 65534
_STRANGER = 61234


class Two:
    """Two apps, `api` and `web`, without services; `api` and `web` are more lines of their tables."""

    command = "'python -S app.py'"

    def __init__(
        self, make: Make, folder: Path, *, api: str = "", web: str = "", top: str = "", **environ: str
    ) -> None:
        self.config = folder / "supervisor.toml"
        self.ports = {name: free_port() for name in ("api", "web")}
        self._top = top
        for name in self.ports:
            write_app(folder / name)
        self.declare(api=api, web=web)
        arguments = ("--config", str(self.config), "--no-services")
        self.supervisor: Supervisor = make(*arguments, environ=environ)

    def declare(self, *, api: str = "", web: str = "") -> None:
        """Write the tables anew."""
        text = f"bake_seconds = 0.1\n{self._top}\n"
        for name, more in (("api", api), ("web", web)):
            text += f"[apps.{name}]\ncommand = {self.command}\ndir = '{name}'\nport = {self.ports[name]}\n{more}\n"
        self.config.write_text(text)

    def environ(self, app: str) -> dict[str, str]:
        """What its newest generation was given."""
        text = Path(f"/proc/{self.supervisor.pid_of(app)}/environ").read_text()
        return dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    def reload(self, app: str) -> subprocess.CompletedProcess[str]:
        """Take what changed into service."""
        return self.supervisor.cli("reload", app)

    @property
    def secrets(self) -> Path:
        """The folder that secrets are kept in."""
        return self.supervisor.state / "secrets"


Made = Callable[..., Two]


@pytest.fixture
def two(make: Make, folder: Path) -> Made:
    def made(**texts: str) -> Two:
        return Two(make, folder, **texts)

    return made


def test_well_known_names_have_values_with_nothing_declared_and_keep_them(two: Made) -> None:
    made = two()
    made.supervisor.boot()
    api, web = made.environ("api"), made.environ("web")
    urls = {name: f"http://localhost:{port}" for name, port in made.ports.items()}
    assert (api["BETTER_AUTH_URL"], web["PUBLIC_URL"]) == (urls["api"], urls["web"])
    assert api["BETTER_AUTH_TRUSTED_ORIGINS"] == f"{urls['api']},{urls['web']}"
    assert api["NODE_ENV"] == "production"
    assert "DATABASE_URL" not in api
    made_up = {environ[name] for environ in (api, web) for name in ("BETTER_AUTH_SECRET", "MASTER_KEY")}
    assert len(made_up) == 4
    assert min(map(len, made_up)) >= 43
    kept = [made.secrets / "apps" / app / "made" / "MASTER_KEY" for app in ("api", "web")]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600, 0o600]
    assert made.reload("api").returncode == 0
    assert made.environ("api")["MASTER_KEY"] == api["MASTER_KEY"]
    assert made.supervisor.stop() == 0
    made.supervisor.boot()
    assert made.environ("web")["BETTER_AUTH_SECRET"] == web["BETTER_AUTH_SECRET"]
    assert not any(secret in made.supervisor.log() for secret in made_up)


def test_what_is_given_to_us_wins_over_what_is_computed_and_made(two: Made) -> None:
    made = two(BETTER_AUTH_URL="https://auth.example", MASTER_KEY="of-the-operator", NODE_ENV="staging")
    made.supervisor.boot()
    api = made.environ("api")
    assert [api[name] for name in ("BETTER_AUTH_URL", "MASTER_KEY", "NODE_ENV")] == [
        "https://auth.example",
        "of-the-operator",
        "staging",
    ]
    assert not (made.secrets / "apps" / "api" / "made" / "MASTER_KEY").exists()


def test_a_table_of_bindings_adds_names_and_changes_them(two: Made) -> None:
    made = two(
        top='[bindings]\nSITE = "{public_url}/app"\nCOOKIE_KEY = "{secret}"\n'
        'NODE_ENV = "{stage}"\nCACHE = "{redis_url}"',
        SUPERVISOR_STAGE="qa",
    )
    made.supervisor.boot()
    api, web = made.environ("api"), made.environ("web")
    assert api["SITE"] == f"http://localhost:{made.ports['api']}/app"
    assert api["NODE_ENV"] == "qa"
    assert api["COOKIE_KEY"] != web["COOKIE_KEY"]
    assert "CACHE" not in api, "there is no Redis to make it of"
    made.config.write_text(made.config.read_text().replace("/app", "/shop", 1))
    assert made.reload("api").returncode == 0
    assert made.environ("api")["SITE"] == f"http://localhost:{made.ports['api']}/shop"


def test_a_table_of_bindings_with_an_unknown_fact_is_refused(two: Made) -> None:
    made = two(top='[bindings]\nSITE = "{public_uri}"')
    made.supervisor.start()
    assert made.supervisor.wait() == 78
    assert "there is no {public_uri}; there are {stage}" in made.supervisor.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the app as another user")
def test_a_secret_in_a_file_is_there_for_the_apps_user_alone(two: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    # Python may lie where only root goes.
    monkeypatch.setattr(Two, "command", "['sh', '-c', 'wc -c < $SESSION_SECRET_FILE; exec sleep 600']")
    declared = '[apps.api.env.vars.SESSION_SECRET]\ngenerate = true\ngive = "file"'
    made = two(api=declared, top='app_health = "none"', SUPERVISOR_APP_USER=f"{_NOBODY}:{_NOBODY}")
    made.supervisor.boot()
    wait_until("the app has read it", lambda: made.supervisor.output("api") == "43")
    api = made.environ("api")
    path, kept = Path(api["SESSION_SECRET_FILE"]), made.secrets / "apps" / "api" / "made" / "SESSION_SECRET"
    assert path.read_text() == kept.read_text()
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (_NOBODY, 0o400)
    assert "SESSION_SECRET" not in api
    assert "SESSION_SECRET_FILE" not in made.environ("web")
    status = {user: read_as(user, path) for user in (_NOBODY, _STRANGER)}
    assert status[_NOBODY] == 0
    assert status[_STRANGER] != 0
    assert read_as(_NOBODY, kept) != 0, "what is kept is ours"
    assert kept.read_text() not in made.supervisor.log()


def read_as(user: int, path: Path) -> int:
    command = ["cat", str(path)]
    return subprocess.run(command, user=user, group=user, extra_groups=[], capture_output=True, timeout=10).returncode


def test_what_one_app_declares_the_others_do_not_get_and_the_rest_all_do(two: Made, folder: Path) -> None:
    (folder / ".env.production").write_text("STRIPE_KEY=of-the-file\nSHARED=of-all\n")
    made = two(
        api='[apps.api.env]\nrequired = ["STRIPE_KEY", "BOTH"]',
        web='redis = false\n[apps.web.env]\nrequired = ["BOTH"]\noptional = { COLOUR = "blue" }',
        BOTH="both",
        REDIS_URL="redis://elsewhere",
        COLOUR="red",
    )
    made.supervisor.boot()
    names = ("STRIPE_KEY", "SHARED", "BOTH", "COLOUR", "REDIS_URL")
    api, web = ({name: made.environ(app).get(name) for name in names} for app in ("api", "web"))
    assert api == dict(zip(names, ("of-the-file", "of-all", "both", None, "redis://elsewhere"), strict=True))
    assert web == dict(zip(names, (None, "of-all", "both", "red", None), strict=True))


def test_reload_takes_a_newly_declared_default_and_a_newly_set_value(two: Made, folder: Path) -> None:
    made = two()
    made.supervisor.boot()
    assert "COLOUR" not in made.environ("api")
    made.declare(api='[apps.api.env]\noptional = { COLOUR = "blue" }')
    assert made.reload("api").returncode == 0
    assert made.environ("api")["COLOUR"] == "blue"
    kept = AppSecrets(made.secrets, "api")
    kept.set("COLOUR", Secret("set-by-hand-7e1"))
    kept.set("MASTER_KEY", Secret("set by hand too"))
    write_app(folder / "api", f"import os; print('it is', os.environ['COLOUR'], flush=True)\n{SERVER}")
    assert made.reload("api").returncode == 0
    api = made.environ("api")
    assert (api["COLOUR"], api["MASTER_KEY"]) == ("set-by-hand-7e1", "set by hand too")
    wait_until("the app has said it", lambda: "it is ***" in made.supervisor.output("api"))
    assert "set-by-hand" not in made.supervisor.log() + made.supervisor.cli("logs").stdout
    assert made.environ("web")["MASTER_KEY"] != api["MASTER_KEY"]


def test_reload_that_would_lack_a_variable_is_rejected_with_the_command_and_the_old_goes_on(two: Made) -> None:
    made = two()
    made.supervisor.boot()
    made.declare(api='[apps.api.env]\nrequired = ["STRIPE_KEY"]')
    done = made.reload("api")
    assert done.returncode == 1
    assert "app 'api': STRIPE_KEY is missing" in done.stderr
    assert "supervisor secrets set api STRIPE_KEY" in done.stderr
    assert answers(made.ports["api"]) == 200
    AppSecrets(made.secrets, "api").set("STRIPE_KEY", Secret("sk_live"))
    assert made.reload("api").returncode == 0
    assert made.environ("api")["STRIPE_KEY"] == "sk_live"
    assert "sk_live" not in made.supervisor.log()
