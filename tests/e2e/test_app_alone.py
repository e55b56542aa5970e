"""`supervisor run --no-services -- CMD`: the app alone, with reload, restart, health and honest exit codes."""

from __future__ import annotations

import http.server
import json
import os
import pwd
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.apps import write_app
from tests.e2e.conftest import Make
from tests.e2e.harness import Supervisor, answers, free_port, is_running, left_behind, request, wait_until


@pytest.fixture
def app(make: Make, folder: Path) -> Supervisor:
    """A plain server; files in its folder make it misbehave."""
    where = write_app(folder / "app")
    return make("--no-services", "--app-dir", str(where), "--", "python", "-S", "app.py")


def app_dir(app: Supervisor) -> Path:
    return app.folder.parent / "app"


def test_it_serves_restarts_after_a_crash_and_stops(app: Supervisor) -> None:
    app.boot()
    assert request(app.port, "/")[0] == 200
    pid = app.pid_of("app")
    os.kill(pid, signal.SIGKILL)
    wait_until("another process answers", lambda: app.pid_of("app") != pid and answers(app.port) == 200)
    crash = app.events("app.generation", generation=1)[-1]
    assert crash["state"] == "failed" or crash["signal"] == "SIGKILL"
    assert app.stop() == 0
    assert left_behind(app.state) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to lose")
def test_root_without_any_rights_runs_everything_as_itself(app: Supervisor) -> None:
    app.prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    app.boot()
    assert request(app.port, "/")[0] == 200
    os.kill(app.pid, signal.SIGHUP)  # setpriv became the supervisor
    assert app.wait_event("reload.finished")["result"] == "ok"
    assert request(app.port, "/")[0] == 200
    assert "HAProxy runs as root: root lacks CAP_CHOWN" in app.log()
    os.kill(app.pid, signal.SIGTERM)
    assert app.wait() == 0
    assert left_behind(app.state) == []


def test_signals_that_are_not_ours_go_to_the_app(app: Supervisor) -> None:
    app.boot()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        app.send(number)
        wait_until(f"the app got {number}", partial(printed, app, f"got {number.name}"))


def printed(app: Supervisor, text: str) -> bool:
    return text in app.output("app")


