"""While nobody serves: requests wait within their bound, then they are told what goes on."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import Make
from tests.e2e.harness import answers, wait_until
from tests.e2e.reload.rig import COMMAND, App, BothLoads, failures


def get(app: App, accept: str, path: str = "/echo") -> tuple[int, dict[str, str], str]:
    with closing(http.client.HTTPConnection("127.0.0.1", app.supervisor.port, timeout=30)) as connection:
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()


def test_slow_boot_is_shown_as_page_json_and_text(app: App) -> None:
    app.release(boot_seconds=4)
    app.supervisor.start()
    app.supervisor.wait_event("app.generation", state="starting")
    wait_until("the boot page", lambda: answers(app.supervisor.port) == 503, limit=10)
    status, headers, text = get(app, "text/html")
    assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "<h1>Starting up</h1>" in text
    assert headers["retry-after"] == "2"
    assert headers.get("cache-control") == "no-store"
    status, headers, text = get(app, "application/json")
    told = json.loads(text)
    assert status == 503
    assert told["state"] == "starting"
    assert "the app" in told["waiting"]
    status, headers, text = get(app, "*/*")
    assert headers["content-type"].startswith("text/plain")
    assert "waiting for: the app" in text
    assert get(app, "*/*", "/api/health")[0] == 503
    app.supervisor.wait_event("supervisor.state", state="running")
    assert get(app, "text/html")[0] == 200


def test_app_that_does_not_come_back_in_time_is_told_after_the_hold(app: App) -> None:
    app.boot(SUPERVISOR_HOLD_SECONDS="1", SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    app.release(boot_seconds=4)
    app.kill(1)
    app.supervisor.wait_event("app.restarting")
    started = time.monotonic()
    status, headers, text = get(app, "application/json")
    waited = time.monotonic() - started
    assert status == 503
    assert 0.3 < waited < 3
    assert json.loads(text)["state"] == "restarting"
    assert "SIGKILL" in json.loads(text)["reason"]
    assert "retry-after" in headers
    wait_until("it serves again", lambda: answers(app.supervisor.port, "/echo") == 200, limit=15)


def test_requests_wait_for_an_app_that_comes_back_in_time(app: App) -> None:
    app.boot(SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    app.release(boot_seconds=1)
    app.kill(1)
    app.supervisor.wait_event("app.restarting")
    started = time.monotonic()
    assert get(app, "*/*")[0] == 200
    assert 0.5 < time.monotonic() - started < 5


def test_app_that_gives_up_and_is_held_shows_its_reason_until_a_reload_mends_it(app: App) -> None:
    app.boot(SUPERVISOR_ON_APP_FAILURE="hold", SUPERVISOR_RESTART_BASE_SECONDS="0.02", SUPERVISOR_RESTART_LIMIT="2")
    app.release(exit=5)
    app.kill(1)
    app.supervisor.wait_event("app.held")
    wait_until("the reason", lambda: "exited with 5" in get(app, "application/json")[2], limit=10)
    status, _, text = get(app, "text/html")
    assert status == 503
    assert "exited with 5" in text
    assert "cannot work: told to exit" in app.supervisor.log()
    app.release()
    assert app.reload()["result"] == "ok"
    assert get(app, "*/*")[0] == 200


def test_app_that_must_run_alone_is_never_two_and_no_request_fails(app: App) -> None:
    app.release(alone=True, boot_seconds=0.5)
    app.boot(SUPERVISOR_OVERLAP="false")
    with BothLoads(app, rate=60) as load:
        for _ in range(2):
            version = app.release(alone=True, boot_seconds=0.5)
            outcome = app.reload()
            assert outcome["result"] == "ok", outcome
            load.version_at(version)
        reports = load.stop()
    assert failures(reports) == {}
    assert outcome["detail"]["apps"]["app"]["most_waiting"] > 5
    assert outcome["phases"]["gap"] > 0.4
    assert "another one runs" not in app.supervisor.log()
    starts = app.supervisor.events("app.generation", state="starting")
    assert len(starts) == 3


def test_app_that_is_stopped_by_hand_is_told_until_it_is_started(app: App) -> None:
    app.boot()
    assert app.supervisor.cli("stop", "app").returncode == 0
    status, _, text = get(app, "application/json")
    assert (status, json.loads(text)["state"]) == (503, "stopped")
    assert app.supervisor.cli("start", "app").returncode == 0
    assert get(app, "*/*")[0] == 200
    assert app.supervisor.cli("restart", "app").returncode == 0
    assert get(app, "*/*")[0] == 200


def test_front_restart_by_name_reloads_and_says_what_it_costs(app: App) -> None:
    app.boot(SUPERVISOR_FRONT="restart")
    told = app.supervisor.events("app.front")[0]
    assert told["kind"] == "restart"
    assert "requests are refused while the app reloads" in told["lossy"]
    app.release()
    outcome = app.reload()
    assert outcome["result"] == "ok"
    assert outcome["phases"]["gap"] > 0
    assert get(app, "*/*")[2] == "2"
    assert app.supervisor.stop() == 0


HIDDEN = 'mount --bind /dev/null "$(command -v haproxy || echo /usr/sbin/haproxy)" && exec "$@"'
HIDE = ["unshare", "--mount", "--fork", "--kill-child", "sh", "-c", HIDDEN, "sh"]


@pytest.fixture
def without_haproxy(make: Make, folder: Path) -> App:
    if subprocess.run([*HIDE, "true"], capture_output=True, check=False, timeout=10).returncode:
        pytest.skip("no mount namespace can be had")
    assert shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    return App(make("--no-services", "--app-dir", str(folder / "app"), *COMMAND, prefix=HIDE), folder / "app")


@pytest.mark.namespaces
def test_without_haproxy_the_front_is_restart_and_the_mend_is_told(without_haproxy: App) -> None:
    app = without_haproxy
    app.boot()
    told = app.supervisor.events("app.front")[0]
    assert told["kind"] == "restart"
    assert "install HAProxy (Debian package haproxy)" in told["lossy"]
    assert app.supervisor.stop() == 0


@pytest.mark.namespaces
def test_front_proxy_without_haproxy_ends_in_78(without_haproxy: App) -> None:
    app = without_haproxy
    app.supervisor.environ["SUPERVISOR_FRONT"] = "proxy"
    app.supervisor.start()
    assert app.supervisor.wait(20) == 78
    assert "install HAProxy (Debian package haproxy)" in app.supervisor.events("error")[-1]["msg"]


def test_haproxy_that_is_named_and_not_there_ends_in_78(app: App) -> None:
    app.supervisor.environ["SUPERVISOR_HAPROXY_BINARY"] = "/no/such/haproxy"
    app.supervisor.start()
    assert app.supervisor.wait(20) == 78
    assert "/no/such/haproxy" in app.supervisor.events("error")[-1]["msg"]
