"""A value that the user sets for an app reaches it, at once where that is asked for."""

from __future__ import annotations

import pytest

from tests.e2e.rotation.conftest import Started

pytestmark = pytest.mark.servers


def test_value_set_with_reload_reaches_the_app_and_no_log(stack: Started) -> None:
    made = stack()
    (made.app_dir / "leak").touch()
    made.supervisor.boot()
    done = made.supervisor.cli(
        "secrets", "set", "api", "SESSION_SECRET=given-by-hand-and-long-enough-for-it", "--reload"
    )
    assert (done.returncode, "reload api: ok" in done.stdout) == (0, True), done.stderr
    assert made.environ()["SESSION_SECRET"] == "given-by-hand-and-long-enough-for-it"
    assert made.supervisor.cli("secrets", "set", "api", "EXTRA=not-declared-all-the-same", "--reload").returncode == 0
    assert made.environ()["EXTRA"] == "not-declared-all-the-same"
    listed = made.supervisor.cli("secrets", "list", "api").stdout
    assert all(name in listed for name in ("api/EXTRA", "api/database", "api/redis", "api/SESSION_SECRET"))
    refused = made.supervisor.cli("secrets", "rotate", "api/SESSION_SECRET")
    assert (refused.returncode, "set by `supervisor secrets set`" in refused.stderr) == (1, True)
    assert made.supervisor.cli("secrets", "unset", "api", "SESSION_SECRET", "--reload").returncode == 0
    assert made.environ()["SESSION_SECRET"] == made.value("api/SESSION_SECRET")
    log = made.supervisor.log()
    assert "given-by-hand" not in log
    assert "not-declared-all" not in log