def test_the_app_is_told_its_generation_and_no_setting_of_ours(app: Supervisor) -> None:
    (app_dir(app) / "app.py").write_text(
        "import json, os, http.server\nprint(json.dumps(dict(os.environ)), flush=True)\n"
        "http.server.HTTPServer(('', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    app.environ |= {"SUPERVISOR_WEBHOOK_URL": "http://127.0.0.1:9/secret-token", "MINE": "kept"}
    app.boot()
    env = json.loads(app.output("app").splitlines()[0])
    ours = {name for name in env if name.startswith("SUPERVISOR_")}
    assert ours == {
        "SUPERVISOR_GENERATION",
        "SUPERVISOR_DOCKER_MODE",
        "SUPERVISOR_PUBLIC_PORT",
        "SUPERVISOR_SPAWN",
    }
    assert env["MINE"] == "kept"
    assert env["SUPERVISOR_PUBLIC_PORT"] == str(app.port)
    assert (env["HOST"], env["HOSTNAME"]) == ("127.0.0.1", "127.0.0.1")
    assert env["PORT"] != str(app.port)
    assert "secret-token" not in app.log()


def test_without_the_health_path_the_root_is_asked_and_it_is_said(app: Supervisor) -> None:
    (app_dir(app) / "no-health-path").touch()
    app.boot()
    assert "answered on /" in app.events("app.generation", state="ready")[0]["reason"]
    assert any("answers 404" in event["msg"] for event in app.events("notice"))


def test_an_app_that_keeps_crashing_ends_in_10_with_its_last_words(app: Supervisor) -> None:
    (app_dir(app) / "crash").write_text("7")
    app.environ |= {"SUPERVISOR_RESTART_BASE_SECONDS": "0.02"}
    app.start()
    assert app.wait() == 10
    error = app.events("error")[-1]["msg"]
    assert "exited with 7" in error
    assert "cannot work: crash was asked for" in error
    assert len(app.events("app.generation", state="starting")) == 6
    assert answers(app.port) is None


def test_an_app_that_never_listens_ends_in_10_and_says_what_to_do(make: Make, folder: Path) -> None:
    app = make("--no-services", "--app-dir", str(folder), "--", "sleep", "600")
    app.environ |= {"SUPERVISOR_APP_START_SECONDS": "0.5", "SUPERVISOR_APP_RESTART": "no"}
    app.start()
    assert app.wait() == 10
    error = app.events("error")[-1]["msg"]
    assert "not healthy after 0.5 s" in error
    assert "SUPERVISOR_APP_HEALTH" in error


def test_an_app_without_a_port_can_be_told_so(make: Make, folder: Path) -> None:
    app = make("--no-services", "--app-dir", str(folder), "--set", "app_health=none", "--", "sleep", "600")
    app.boot()
    assert app.status()["apps"][0]["state"] == "serving"
    assert app.stop() == 0


def test_an_app_that_exits_0_ends_the_supervisor_with_0(make: Make, folder: Path) -> None:
    app = make("--no-services", "--app-dir", str(folder), "--set", "app_health=none", "--", "sleep", "0.5")
    app.start()
    assert app.wait() == 0
    assert any("exit status 0" in event["msg"] for event in app.events("notice"))


def test_a_held_app_answers_503_with_the_reason_and_a_reload_tries_again(app: Supervisor) -> None:
    (app_dir(app) / "crash").write_text("7")
    app.environ |= {"SUPERVISOR_ON_APP_FAILURE": "hold", "SUPERVISOR_RESTART_BASE_SECONDS": "0.02"}
    app.start()
    app.wait_event("app.held")
    wait_until("503", lambda: answers(app.port) == 503)
    status, text = request(app.port, "/", headers={"accept": "application/json"})
    assert status == 503
    assert "exited with 7" in json.loads(text)["reason"]
    assert app.status()["state"] == "failed"
    assert app.cli("health").returncode == 1
    assert app.cli("reload").returncode == 1
    wait_until("held again", lambda: answers(app.port) == 503)
    (app_dir(app) / "crash").unlink()
    assert app.cli("reload").returncode == 0
    assert request(app.port, "/")[0] == 200
    assert app.cli("health").returncode == 0
    assert app.stop() == 0


def test_a_hung_app_with_exit_ends_in_10(app: Supervisor) -> None:
    app.environ |= {
        "SUPERVISOR_ON_UNHEALTHY": "exit",
        "SUPERVISOR_APP_HEALTH_INTERVAL_SECONDS": "0.1",
        "SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS": "0.2",
    }
    app.boot()
    (app_dir(app) / "hang").touch()
    assert app.wait() == 10
    assert "liveness" in app.events("error")[-1]["msg"]


def test_a_hung_app_with_none_is_only_reported(app: Supervisor) -> None:
    app.environ |= {
        "SUPERVISOR_ON_UNHEALTHY": "none",
        "SUPERVISOR_APP_HEALTH_INTERVAL_SECONDS": "0.1",
        "SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS": "0.2",
    }
    app.boot()
    pid = app.pid_of("app")
    (app_dir(app) / "hang").touch()
    app.wait_event("app.health", health="unhealthy")
    (app_dir(app) / "hang").unlink()
    app.wait_event("app.health", after=1, health="healthy")
    assert is_running(pid)
    assert app.stop() == 0


def test_liveness_restarts_count_in_the_budget(app: Supervisor) -> None:
    app.environ |= {
        "SUPERVISOR_APP_HEALTH_INTERVAL_SECONDS": "0.05",
        "SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS": "0.05",
        "SUPERVISOR_APP_HEALTH_RETRIES": "1",
        "SUPERVISOR_APP_START_SECONDS": "1",
        "SUPERVISOR_APP_STOP_SECONDS": "0.2",
        "SUPERVISOR_RESTART_LIMIT": "2",
        "SUPERVISOR_RESTART_BASE_SECONDS": "0.02",
    }
    app.boot()
    (app_dir(app) / "hang").touch()
    assert app.wait() == 10


def test_a_port_taken_ends_in_78_naming_the_holder(app: Supervisor) -> None:
    with socket.create_server(("0.0.0.0", app.port)):
        app.start()
        assert app.wait() == 78
    error = app.events("error")[-1]["msg"]
    assert f"port {app.port}: it is taken by pid {os.getpid()}" in error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--no-services"], 78, "no command is set"),
        (["--no-services", "--", "no-such-program"], 78, "no program 'no-such-program'"),
        (["--no-services", "--app-dir", "/no/such/folder", "--", "true"], 78, "'/no/such/folder' does not exist"),
        (["--nonsense"], 64, "unrecognized arguments: --nonsense"),
        (["--set", "colour=blue"], 64, "no setting of that name"),
        (["--mode", "sideways", "--", "true"], 78, "--mode is 'sideways'"),
        (["--config", "/no/such.toml", "--", "true"], 78, "there is no file '/no/such.toml'"),
        (["--set", "docker_host=nonsense", "--", "true"], 78, "E02"),
    ],
)
def test_wrong_use_is_told_clearly(make: Make, arguments: list[str], code: int, words: str) -> None:
    app = make(*arguments)
    app.start()
    assert app.wait(20) == code
    assert words in app.log()


