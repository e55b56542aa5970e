"""`supervisor state export | import`: the round trip, what is refused, and that nobody sees a secret."""

from __future__ import annotations

import base64
import json
import os
import pty
import random
import select
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.commands.state import main
from supervisor.commands.state_export import active_releases, export_state
from supervisor.commands.state_import import import_state
from supervisor.commands.state_passphrase import VARIABLE, Passphrase
from supervisor.core.errors import ConfigurationError, RejectedError, SupervisorError
from supervisor.core.secret import Secret
from supervisor.process.leftovers import SpawnRecord
from supervisor.releases.layout import Layout
from supervisor.releases.state import StateFile
from supervisor.services.ports import RememberedPorts
from supervisor.state import Paths, State
from supervisor.store.files import StateLock
from supervisor.store.records import Verified
from supervisor.store.transfer import seal
from supervisor.store.transfer.content import Export
from supervisor.store.transfer.seal import unseal
from tests.store.transfer.rig import (
    AT,
    PASSPHRASE,
    QUICK,
    files_in,
    quick_seal,
    sealed,
    secrets_of,
    state_files,
    write_state,
)

LIMIT_SECONDS = 60


@pytest.fixture
def given(tmp_path: Path) -> Passphrase:
    """The passphrase, in a file."""
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    return Passphrase(tmp_path / "passphrase", {})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_state(tmp_path / "state", state_files("one"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keys are made in no time; those of the command's own processes are not."""
    real = seal.seal

    def quickly(content: bytes, passphrase: Secret, *, cost: int = QUICK) -> bytes:
        return real(content, passphrase, cost=cost)

    monkeypatch.setattr(seal, "seal", quickly)
    with quick_seal():
        yield


@contextmanager
def opened(folder: Path) -> Iterator[State]:
    """As a supervisor has it."""
    state = State(Paths(folder, folder / "run", folder / "run/control.sock"))
    try:
        yield state
    finally:
        state._lock.drop()


def run(folder: Path, *argv: str, stdin: bytes = b"", passphrase: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command, as a person has it, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "supervisor", "state", *argv],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "SUPERVISOR_STATE_DIR": str(folder),
            VARIABLE: passphrase,
        },
        cwd=Path(__file__).parents[2],
        input=stdin,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        start_new_session=True,
        check=False,
    )


# The round trip.


def test_imported_state_is_that_of_the_other_machine(state: Path, tmp_path: Path, given: Passphrase) -> None:
    with opened(state) as here:
        made = here.secrets.get_or_make("late")
        here.install.verified["engine"] = Verified("unix:///var/run/docker.sock", AT)
        here.save()
        export_state(state, str(tmp_path / "export"), given)
    import_state(tmp_path / "there/state", str(tmp_path / "export"), given)
    with opened(tmp_path / "there/state") as there:
        assert there.install == here.install
        assert there.install.uuid == "install-one"
        assert there.install.verified["mode"] == Verified("dind", AT)
        assert there.install.rest == {"later": "one"}
        assert there.secrets.get_or_make("late") == made
        assert there.secrets.get_or_make("postgres-app") == Secret("old-secret-one")
        assert (there.secrets.path("postgres-app.next")).read_text() == "new-secret-one\n"
        ports = RememberedPorts(there.install.ports, save=there.save, say=print, outlived=True)
        assert ports.port("redis", 0) == 20001
    releases = StateFile(Layout(tmp_path / "there/state/releases/app")).read()[0]
    assert releases.active == "one-0123456789ab"
    for folder in (tmp_path / "there/state/secrets", tmp_path / "there/state/secrets/apps"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "there/state").stat().st_mode) == 0o711


