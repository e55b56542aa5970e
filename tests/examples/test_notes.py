"""Both examples keep one contract: real notes in Postgres, a counter in Redis, honest health, an orderly end."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.commands.load_settings import load
from tests.examples.servers import EXAMPLES, App, Postgres, Redis, wait_until

pytestmark = pytest.mark.servers


def test_a_note_is_there_after_a_restart_of_the_app(make_app: Callable[[], App]) -> None:
    with make_app() as first:
        first.wait_healthy()
        answer = first.post_json({"body": "buy milk"})
        assert (answer.status, answer.json["body"]) == (201, "buy milk")
        assert first.end() == 0
    with make_app() as second:
        second.wait_healthy()
        assert second.bodies() == ["buy milk"]
        assert "1 written so far" in second.get("/").text


def test_the_form_writes_a_note_and_leads_back_to_the_page(app: App) -> None:
    answer = app.post_form(body="an umlaut ü & a plus +")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert app.bodies() == ["an umlaut ü & a plus +"]


def test_notes_are_listed_newest_first(app: App) -> None:
    for number in range(3):
        app.post_json({"body": f"note {number}"})
    assert app.bodies() == ["note 2", "note 1", "note 0"]


def test_markup_in_a_note_is_shown_not_run(app: App) -> None:
    app.post_json({"body": "<script>alert('x')</script>"})
    page = app.get("/")
    assert "<script" not in page.text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"body": "  "}', "application/json", 422),
        (b'{"body": 7}', "application/json", 422),
        (b'{"body": "a\\u0000b"}', "application/json", 422),
        (b"[1]", "application/json", 422),
        (b"not json", "application/json; charset=utf-8", 422),
        (b"other=field", "application/x-www-form-urlencoded", 422),
        (b"body=" + b"x" * 2001, "application/x-www-form-urlencoded", 422),
        (b"body=" + b"x" * 17000, "application/x-www-form-urlencoded", 413),
    ],
    ids=["blank", "number", "nul", "list", "no-json", "other-field", "too-long", "too-large"],
)
def test_a_note_that_cannot_be_kept_is_refused(app: App, content: bytes, kind: str, status: int) -> None:
    assert app.request("POST", "/notes", content, kind).status == status
    assert app.bodies() == []


def test_an_unknown_path_is_404(app: App) -> None:
    assert app.get("/nothing").status == 404


def test_health_tells_that_redis_is_away_and_back(app: App, redis: Redis) -> None:
    redis.stop()
    down = app.get("/api/health")
    assert (down.status, down.json["status"], down.json["checks"]["postgres"]) == (503, "unavailable", "ok")
    assert down.json["checks"]["redis"] != "ok"
    redis.start()
    app.wait_healthy()
    assert app.post_json({"body": "afterwards"}).status == 201


def test_health_tells_that_postgres_is_away_and_back(app: App, postgres: Postgres) -> None:
    app.post_json({"body": "before"})
    postgres.stop()
    down = app.get("/api/health")
    assert (down.status, down.json["checks"]["redis"]) == (503, "ok")
    assert down.json["checks"]["postgres"] != "ok"
    assert app.get("/notes").status == 503
    assert app.post_json({"body": "meanwhile"}).status == 503
    postgres.start()
    app.wait_healthy()
    assert app.bodies() == ["before"]


def test_nothing_is_saved_while_redis_is_away(app: App, redis: Redis) -> None:
    redis.stop()
    refused = app.post_json({"body": "half"})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert app.get("/").status == 503
    assert app.bodies() == []


def test_the_app_starts_while_its_servers_are_away(
    make_app: Callable[[], App], postgres: Postgres, redis: Redis
) -> None:
    redis.stop()
    postgres.stop()
    with make_app() as app:
        assert app.get("/api/health").status == 503
        redis.start()
        postgres.start()
        app.wait_healthy()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_it_with_0_beside_an_idle_connection(app: App, number: signal.Signals) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)
    connection.request("GET", "/notes")
    connection.getresponse().read()
    assert app.end(number, limit_seconds=3) == 0
    connection.close()


def test_a_stop_lets_the_request_in_hand_end(app: App) -> None:
    content = json.dumps({"body": "in hand"}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=5)
    connection.putrequest("POST", "/notes")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content[:4])
    # A second request answered proves that the first, sent before it, was taken.
    assert app.get("/notes").status == 200
    assert app.process.popen is not None
    app.process.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(app), what="the app takes no new connection")
    connection.send(content[4:])
    assert connection.getresponse().status == 201
    assert app.process.popen.wait(3) == 0
    connection.close()


def refuses(app: App) -> bool:
    try:
        app.get("/notes")
    except OSError:
        return True
    return False


def test_the_version_is_that_of_the_start(make_app: Callable[[], App], example: str, folder: Path) -> None:
    source = folder / ("package.json" if example == "notes-node" else "VERSION")
    with make_app() as app:
        app.wait_healthy()
        source.write_text(source.read_text().replace("1.0.0", "1.0.1"))
        assert app.get("/api/health").json["version"] == "1.0.0"
        app.end()
        app.start()
        app.wait_healthy()
        assert app.get("/api/health").json["version"] == "1.0.1"


def test_a_missing_url_is_named(make_app: Callable[[], App]) -> None:
    app = make_app()
    app.redis_url = ""
    app.__post_init__()
    app.process.start()
    assert app.process.popen is not None
    assert app.process.popen.wait(10) == 1
    assert "cannot start the notes app: REDIS_URL not set" in app.log.read_text()


def test_the_settings_of_an_example_are_accepted(example: str) -> None:
    folder = EXAMPLES / example
    settings = load({"app_dir": str(folder)}, config=folder / "supervisor.toml", environ={}).settings
    assert settings.app_command is not None
    assert settings.migrate_dir is not None
    assert (folder / settings.migrate_dir).is_dir()


def test_the_drizzle_journal_lists_every_migration() -> None:
    folder = EXAMPLES / "notes-node" / "drizzle"
    entries = json.loads((folder / "meta" / "_journal.json").read_text())["entries"]
    assert [entry["tag"] for entry in entries] == sorted(file.stem for file in folder.glob("*.sql"))
    assert [entry["idx"] for entry in entries] == list(range(len(entries)))
    assert sorted(entry["when"] for entry in entries) == [entry["when"] for entry in entries]