def test_a_second_supervisor_on_the_same_state_is_refused_naming_the_first(app: Supervisor, make: Make) -> None:
    app.boot()
    second = make(*app.arguments, folder=app.folder)
    second.starts = 7
    second.start()
    assert second.wait() == 78
    assert f"another supervisor (pid {app.pid}" in second.log()
    assert answers(app.port) == 200
    assert app.stop() == 0


def test_an_app_that_ignores_term_is_killed_at_its_grace_and_a_second_term_kills_at_once(
    app: Supervisor,
) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
    )
    (app_dir(app) / "app.py").write_text(code)
    app.environ |= {"SUPERVISOR_APP_HEALTH": "none", "SUPERVISOR_APP_STOP_SECONDS": "0.5"}
    app.boot()
    wait_until("it is deaf", lambda: "deaf" in app.output("app"))
    assert app.stop(limit=10) == 0
    app.environ |= {"SUPERVISOR_APP_STOP_SECONDS": "50"}
    app.boot()
    wait_until("it is deaf", lambda: "deaf" in app.output("app"))
    app.send(signal.SIGTERM)
    app.wait_event("app.generation", state="draining")
    started = time.monotonic()
    assert app.stop(limit=20) == 0
    assert time.monotonic() - started < 20
    assert left_behind(app.state) == []


def test_a_manual_stop_of_the_app_sticks_until_a_start(app: Supervisor) -> None:
    app.environ |= {"SUPERVISOR_APP_RESTART": "always"}
    app.boot()
    assert app.cli("stop", "app").returncode == 0
    assert answers(app.port) == 503
    assert app.status()["apps"][0]["state"] == "stopped"
    assert app.cli("start", "app").returncode == 0
    assert answers(app.port) == 200
    pid = app.pid_of("app")
    assert app.cli("restart", "app").returncode == 0
    assert app.pid_of("app") != pid
    assert app.cli("stop", "nonsense").returncode != 0


def test_quit_dumps_the_tasks_and_stops(app: Supervisor) -> None:
    app.boot()
    assert app.stop(signal.SIGQUIT) == 0
    assert "daemon.py" in app.log()


def test_logs_and_events_can_be_read(app: Supervisor) -> None:
    app.boot()
    assert "listening" in app.cli("logs", "app").stdout
    assert "boot.finished" in app.cli("events", "-n", "100").stdout + app.log()


