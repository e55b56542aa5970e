"""Which paths are left out of a release: as git would, and what is likely a secret."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.core.errors import ExitCode
from supervisor.releases.build.collect import collect
from supervisor.releases.build.ignore import Verdict, default_rules
from supervisor.releases.model import ReleaseError
from tests.releases.build.rig import LIMIT_SECONDS, make_tree, run

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
_RANDOM_TREES = 12
_RANDOM_TREES_WITH_SOAK = 300

TREE = [
    "a.log",
    "b.log",
    "build/out.js",
    "build/keep.js",
    "docs/a.md",
    "docs/deep/b.md",
    "src/a.py",
    "src/b.txt",
    "src/deep/a.py",
    "src/deep/c.txt",
    "foo/foo",
    "foo/bar",
    "foo/baz/foo",
    "foo/baz/x",
    "logs/1.log",
    "logs/2/1.log",
    "important.log",
    "!bang",
    "#hash",
    "x/y/z/end",
    "x/end",
    "node_modules/p/index.js",
    "node_modules/.cache/c",
    "packages/q/node_modules/.cache/c",
    "tmp/a/b/c",
    ".hidden/f",
    "sp ace",
]
RULES = {
    "names, paths and folders": {"": "*.log\n/build\ndocs/deep/\n!important.log\n"},
    "a folder that is left out hides what is taken back in it": {"": "build/\n!build/keep.js\n"},
    "what is in a folder, but one": {"": "build/*\n!build/keep.js\n"},
    "everything but some": {"": "*\n!*/\n!*.py\n"},
    "two stars at the end": {"": "foo/**\n!foo/bar\n"},
    "two stars at the end, folders only": {"": "foo/**/\n"},
    "two stars in the middle": {"": "x/**/end\n"},
    "two stars in front": {"": "**/baz\n**/deep/*.txt\n"},
    "two stars alone": {"": "**\n!foo\n"},
    "folders only": {"": "*/\n!foo/\n"},
    "a name that is its folder's too": {"": "foo\n"},
    "a name that is its folder's too, taken back": {"": "*\n!foo\n!foo/*\n"},
    "a deeper file comes first": {"": "*.py\n*.txt\n", "src": "!a.py\n", "src/deep": "a.py\n!c.txt\n"},
    "a deeper file is anchored in its folder": {"": "", "src": "/a.py\ndeep/c.txt\n", "foo": "baz/\n"},
    "signs": {"": "\\!bang\n\\#hash\n#a comment\n[ab].log\n?.log\n[!b].log\nsrc/[a-z].py\n\n   \n"},
    "ends of lines": {"": "a.log   \nb.log\r\nsrc/b.txt\r\n"},
    "a slash alone": {"": "/\n"},
    "a slash and stars": {"": "/*\n!/src\n/src/*\n!/src/deep/\n"},
}


def taken_by_us(folder: Path) -> set[str]:
    try:
        return {entry.path for entry in collect(folder).entries}
    except ReleaseError as error:
        if "nothing to take" not in str(error):
            raise
        return set()


def taken_by_git(folder: Path) -> set[str]:
    """By `git check-ignore` in a copy whose rules have git's names; each path and all above it must be taken."""
    run("git", "init", "--quiet", folder)
    (folder / ".git" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "info" / "exclude").write_text("")
    for rules in list(folder.rglob(".releaseignore")):
        rules.rename(rules.with_name(".gitignore"))
    paths = [path for path in folder.rglob("*") if ".git" not in path.parts and path.name != ".gitignore"]
    names = [str(path.relative_to(folder)) for path in paths]
    asked = "\0".join(names)
    answer = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "-C", str(folder), "check-ignore", "--no-index", "--stdin", "-z"],
        input=asked.encode(),
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert answer.returncode in (0, 1), answer.stderr
    return set(names) - set(os.fsdecode(answer.stdout).split("\0"))


def compare(folder: Path, rules: dict[str, str]) -> None:
    for name in ("ours", "gits"):
        make_tree(folder / name, dict.fromkeys(TREE, "x"))
        for below, text in rules.items():
            (folder / name / below / ".releaseignore").write_bytes(text.encode())
    # What we leave out without being asked, unless a rule takes it in, git does not.
    ours, gits = taken_by_us(folder / "ours"), taken_by_git(folder / "gits")
    assert {path for path in ours ^ gits if not _is_clutter(path)} == set()
    assert ours <= gits


