"""`supervisor secrets`, as a user meets it where no supervisor runs: nothing is shown that was not asked for."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.core.secret import Secret
from supervisor.services.tenancy.credential import Credential
from supervisor.services.tenancy.names import Slot
from supervisor.store.app_secrets import AppSecrets
from supervisor.store.secrets import SecretFolder

VALUE = "s3cr3t-of-this-test"
CONFIG = """
[apps.api]
command = "api"
[apps.api.env]
required = ["STRIPE_KEY"]
[apps.api.env.vars.SESSION_SECRET]
generate = true
[apps.api.env.vars.SMTP_URL]
kind = "url"
pattern = "^smtps://"
min_length = 12
"""


class Install:
    """A state folder and a supervisor.toml."""

    def __init__(self, folder: Path) -> None:
        (folder / "supervisor.toml").write_text(CONFIG)
        self.folder = folder
        self.state = folder / "state"
        self.secrets = self.state / "secrets"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "SUPERVISOR_CONFIG": str(folder / "supervisor.toml"),
            "SUPERVISOR_STATE_DIR": str(self.state),
            "SUPERVISOR_SOCKET": str(folder / "none.sock"),
        }

    def made(self) -> None:
        """As a boot leaves it."""
        self.secrets.mkdir(parents=True)
        self.secrets.chmod(0o700)
        for name in ("postgres-app", "postgres-superuser", "redis"):
            SecretFolder(self.secrets).get_or_make(name)
        (self.state / "postgres" / "data").mkdir(parents=True)
        AppSecrets(self.secrets, "api").make("SESSION_SECRET")
        AppSecrets(self.secrets, "api").login("database").put_current(Credential(Slot.B, Secret(VALUE)).text())

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "supervisor", "secrets", *arguments],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def given(self) -> dict[str, str]:
        return {name: value.reveal() for name, value in AppSecrets(self.secrets, "api").given().items()}


@pytest.fixture
def install(tmp_path: Path) -> Install:
    return Install(tmp_path)


def test_list_names_everything_and_no_value(install: Install) -> None:
    assert json.loads(install.run("list", "--json").stdout) == []
    install.made()
    AppSecrets(install.secrets, "api").set("STRIPE_KEY", Secret(VALUE))
    SecretFolder(install.secrets).rotating("redis").put_next(Secret(VALUE))
    done = install.run("list", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "postgres": "install",
        "postgres-superuser": "install",
        "redis": "install",
        "api/database": "login",
        "api/SESSION_SECRET": "made",
        "api/STRIPE_KEY": "given",
    }
    assert [name for name, row in rows.items() if row["pending"]] == ["redis"]
    age = datetime.now(UTC) - datetime.fromisoformat(rows["redis"]["changed"])
    assert abs(age.total_seconds()) < 60
    plain = install.run("list", "api").stdout
    assert re.findall(r"^\S+", plain, re.MULTILINE) == ["api/database", "api/SESSION_SECRET", "api/STRIPE_KEY"]
    texts = [path.read_text().strip() for path in install.secrets.rglob("*") if path.is_file()]
    assert not any(text.rpartition(":")[2] in done.stdout + plain for text in texts)


def test_set_keeps_what_the_command_line_and_standard_input_give(install: Install) -> None:
    done = install.run("set", "api", f"STRIPE_KEY={VALUE}=x", "TOKEN", "PEM=-", stdin="of-a-line\nrest\nof it\n")
    assert done.returncode == 0, done.stderr
    assert install.given() == {"STRIPE_KEY": f"{VALUE}=x", "TOKEN": "of-a-line", "PEM": "rest\nof it\n"}
    assert "in force from the next start, or `supervisor reload api`" in done.stdout
    assert VALUE not in done.stdout
    modes = {stat.S_IMODE(path.stat().st_mode) for path in install.secrets.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE(install.secrets.stat().st_mode) == 0o700
    assert install.run("unset", "api", "TOKEN", "PEM").returncode == 0
    assert list(install.given()) == ["STRIPE_KEY"]
    lacking = install.run("unset", "api", "TOKEN")
    assert (lacking.returncode, "TOKEN of app 'api': not set" in lacking.stderr) == (78, True)


@pytest.mark.parametrize(
    ("words", "stdin", "text"),
    [
        (["api", f"OTHER={VALUE}", "SMTP_URL=noturl-s3cr3t"], "", "SMTP_URL of app 'api': it is not a URL"),
        (["api", "SMTP_URL"], "smtp://s3cr3t-host\n", "does not match '^smtps://'"),
        (["api", "SMTP_URL=smtps://s3c"], "", "has 11 characters; it must have 12 or more"),
        (["api", "A", "B"], "s3cr3t\n", "cannot read B from standard input: it ended"),
        (["api", "A="], "", "the value is empty"),
        (["api", "A-B=s3cr3t"], "", "a variable's name is of letters"),
        (["apj", "A=s3cr3t"], "", "no such app; did you mean 'api'?"),
        (["api", "A=-", "B=-"], "", "cannot read two values to the end"),
    ],
)
def test_set_refuses_what_is_not_as_declared_and_sets_nothing(
    install: Install, words: list[str], stdin: str, text: str
) -> None:
    done = install.run("set", *words, stdin=stdin)
    assert done.returncode == 78
    assert text in done.stderr
    assert "s3c" not in done.stderr.replace("s3cr3t-of-this-test", "")
    assert install.given() == {}


def test_set_asks_on_the_terminal_without_echo(install: Install) -> None:
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execve(
            sys.executable, [sys.executable, "-m", "supervisor", "secrets", "set", "api", "STRIPE_KEY"], install.environ
        )
    shown = b""
    while b"STRIPE_KEY of app 'api': " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, f"{VALUE}\n".encode())
    while b"in force" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    os.waitpid(pid, 0)
    assert VALUE.encode() not in shown
    assert install.given() == {"STRIPE_KEY": VALUE}


def test_get_prints_one_value_and_only_when_told_to_reveal_it(install: Install) -> None:
    install.made()
    refused = install.run("get", "api/database")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "without --reveal" in refused.stderr
    assert install.run("get", "api/database", "--reveal").stdout == f"{VALUE}\n"
    kept = SecretFolder(install.secrets).get_or_make("postgres-app").reveal()
    assert install.run("get", "postgres", "--reveal").stdout == f"{kept}\n"
    # A value that the user has set stands before one that was made.
    AppSecrets(install.secrets, "api").set("SESSION_SECRET", Secret("by-hand"))
    assert install.run("get", "api/SESSION_SECRET", "--reveal").stdout == "by-hand\n"
    unknown = install.run("get", "api/databse", "--reveal")
    assert (unknown.returncode, "did you mean 'api/database'?" in unknown.stderr) == (78, True)


def test_rotate_without_a_supervisor_changes_what_was_made_and_nothing_else(install: Install) -> None:
    install.made()
    before = AppSecrets(install.secrets, "api").make("SESSION_SECRET")
    done = install.run("rotate", "api/SESSION_SECRET")
    assert (done.returncode, "in force from the next start" in done.stdout) == (0, True), done.stderr
    after = AppSecrets(install.secrets, "api").make("SESSION_SECRET")
    assert after != before
    assert after.reveal() not in done.stdout
    refused = install.run("rotate", "api/database")
    assert refused.returncode == 78
    assert "only what was made for an app (APP/VAR) is rotated without a running supervisor" in refused.stderr


def test_usage_errors_name_no_argument(install: Install) -> None:
    done = install.run("set", "--wrong", "api", f"A={VALUE}")
    assert done.returncode == 64
    assert VALUE not in done.stderr + done.stdout
