"""`[apps.NAME]`: several apps beside each other, each with its port, code and reload, in the order they need."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.apps import write_app
from tests.e2e.conftest import Make
from tests.e2e.harness import Supervisor, answers, free_port, left_behind, request, wait_until


class Several:
    """Two apps: `web`, which requires `api`. They lie beside the file that says so."""

    def __init__(self, make: Make, folder: Path, *arguments: str, web: str = "", api: str = "", top: str = "") -> None:
        self.folder = folder
        self.web_port, self.api_port = free_port(), free_port()
        for name in ("web", "api"):
            write_app(folder / name)
        self.config = folder / "supervisor.toml"
        self._text = (
            f'{top}\nbake_seconds = 0.2\n[apps.web]\ncommand = "python -S app.py"\ndir = "web"\n'
            f'port = {self.web_port}\nrequires = ["api"]\n{web}\n'
            f'[apps.api]\ncommand = "python -S app.py"\ndir = "api"\nport = {self.api_port}\n{api}\n'
        )
        self.config.write_text(self._text)
        self.supervisor: Supervisor = make("--config", str(self.config), *arguments)

    def generation(self, port: int) -> str:
        return request(port, "/")[1].split()[1]

    def both(self) -> tuple[str, str]:
        return self.generation(self.web_port), self.generation(self.api_port)

    def change(self, old: str, new: str) -> None:
        assert old in self._text
        self.config.write_text(self._text.replace(old, new))


Started = Callable[..., Several]


@pytest.fixture
def several(make: Make, folder: Path) -> Started:
    def start(*arguments: str, **texts: str) -> Several:
        return Several(make, folder, *(arguments or ("--no-services",)), **texts)

    return start


def test_each_serves_on_its_port_and_starts_behind_what_it_requires(several: Started) -> None:
    made = several()
    made.supervisor.boot()
    assert made.both() == ("1", "1")
    serving = [event["app"] for event in made.supervisor.events("app.generation", state="serving")]
    assert serving == ["api", "web"]
    status = made.supervisor.status()
    assert [row["app"] for row in status["apps"]] == ["api", "web"]
    assert status["addresses"]["api"].endswith(str(made.api_port))
    assert made.supervisor.stop() == 0
    assert left_behind(made.supervisor.state) == []


def test_reload_takes_one_by_name_or_by_its_file_and_all_by_hup(several: Started) -> None:
    made = several()
    supervisor = made.supervisor.boot()
    done = supervisor.cli("reload", "web")
    assert done.returncode == 0, done.stderr
    assert made.both() == ("2", "1")
    (made.folder / "api" / ".reload-trigger").touch()
    wait_until("the file reloads its own app", lambda: made.both() == ("2", "2"))
    supervisor.wait_event("reload.finished", after=1)
    supervisor.send(signal.SIGHUP)
    supervisor.wait_event("reload.finished", after=2)
    assert made.both() == ("3", "3")
    assert [event.get("target", "") for event in supervisor.events("reload.requested")] == ["web", "api", ""]
    refused = supervisor.cli("reload", "wep")
    assert refused.returncode == 64
    assert "no such app; did you mean 'web'? known: api, web" in refused.stderr


def test_a_broken_one_is_rejected_and_what_was_reloaded_before_it_is_told(several: Started) -> None:
    made = several()
    supervisor = made.supervisor.boot()
    (made.folder / "web" / "crash").write_text("3")
    done = supervisor.cli("reload")
    assert done.returncode == 1
    assert "app 'web'; reloaded before it: api" in done.stderr
    assert made.both() == ("1", "2")


def test_a_crash_of_one_is_no_matter_of_the_other(several: Started) -> None:
    made = several()
    supervisor = made.supervisor.boot()
    before = request(made.web_port, "/")[1]
    os.kill(supervisor.pid_of("api"), signal.SIGKILL)
    supervisor.wait_event("supervisor.state", state="degraded")
    supervisor.wait_event("app.generation", app="api", generation=2, state="serving")
    assert request(made.web_port, "/")[1] == before


def test_what_requires_a_held_app_is_held_and_told_why(several: Started) -> None:
    made = several(top='on_app_failure = "hold"\nrestart_limit = 1\nrestart_window_seconds = 60')
    (made.folder / "api" / "crash").write_text("3")
    supervisor = made.supervisor.start()
    held = supervisor.wait_event("app.held", app="web")
    assert "it requires api, which did not start" in held["reason"]
    assert request(made.web_port, "/")[0] == 503
    assert supervisor.wait_event("supervisor.state", state="failed")
    (made.folder / "api" / "crash").unlink()
    assert supervisor.cli("reload").returncode == 0
    supervisor.wait_event("supervisor.state", state="running")
    assert [answers(port) for port in (made.api_port, made.web_port)] == [200, 200]


def test_one_that_does_not_start_ends_the_boot_and_the_other_with_it(several: Started) -> None:
    made = several(top="restart_limit = 1\nrestart_window_seconds = 60")
    (made.folder / "web" / "crash").write_text("3")
    made.supervisor.start()
    assert made.supervisor.wait() == 10
    assert left_behind(made.supervisor.state) == []


def test_one_that_ends_in_order_leaves_the_other_serving(several: Started) -> None:
    made = several()
    supervisor = made.supervisor.boot()
    write_app(made.folder / "api", "import sys; print('done'); sys.exit(0)")
    os.kill(supervisor.pid_of("api"), signal.SIGKILL)
    told = supervisor.wait_event(
        "notice", msg="the app 'api' ended by itself with exit status 0 and stays stopped; web go on"
    )
    assert told
    assert answers(made.web_port) == 200
    supervisor.wait_event("supervisor.state", state="degraded")


def test_reload_puts_a_changed_table_in_force_and_says_what_waits(several: Started) -> None:
    made = several()
    supervisor = made.supervisor.boot()
    made.change('dir = "web"', 'dir = "web"\nenv_file = "vars"')
    (made.folder / "web" / "vars").write_text("GREETING=hello\n")
    write_app(made.folder / "web", (made.folder / "web" / "app.py").read_text() + "# new\n")
    assert supervisor.cli("reload", "web").returncode == 0
    assert "GREETING" in Path(f"/proc/{supervisor.pid_of('web')}/environ").read_text()
    assert "GREETING" not in Path(f"/proc/{supervisor.pid_of('api')}/environ").read_text()
    made.change(f"port = {made.web_port}", f"port = {free_port()}")
    assert supervisor.cli("reload", "web").returncode == 0
    assert supervisor.events("notice", msg="changed, but in force only from the next start on: SUPERVISOR_PORT")


@pytest.mark.servers
def test_traefik_routes_each_by_its_host_and_none_without_one(several: Started) -> None:
    made = several("--set", "services=traefik", api='host = "api.example"', top='mode = "embedded"')
    supervisor = made.supervisor.boot()
    entry = supervisor.http_port
    status, body = request(entry, "/", headers={"Host": "api.example"})
    assert status == 200
    assert f"pid {supervisor.pid_of('api')}" in body
    assert request(entry, "/", headers={"Host": "other.example"})[0] == 404
    assert {row["app"]: bool(row["route"]) for row in supervisor.status()["apps"]} == {"api": True, "web": False}


def test_each_has_its_own_releases(several: Started, tmp_path: Path) -> None:
    made = several(top='release_unsigned = "allow"\nrelease_bake_seconds = 0.2')
    supervisor = made.supervisor.boot()
    source = write_app(tmp_path / "source")
    (source / "release.toml").write_text('[release]\napp = "web"\n')
    built = supervisor.cli("release", "build", str(source), "--output", str(tmp_path / "out"))
    assert built.returncode == 0, built.stderr
    archive = next((tmp_path / "out").glob("*.tar.zst"))
    refused = supervisor.cli("release", "apply", str(archive), "--app", "api")
    assert refused.returncode == 1
    assert "'web'" in refused.stderr
    done = supervisor.cli("release", "apply", str(archive), "--app", "web")
    assert done.returncode == 0, done.stderr
    assert made.both() == ("2", "1")
    releases = {row["app"]: row["release"]["release"] for row in supervisor.status()["apps"]}
    assert releases["api"] == "baked"
    assert releases["web"] != "baked"
