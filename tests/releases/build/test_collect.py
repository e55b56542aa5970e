"""What goes into a release, and what is refused, all of it at once."""

from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path

import pytest

from supervisor.releases.build.collect import collect
from supervisor.releases.build.links import bad_links
from supervisor.releases.model import Entry, Kind, ReleaseError
from supervisor.releases.unpack.links import check_links
from tests.releases.build.rig import make_tree, run

_RANDOM_TREES = 300
REPOSITORY = str(Path(__file__).resolve().parents[3])
LOOKER = """
import os
from pathlib import Path
from supervisor.releases.build.collect import collect
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
try:
    collect(Path("."))
except Exception as error:
    print(error)
"""


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(ReleaseError) as caught:
        collect(folder, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_entries_come_in_the_order_of_their_paths_bytes(tmp_path: Path) -> None:
    make_tree(tmp_path, {"b": "", "a/z": "x", "a-b": "", "a/.h/": "", "ä": "", "Z": ""})
    (tmp_path / "b").chmod(0o711)
    (tmp_path / "l").symlink_to("a/z")
    entries = collect(tmp_path).entries
    assert [entry.path for entry in entries] == ["Z", "a", "a-b", "a/.h", "a/z", "b", "l", "ä"]
    by_path = {entry.path: entry for entry in entries}
    assert by_path["b"].executable
    assert by_path["a/z"] == Entry("a/z", Kind.FILE, size=1)
    assert by_path["l"] == Entry("l", Kind.LINK, "a/z")
    assert by_path["a/.h"].kind is Kind.FOLDER


def test_everything_in_the_way_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, {"good": "", "c:/drive": ""})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("../elsewhere")
    (tmp_path / "etc").symlink_to("/etc/passwd")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        text = refused(tmp_path, needed=["dist", "good"])
    assert text.splitlines()[0] == f"cannot build a release of {str(tmp_path)!r}:"
    assert text.splitlines()[1:] == [
        "  - 'c:' is a Windows path; rename it, or name it in .releaseignore",
        "  - 'pipe' is a fifo; remove it, or name it in .releaseignore",
        "  - 'sock' is a socket; remove it, or name it in .releaseignore",
        "  - link 'etc' to '/etc/passwd' is absolute; make it relative, or name it in .releaseignore",
        "  - link 'out' to '../elsewhere' points outside of the folder; copy what it points to into the folder, "
        "or name it in .releaseignore",
        "  - 'dist' is to be replaced and is not there; build the app first",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices may be made here")
    assert "'null' is a device; remove it" in refused(tmp_path)


def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    """Looked through by another user, from within: the folders above are not theirs to enter."""
    make_tree(tmp_path, {"good": "", "secret": "x", "closed/a": ""})
    tmp_path.chmod(0o755)
    (tmp_path / "secret").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        said = run(sys.executable, "-c", LOOKER, cwd=tmp_path, env={**os.environ, "PYTHONPATH": REPOSITORY}).stdout
    finally:
        (tmp_path / "closed").chmod(0o700)
    uid = os.geteuid() or 65534
    assert said.splitlines()[1:] == [
        "  - 'closed' cannot be listed (Permission denied); make it readable, or name it in .releaseignore",
        f"  - 'secret' cannot be read; make it readable for uid {uid}, or name it in .releaseignore",
    ]


def test_twenty_mistakes_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    for number in range(25):
        os.mkfifo(tmp_path / f"{number:02}")
    lines = refused(tmp_path).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  - and 5 more"


def test_a_path_that_is_too_deep_or_too_long_is_refused(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(70):
        place /= "d"
    place.mkdir(parents=True)
    long = tmp_path / "/".join(["x" * 200] * 6)
    long.mkdir(parents=True)
    text = refused(tmp_path)
    assert "deeper than 64 folders; rename it" in text
    assert len(text.splitlines()) == 3


def test_what_is_left_out_is_not_in_the_way(tmp_path: Path) -> None:
    make_tree(tmp_path, {"good": "", ".releaseignore": "pipe\nout\n"})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("/")
    assert [entry.path for entry in collect(tmp_path).entries] == ["good"]


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "all left out"])
def test_a_folder_with_nothing_to_release_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "app"
    if kind == "file":
        folder.write_text("")
    elif kind == "empty":
        folder.mkdir()
    elif kind == "all left out":
        make_tree(folder, {"a": "", ".releaseignore": "*\n"})
    why = {"missing": "there is no such folder", "file": "it is no folder"}.get(kind, "it has nothing to take")
    assert why in refused(folder)