def test_command_carries_a_state_through_pipes(state: Path, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text(PASSPHRASE)
    out = run(state, "export", "-", passphrase=str(tmp_path / "pass"))
    assert out.returncode == 0, out.stderr
    assert out.stdout.startswith(seal.MAGIC)
    assert out.stdout[9] == 17
    back = run(tmp_path / "there", "import", "-", "--passphrase-file", str(tmp_path / "pass"), stdin=out.stdout)
    assert back.returncode == 0, back.stderr
    assert files_in(tmp_path / "there") == state_files("one")
    for said in (out.stderr, back.stdout):
        text = said.decode()
        assert "install-one" in text
        assert "not in it: the databases" in text
        assert "not in it: the files of release one-0123456789ab of app 'app'; apply it again" in text
        assert not [secret for secret in secrets_of("one") if secret in text]
    again = run(tmp_path / "there", "import", "-", "--passphrase-file", str(tmp_path / "pass"), stdin=out.stdout)
    assert again.returncode == 1
    assert b"there is a state in it" in again.stderr


def test_no_secret_is_in_the_exported_bytes(state: Path, tmp_path: Path, given: Passphrase) -> None:
    export_state(state, str(tmp_path / "export"), given)
    data = (tmp_path / "export").read_bytes()
    assert stat.S_IMODE((tmp_path / "export").stat().st_mode) == 0o600
    content = unseal(data, Secret(PASSPHRASE))
    for path, secret in state_files("one").items():
        assert base64.b64encode(secret) in content, path
        for form in (secret.strip(), base64.b64encode(secret.strip())[:12], path.encode()):
            assert form not in data, path
    for word in (PASSPHRASE, "install-one", "secrets", "files"):
        assert word.encode() not in data


# What is refused.


def test_import_beside_a_supervisor_is_refused_and_names_it(state: Path, tmp_path: Path, given: Passphrase) -> None:
    export_state(state, str(tmp_path / "export"), given)
    before = files_in(state)
    with opened(state):
        for force in (False, True):
            with pytest.raises(
                ConfigurationError, match=rf"another supervisor \(pid {os.getpid()} on .*\) is using it"
            ):
                import_state(state, str(tmp_path / "export"), given, force=force)
        export_state(state, str(tmp_path / "export"), given)
    assert files_in(state).keys() == before.keys()


def test_supervisor_beside_an_import_or_another_is_refused(state: Path) -> None:
    lock = StateLock(state / "lock")
    lock.take()
    with pytest.raises(ConfigurationError, match=rf"another supervisor \(pid {os.getpid()} on "), opened(state):
        raise AssertionError("it was opened")
    lock.drop()
    with opened(state):
        pass


def test_state_that_is_there_is_replaced_by_force_only(state: Path, tmp_path: Path, given: Passphrase) -> None:
    export_state(state, str(tmp_path / "export"), given)
    other = tmp_path / "other"
    write_state(other, state_files("two") | {"postgres/data/PG_VERSION": b"18"})
    before = files_in(other)
    with pytest.raises(
        RejectedError, match=r"there is a state in it \(.*install.json\); .*--force, which keeps it beside"
    ):
        import_state(other, str(tmp_path / "export"), given)
    assert files_in(other) == before
    import_state(other, str(tmp_path / "export"), given, force=True)
    found = files_in(other)
    kept = {path.partition("/")[2]: data for path, data in found.items() if path.startswith("state-before-import-20")}
    assert kept == state_files("two")
    assert found["postgres/data/PG_VERSION"] == b"18"
    assert {path: data for path, data in found.items() if path in state_files("one")} == state_files("one")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_state_that_root_imports_is_its_owners_to_open(state: Path, tmp_path: Path, given: Passphrase) -> None:
    export_state(state, str(tmp_path / "export"), given)
    (tmp_path / "there").mkdir()
    os.chown(tmp_path / "there", 12345, 12346)
    import_state(tmp_path / "there", str(tmp_path / "export"), given)
    for path in (tmp_path / "there").rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346), path


def test_secrets_alone_are_a_state_too(state: Path, tmp_path: Path, given: Passphrase) -> None:
    export_state(state, str(tmp_path / "export"), given)
    write_state(tmp_path / "there", {"secrets/apps/api/given/KEY": b"x"})
    with pytest.raises(RejectedError, match=r"there is a state in it \(secrets\)"):
        import_state(tmp_path / "there", str(tmp_path / "export"), given)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"install.json": b'{"uuid": "a", "format": 2}'},
            r"cannot use 'install.json': it was written by a",
        ),
        ({"install.json": b"{}"}, "'install.json' in it cannot be read"),
        ({"install.json": b"\xff"}, "'install.json' in it cannot be read"),
        ({"install.json": b'{"uuid": "b"}'}, "is not that of the install it names"),
        ({"releases/app/state.json": b'{"format": 3}'}, r"cannot use 'releases/app/state.json': it was written by a"),
        ({"releases/app/state.json": b"{}"}, "'releases/app/state.json' in it cannot be read"),
        ({"releases/app/sequences.json": b'{"format": 2}'}, "was written by a newer version"),
        ({"releases/app/sequences.json": b""}, "'releases/app/sequences.json' in it cannot be read"),
    ],
)
def test_records_that_a_start_could_not_read_are_refused_before(
    tmp_path: Path, given: Passphrase, changed: dict[str, bytes], why: str
) -> None:
    export = Export("a", AT, "1.0", state_files("a") | {"install.json": b'{"uuid": "a"}'} | changed)
    (tmp_path / "export").write_bytes(sealed(export.render()))
    with pytest.raises(SupervisorError, match=why):
        import_state(tmp_path / "there", str(tmp_path / "export"), given)
    assert not (tmp_path / "there").exists()