def _is_clutter(path: str) -> bool:
    return "node_modules/.cache" in path


@needs_git
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
def test_rules_leave_out_what_git_would(tmp_path: Path, rules: dict[str, str]) -> None:
    compare(tmp_path, rules)


@needs_git
def test_random_rules_leave_out_what_git_would(tmp_path: Path, soak: bool) -> None:
    chance = random.Random(6)
    words = ["*", "**", "foo", "bar", "src", "deep", "*.py", "a*", "?.log", "build", "baz", "x", "end", "[a-c]*"]
    for number in range(_RANDOM_TREES_WITH_SOAK if soak else _RANDOM_TREES):
        lines = [
            chance.choice(["", "", "!"])
            + chance.choice(["", "", "/"])
            + "/".join(chance.choices(words, k=chance.choice([1, 1, 2, 3])))
            + chance.choice(["", "", "/"])
            for _ in range(chance.randrange(1, 7))
        ]
        half = len(lines) // 2
        folder = tmp_path / str(number)
        try:
            compare(folder, {"": "\n".join(lines[:half]), chance.choice(["src", "foo"]): "\n".join(lines[half:])})
        except AssertionError:
            pytest.fail(f"unlike git with {lines[:half]} and {lines[half:]} below")


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        (".env", Verdict.SECRET),
        ("deep/.env.local", Verdict.SECRET),
        (".env.production", Verdict.SECRET),
        ("certs/tls.key", Verdict.SECRET),
        ("server.pem", Verdict.SECRET),
        (".env.example", Verdict.TAKEN),
        (".env.production.sample", Verdict.TAKEN),
        ("environment", Verdict.TAKEN),
        ("keys.ts", Verdict.TAKEN),
        (".DS_Store", Verdict.LEFT_OUT),
        ("a/node_modules/.cache", Verdict.LEFT_OUT),
    ],
)
def test_a_likely_secret_is_left_out_unasked(path: str, verdict: Verdict) -> None:
    assert default_rules().verdict(path, is_folder=False) is verdict


def test_a_rule_takes_a_secret_in(tmp_path: Path) -> None:
    make_tree(tmp_path, {"ca.pem": "public", "tls.pem": "private", ".env": "A=1", ".releaseignore": "!ca.pem\n"})
    found = collect(tmp_path)
    assert [entry.path for entry in found.entries] == ["ca.pem"]
    assert found.secrets == (".env", "tls.pem")
    assert found.left_out == 2


def test_a_secret_that_a_rule_names_is_not_told_as_a_surprise(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "", ".env": "A=1", ".releaseignore": ".env\n"})
    found = collect(tmp_path)
    assert (found.left_out, found.secrets) == (1, ())


def test_no_rule_takes_in_what_is_never_taken(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        {
            "a": "",
            ".git/config": "",
            "sub/.git": "gitdir: elsewhere",
            "dist-tarball/old.tar.zst": "",
            ".release/manifest.json": "",
            "sub/.release/kept": "",
            "sub/dist-tarball/kept": "",
            ".releaseignore": "!.git\n!*\n!.releaseignore\n!dist-tarball\n!.release\n",
        },
    )
    assert [entry.path for entry in collect(tmp_path).entries] == [
        "a",
        "sub",
        "sub/.release",
        "sub/.release/kept",
        "sub/dist-tarball",
        "sub/dist-tarball/kept",
    ]


def test_lines_that_are_no_rule_are_all_named(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": "", ".releaseignore": "ok\n[z-a]\n", "sub/.releaseignore": "\n\nend\\\n", "sub/b": ""})
    with pytest.raises(ReleaseError) as caught:
        collect(tmp_path)
    assert "'.releaseignore' cannot be used: line 2 '[z-a]'" in str(caught.value)
    assert "'sub/.releaseignore' cannot be used: line 3 'end\\\\'" in str(caught.value)
    assert caught.value.exit_code == ExitCode.REJECTED