def test_it_works_with_a_blocked_term_and_an_ignored_hup(app: Supervisor) -> None:
    """Started by `nohup` from a shell that blocks signals: ours reach us all the same, the child gets what we got."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    app.environ |= {"SUPERVISOR_BAKE_SECONDS": "0.3", "SUPERVISOR_APP_STOP_SECONDS": "1"}  # the app is deaf to TERM
    try:
        app.boot()
    finally:
        signal.signal(signal.SIGHUP, hup)
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    status = Path(f"/proc/{app.pid_of('app')}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["SigBlk"], 16) == 1 << (signal.SIGTERM - 1)
    assert int(fields["SigIgn"], 16) & (1 << (signal.SIGHUP - 1))
    app.send(signal.SIGHUP)
    app.wait_event("reload.finished")
    app.send(signal.SIGTERM)
    app.send(signal.SIGTERM)
    assert app.wait(30) == 0


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes hooks and the boot notification."""

    got: list[tuple[str, dict[str, object]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.got.append((self.path, body))
        self.send_response(503 if self.path == "/bad" else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hooks() -> Iterator[tuple[int, list[tuple[str, dict[str, object]]]]]:
    got: list[tuple[str, dict[str, object]]] = []
    port = free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Hook,), {"got": got}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield port, got
    server.shutdown()
    thread.join()
    server.server_close()


def test_hooks_run_in_parallel_and_the_notification_has_their_outcomes(
    app: Supervisor, hooks: tuple[int, list[tuple[str, dict[str, object]]]]
) -> None:
    port, got = hooks
    app.environ |= {
        "SUPERVISOR_POST_START_HOOKS": f"echo cron is set up\nsh -c 'exit 4'\nhttp://127.0.0.1:{port}/good\n"
        f"http://127.0.0.1:{port}/bad\nsleep 60",
        "SUPERVISOR_HOOK_SECONDS": "1",
        "SUPERVISOR_WEBHOOK_URL": f"http://127.0.0.1:{port}/boot?token=s3cret",
    }
    app.boot()
    app.wait_event("hook.finished", hook="boot notification")
    outcomes = {event["hook"].split()[0]: event["ok"] for event in app.events("hook.finished")}
    assert outcomes == {"hook-1": True, "hook-2": False, "hook-3": True, "hook-4": False, "hook-5": False, "boot": True}
    message = next(body for path, body in got if path.startswith("/boot"))
    assert len(message["hooks"]) == 5  # type: ignore[arg-type]
    assert message["event"] == "boot.finished"
    assert answers(app.port) == 200
    assert "s3cret" not in app.log()
    assert app.stop() == 0


def test_hooks_wait_for_an_app_that_is_held_until_it_serves(app: Supervisor) -> None:
    (app_dir(app) / "crash").write_text("7")
    app.environ |= {
        "SUPERVISOR_ON_APP_FAILURE": "hold",
        "SUPERVISOR_RESTART_BASE_SECONDS": "0.02",
        "SUPERVISOR_POST_START_HOOKS": "echo the schedule is set up",
    }
    app.start()
    app.wait_event("app.held")
    assert app.cli("status").returncode == 3
    assert app.events("hook.finished") == []
    (app_dir(app) / "crash").unlink()
    assert app.cli("reload").returncode == 0
    assert app.wait_event("hook.finished")["ok"]
    assert app.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGRTMIN + 3])
def test_other_stop_signals_stop_it_too(app: Supervisor, number: int) -> None:
    app.boot()
    assert app.stop(number) == 0
    assert left_behind(app.state) == []


def test_the_app_and_its_hooks_run_as_the_user_that_was_asked_for(make: Make, folder: Path) -> None:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    (folder / "app").mkdir()
    hook = '["sh -c \\"echo hook $(id -u)\\""]'
    options = {"app_user": user.pw_name, "app_health": "none", "post_start_hooks": hook}
    words = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    script = 'echo "uid $(id -u) gid $(id -g) home $HOME user $USER"; exec sleep 600'
    app = make("--no-services", "--app-dir", str(folder / "app"), *words, "--", "sh", "-c", script)
    app.boot()
    told = f"uid {user.pw_uid} gid {user.pw_gid} home {user.pw_dir} user {user.pw_name}"
    wait_until("the app told who it is", partial(printed, app, told))
    wait_until("the hook told who it is", lambda: f"hook {user.pw_uid}" in app.log())


def test_an_app_user_that_is_not_there_ends_in_78(make: Make) -> None:
    app = make("--no-services", "--set", "app_user=no-such-user", "--", "true")
    app.start()
    assert app.wait(20) == 78
    assert "there is no such user here" in app.log()
