"""Whatever bytes a settings file has: settings or our error, soon, in bounded memory, and never a secret in a text."""

from __future__ import annotations

import random
import time
import traceback
import tracemalloc
from pathlib import Path

import pytest

from supervisor.commands.fetch_secrets import parse_secrets
from supervisor.commands.load_settings import load
from supervisor.core.errors import ConfigurationError
from supervisor.store.text_files import MAX_BYTES, UnreadableError

TOKEN = "s3cr3t0of0this0test"
ROUNDS = 400
SOAK_ROUNDS = 20_000
TOML = f"""
port = 3001
log_level = "debug"
app_dir = "app"
boot_seconds = 1.5e2
services = ["redis"]
database_url = "postgresql://u:{TOKEN}@h/d"
webhook_url = '{TOKEN}'
front = "auto"
[apps.api]
command = "node a.js"
dir = "../x"
requires = ["web"]
database = {{ schema = "api", owner = true, reads = [] }}
[apps.api.env]
required = ["A"]
optional = {{ B = "{TOKEN}", C = 3 }}
[apps.api.env.vars.D]
pattern = "^x"
[apps.web]
command = ["x"]
port = 4
""".encode()
ENV = f"""
PORT=3001
export SUPERVISOR_STACK='shop'
DATABASE_URL="postgresql://u:{TOKEN}@h/d"
SUPERVISOR_WEBHOOK_URL={TOKEN}
A="x
y" # comment
STRIPE={TOKEN}
""".encode()
PIECES = [b"\0", b"\xff", b"'", b'"', b'"""', b"=", b"[", b"]]", b"{", b"\n", b"#", b"\\", b"\xe2\x80\xae", b"9" * 5000]
OTHERS = [b"5", b"[1]", b'"x"', b"{ a = 1 }", b"false", b"-1", b"1e999"]
PIECES += [b"0x" + b"f" * 5000, b"[" * 2000, b"inf", b"nan", b"1979-99-99", b"\\u0000", b"true", b"{}", b"change-me"]


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, taken out, put in, or doubled; the secret itself stays in one piece or goes."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 5)]
            case 2:
                data[at:at] = chance.choice(PIECES)
            case 3:
                line = chance.choice(seed.splitlines(keepends=True))
                data[at:at] = line
            case _:
                # A value of another kind behind some `=`.
                places = [place for place, byte in enumerate(data) if byte == ord("=")]
                if places:
                    place = chance.choice(places) + 1
                    data[place:place] = b" " + chance.choice(
                        [b"5", b"[1]", b'"x"', b"{ a = 1 }", b"false", b"-1", b"1e999"]
                    )
    return bytes(data)


def tried(folder: Path) -> str:
    """The text of the mistake, with that of all behind it; empty where all is good."""
    try:
        assert TOKEN not in repr(load({}, config=folder / "supervisor.toml", environ={}))
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error)) + str(error)
    return ""


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many files are tried."""
    return SOAK_ROUNDS if request.config.getoption("--soak", default=False) else ROUNDS


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of secrets of the machine."""
    monkeypatch.setattr("supervisor.commands.load_settings._SECRETS_DIR", str(tmp_path / "secrets"))
    (tmp_path / "supervisor.toml").write_text("")


@pytest.mark.parametrize(("name", "seed"), [("supervisor.toml", TOML), (".env", ENV), (".env.production", ENV)])
def test_any_bytes_are_settings_or_our_error_without_a_secret(
    tmp_path: Path, rounds: int, name: str, seed: bytes
) -> None:
    (tmp_path / name).write_bytes(seed)
    assert tried(tmp_path) == ""  # the seed itself is good, so what is found is of the changes
    good = 0
    for number in range(rounds):
        data = mutated(seed, random.Random(f"{name} {number}"))
        (tmp_path / name).write_bytes(data)
        text = tried(tmp_path)
        good += not text
        assert TOKEN not in text, (number, data)
    assert 0 < good < rounds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = " + "9" * 5000, "a number or a date in it is impossible"),
        ("port = 0x" + "f" * 5000, "port is too big to be shown: "),
        ("app_dir = '" + "x" * 5000 + "'\nport = 0", "port is 0: "),
        ('services = ["\\u0000"]', "a text in it has a null byte"),
        ("boot_seconds = nan", "boot_seconds is nan: "),
        ("port = 1979-05-27", "port is datetime.date(1979, 5, 27): "),
        ("a = " + "[" * 3000, "it is nested too deep; make it flat"),
        ("[apps]\n" + "".join(f'a{n}.command = "x"\n' for n in range(65)), "[apps]: dictionary should have at most 64"),
    ],
)
def test_a_value_that_python_cannot_take_is_a_mistake_like_any_other(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "supervisor.toml").write_text(text)
    assert expected in tried(tmp_path)


def test_what_a_secrets_command_prints_may_be_any_bytes() -> None:
    for seed in (ENV, b'{"A": "' + TOKEN.encode() + b'", "PORT": 3, "B": true}'):
        for number in range(ROUNDS):
            text = ""
            try:
                parse_secrets(mutated(seed, random.Random(number)))
            except UnreadableError as error:
                text = "".join(traceback.format_exception(error))
            assert TOKEN not in text, number


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("supervisor.toml", b"["),
        ("supervisor.toml", b"a."),
        ("supervisor.toml", b"a = ["),
        ("supervisor.toml", b"a = {a="),
        ("supervisor.toml", b"[a.b.c.d.e.f]\n"),
        ("supervisor.toml", b'"""'),
        ("supervisor.toml", b"x=1\n"),
        ("supervisor.toml", b'[apps.a]\ncommand="x"\n'),
        (".env", b"'"),
        (".env", b"\\'"),
        (".env", b'A="\n'),
        (".env", b"A"),
        (".env", b"A=1\n"),
        (".env", b"SUPERVISOR_PORT=1\n"),
    ],
)
@pytest.mark.parametrize("size", [MAX_BYTES, 64 * MAX_BYTES], ids=["just small enough", "huge"])
def test_a_long_file_is_answered_soon_and_in_little_memory(tmp_path: Path, name: str, unit: bytes, size: int) -> None:
    head, separator, again = unit.rpartition(b" ")
    (tmp_path / name).write_bytes((head + separator + again * (size // len(again) + 1))[:size])
    tracemalloc.start()
    started = time.process_time()
    try:
        tried(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Bounds far above what is needed: they are to catch what grows without one.
    assert time.process_time() - started < 10
    assert peak < 128 * 1024 * 1024


def test_many_unknown_names_are_answered_soon(tmp_path: Path) -> None:
    lines = b"".join(b"SUPERVISOR_X%d=1\n" % number for number in range(10_000))
    (tmp_path / ".env").write_bytes(lines)
    started = time.process_time()
    report = tried(tmp_path)
    assert time.process_time() - started < 10
    assert len(report) < 100_000