def test_export_without_an_install_is_refused(tmp_path: Path, given: Passphrase) -> None:
    (tmp_path / "export").write_bytes(sealed(Export("a", AT, "1.0", {"secrets/redis": b"x"}).render()))
    with pytest.raises(RejectedError, match="there is no install in it"):
        import_state(tmp_path / "there", str(tmp_path / "export"), given)
    with pytest.raises(ConfigurationError, match="there is no install in it; name its folder in SUPERVISOR_STATE_DIR"):
        export_state(tmp_path / "there", str(tmp_path / "new"), given)
    assert not (tmp_path / "there").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("install.json", b"{}", "'uuid'; start the supervisor, which mends its records or says what to do"),
        ("releases/app/state.json", b"", "'releases/app/state.json' in it cannot be read: Expecting value"),
        ("releases/app/state.json", b'{"format": 3}', "was written by a newer version"),
    ],
)
def test_state_that_could_not_be_imported_is_not_exported(
    state: Path, tmp_path: Path, given: Passphrase, path: str, data: bytes, why: str
) -> None:
    (state / path).write_bytes(data)
    with pytest.raises(ConfigurationError, match=why):
        export_state(state, str(tmp_path / "export"), given)
    assert not (tmp_path / "export").exists()


def test_state_that_is_too_big_is_not_exported(
    state: Path, tmp_path: Path, given: Passphrase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "MAX_BYTES", 1600)
    with pytest.raises(ConfigurationError, match=r"the file would have .* bytes, and 1,600 at most are read again"):
        export_state(state, str(tmp_path / "export"), given)
    assert not (tmp_path / "export").exists()


def test_export_writes_over_an_export_and_nothing_else(state: Path, tmp_path: Path, given: Passphrase) -> None:
    export_state(state, str(tmp_path / "export"), given)
    export_state(state, str(tmp_path / "export"), given)
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "export")
    for target in ("notes", "link", "state"):
        with pytest.raises(ConfigurationError, match="it is there, and is no exported state; choose another name"):
            export_state(state, str(tmp_path / target), given)
    assert (tmp_path / "notes").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="No such file or directory; make room there, or choose another place"):
        export_state(state, str(tmp_path / "none/export"), given)


def test_interrupted_import_is_not_exported(state: Path, tmp_path: Path, given: Passphrase) -> None:
    (state / ".import").mkdir()
    (state / ".import/plan.json").write_text("{}")
    with pytest.raises(RejectedError, match="an import into it was cut short; start the supervisor"):
        export_state(state, str(tmp_path / "export"), given)


def test_mutated_exports_are_refused_with_one_clear_error_and_nothing_written(
    state: Path, tmp_path: Path, given: Passphrase, soak: bool
) -> None:
    export_state(state, str(tmp_path / "export"), given)
    good = (tmp_path / "export").read_bytes()
    dice = random.Random(20261122)
    for number in range(3000 if soak else 300):
        (tmp_path / "mutated").write_bytes(mutated(good, dice))
        with pytest.raises(RejectedError) as caught:
            import_state(tmp_path / "there", str(tmp_path / "mutated"), given)
        text = str(caught.value)
        assert text.startswith(f"cannot import '{tmp_path / 'mutated'}': it") or "the passphrase is not" in text, number
        assert "\n" not in text
        assert not (tmp_path / "there").exists()
    import_state(tmp_path / "there", str(tmp_path / "export"), given)


def mutated(good: bytes, dice: random.Random) -> bytes:
    """Never the same as it was."""
    data = bytearray(good)
    match dice.randrange(5):
        case 0:
            # The cost among the first bytes is left out: 4 stands for 17 here, and 18 takes its time.
            at = dice.choice([*range(9), *range(10, len(data))])
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            del data[dice.randrange(len(data)) :]
        case 2:
            at = dice.randrange(len(data))
            del data[at : at + dice.randint(1, 64)]
        case 3:
            at = dice.randrange(len(data) + 1)
            data[at:at] = dice.randbytes(dice.randint(1, 64))
        case _:
            at, length = dice.randrange(10, len(data)), dice.randint(1, 64)
            data[at : at + length] = bytes(byte ^ dice.randint(1, 255) for byte in data[at : at + length])
    return bytes(data)


def test_mutated_documents_with_the_right_passphrase_lead_nowhere(
    tmp_path: Path, given: Passphrase, soak: bool
) -> None:
    """Whoever has the passphrase may be hostile too."""
    good = json.loads(Export("install-one", AT, "1.0", state_files("one")).render())
    dice = random.Random(7)
    words = ["", "..", "../x", "/x", "secrets", "install.json", ".import", "a\0", 7, -1, None, True, [], {}, 1e308]
    home = tmp_path / "home"
    home.mkdir()
    for number in range(2000 if soak else 200):
        document = json.loads(json.dumps(good))
        for _ in range(dice.randint(1, 3)):
            place = dice.choice([document, *[each for each in document["files"] if isinstance(each, dict)]])
            place[dice.choice([*place, "path"])] = dice.choice(words)
            if not isinstance(document["files"], list):
                break
        (tmp_path / "export").write_bytes(sealed(json.dumps(document).encode()))
        state = home / f"{number}"
        refused = ""
        try:
            import_state(state, str(tmp_path / "export"), given)
        except SupervisorError as error:
            refused = str(error)
        assert refused.startswith(("cannot import", "cannot use")) == (not state.exists())
        assert {path.name for path in home.iterdir()} <= {f"{each}" for each in range(number + 1)}
        assert not state.exists() or {path.name for path in state.iterdir()} <= {
            *("lock", "install.json", "secrets", "release-keys", "releases", "rescued-acme.json", "install.json.1"),
        }