def test_what_must_be_there_and_is_left_out_says_so(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "", "dist/a": "", ".releaseignore": "dist\n"})
    assert "'dist' is to be replaced and is left out; see .releaseignore" in refused(tmp_path, needed=["dist"])


def test_the_signing_key_is_never_taken(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "", "sub/sign.txt": "", "pass": ""})
    private = {"the signing key": tmp_path / "sub" / ".." / "sub" / "sign.txt"}
    text = refused(tmp_path, private=private)
    assert "'sub/sign.txt' is the signing key; keep it outside of the app's folder" in text


def test_the_output_is_left_out_wherever_it_is(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "", "made/here/old.tar.zst": ""})
    assert [entry.path for entry in collect(tmp_path, output=tmp_path / "made" / "here").entries] == ["a", "made"]


def test_names_that_differ_in_case_only_are_told(tmp_path: Path) -> None:
    make_tree(tmp_path, {"sub/Readme": "", "sub/README": "", "readme": ""})
    if len(list((tmp_path / "sub").iterdir())) < 2:
        pytest.skip("this filesystem knows no case")
    assert collect(tmp_path).warnings == ("'sub/README' and 'sub/Readme' differ in case only",)


def test_a_rules_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "", "rules": "a\n"})
    (tmp_path / ".releaseignore").symlink_to("rules")
    assert "'.releaseignore' cannot be used: it is a link; put a file in its place" in refused(tmp_path)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("x/file", ""),
        ("sub/gone", ""),
        ("./sub/../file", ""),
        ("last", ""),
        ("..", "points outside of the folder"),
        ("sub/../../up", "points outside of the folder"),
        ("/abs", "is absolute"),
        ("through/file", "passes through the link 'through'"),
        ("through/../file", "passes through the link 'through'"),
        ("gone/../file", "turns back at 'gone'"),
        ("link", "goes in a circle"),
        ("circle", "goes in a circle"),
        ("y" * 1100, "is longer than 1024 bytes"),
    ],
)
def test_a_link_that_leads_out_or_nowhere_is_refused(target: str, why: str) -> None:
    entries = [
        Entry("file", Kind.FILE),
        Entry("sub", Kind.FOLDER),
        Entry("sub/file", Kind.FILE),
        Entry("last", Kind.LINK, "through"),
        Entry("through", Kind.LINK, "sub"),
        Entry("circle", Kind.LINK, "link"),
        Entry("link", Kind.LINK, target),
    ]
    found = {entry.path: why for entry, why in bad_links(entries)}
    assert ("link" in found) == bool(why)
    assert found.get("link", "").startswith(why)


def test_a_link_is_refused_here_where_it_would_be_there() -> None:
    """What a supervisor would refuse to unpack is not built, and nothing else is refused."""
    chance = random.Random(3)
    seen: set[bool] = set()
    for _ in range(_RANDOM_TREES):
        entries = [Entry("a", Kind.FOLDER), Entry("a/b", Kind.FOLDER), Entry("f", Kind.FILE), Entry("a/f", Kind.FILE)]
        for path in ("l", "m", "a/l", "a/b/l"):
            words = chance.choices(["a", "b", "l", "m", "f", "..", ".", "gone", ""], k=chance.randrange(1, 4))
            entries.append(Entry(path, Kind.LINK, "/".join(words) or "f"))
        ours = list(bad_links(entries))
        try:
            check_links({entry.path: entry for entry in entries})
            theirs = False
        except ReleaseError:
            theirs = True
        assert bool(ours) == theirs, (entries, ours)
        seen.add(theirs)
    assert seen == {True, False}