# The passphrase.


def test_passphrase_is_of_the_option_before_the_variable(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("of the option\r\n")
    (tmp_path / "two").write_text("of the variable ü ")
    assert Passphrase(tmp_path / "one", {VARIABLE: str(tmp_path / "two")}).to_open() == Secret("of the option")
    assert Passphrase(None, {VARIABLE: str(tmp_path / "two")}).to_open() == Secret("of the variable ü ")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"\xff" * 20, "it is not UTF-8 text"),
        (b"x" * 1025, "more than 1,024 bytes"),
        (b"elevenchars", "less than 12 characters"),
    ],
)
def test_passphrase_that_cannot_be_used_says_why_and_is_not_shown(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "given").write_bytes(content)
    with pytest.raises(ConfigurationError, match=why) as caught:
        Passphrase(tmp_path / "given", {}).to_seal()
    assert "elevenchars" not in str(caught.value)


def test_without_a_terminal_or_a_file_it_says_how_to_give_one(state: Path, tmp_path: Path) -> None:
    done = run(state, "export", str(tmp_path / "export"))
    assert done.returncode == 78
    assert b"cannot ask for the passphrase: there is no terminal; give it with --passphrase-file or " in done.stderr
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(("answers", "code"), [((PASSPHRASE, PASSPHRASE), 0), ((PASSPHRASE, "another one here"), 78)])
def test_person_is_asked_twice_on_the_terminal(state: Path, tmp_path: Path, answers: Sequence[str], code: int) -> None:
    ours, theirs = pty.openpty()
    command = f'exec "{sys.executable}" -m supervisor state export "{tmp_path / "export"}"'
    # The shell is the leader of a new session, so the terminal that it opens is its own.
    child = subprocess.Popen(
        ["sh", "-c", f"{command} <{os.ttyname(theirs)} >{os.ttyname(theirs)} 2>&1"],
        env={**os.environ, "SUPERVISOR_STATE_DIR": str(state)},
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    said = b""
    for prompt, answer in zip((b"with: ", b"again: "), answers, strict=True):
        while not said.endswith(prompt):
            assert select.select([ours], [], [], LIMIT_SECONDS)[0], said
            said += os.read(ours, 1000)
        os.write(ours, answer.encode() + b"\n")
    assert child.wait(LIMIT_SECONDS) == code
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        said += terminal.read(10_000) or b""
    assert PASSPHRASE.encode() not in said
    assert (b"the two passphrases differ" in said) == (code == 78)
    assert (tmp_path / "export").exists() == (code == 0)


def test_passphrase_as_an_argument_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "x", "--passphrase", "hunter2hunter2"]) == 64
    said = capsys.readouterr().err
    assert "unrecognized arguments; a passphrase is given in a file" in said
    assert "hunter2" not in said


# Around it.


@pytest.mark.parametrize("argv", [[], ["export"], ["bogus"], ["import", "a", "b"], ["export", "a", "--force"]])
def test_wrong_usage_is_64(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 64
    assert capsys.readouterr().err.startswith("usage: supervisor state")


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--help"]) == 0
    assert "--passphrase-file" in capsys.readouterr().out


def test_a_run_does_not_load_the_library() -> None:
    program = "import sys, supervisor.daemon; sys.exit(bool({'cryptography'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], timeout=LIMIT_SECONDS, check=False).returncode == 0


def test_left_out_releases_are_told_for_what_can_be_read() -> None:
    files = {
        "releases/a/state.json": b'{"active": "x-1"}',
        "releases/b/state.json": b"[",
        "releases/c/image.json": b"{}",
    }
    assert active_releases({**files, "releases/d/state.json": b'{"active": "baked"}'}) == {"a": "x-1"}


def test_spawn_of_another_version_is_still_ours_to_end(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as here:
        values = {"pid": 7, "later": 1}
        (tmp_path / "state/spawned/7.json").write_text(json.dumps({**SPAWN, **values}))
        assert [record.pid for record in here.spawned.earlier()] == [7]


SPAWN = dict.fromkeys(SpawnRecord.__dataclass_fields__, "")
