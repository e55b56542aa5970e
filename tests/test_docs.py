"""The documents say what is true: settings, links, commands, paths and error texts are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from supervisor.cli.app import app as command_line
from supervisor.commands import reference
from supervisor.commands.reference_groups import GROUPS
from supervisor.commands.run import parser
from supervisor.core import settings as model
from supervisor.core.errors import ExitCode
from supervisor.core.settings import Settings, UserService

REPOSITORY = Path(__file__).resolve().parents[1]
README, GUIDE, CHANGELOG = (REPOSITORY / name for name in ("README.md", "CONTAINERIZATION.md", "CHANGELOG.md"))
DOCUMENTS = (README, GUIDE, CHANGELOG)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def snippets(path: Path) -> Iterator[str]:
    """Every line of code in a document: those of the fenced blocks, and what stands between backticks in the text."""
    for found in FENCE.finditer(path.read_text(encoding="utf-8")):
        yield from found.group(3).splitlines()
    yield from CODE.findall(HEADING.sub("", prose(path)))  # headings quote error texts


def section(title: str) -> str:
    """One second-level section of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    begin = text.index(f"\n## {title}\n")
    end = text.find("\n## ", begin + 1)
    return text[begin : end if end > 0 else len(text)]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(path)))
    return {heading.replace(" ", "-") for heading in words}


# The settings.


def test_the_settings_reference_is_in_step_with_the_model() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert reference.put_into(text) == text, "run scripts/docs"


def test_every_setting_is_in_one_group_of_the_reference() -> None:
    grouped = [name for fields in GROUPS.values() for name in fields]
    assert sorted(grouped) == sorted(model.plain_fields())


def test_a_row_has_variable_aliases_key_what_it_takes_default_and_meaning() -> None:
    rows = reference.section().splitlines()
    assert any(
        row.startswith("| `SUPERVISOR_PORT` | `PORT`, `--port` | `port` | port, 1 to 65535 | `3000` |") for row in rows
    )
    assert any(
        row.startswith("| `SUPERVISOR_APP_RESTART` |  | `app_restart` | `no`, `on-failure`, `always` | `on-failure` |")
        for row in rows
    )
    assert any("`DATABASE_URL`, `SUPERVISOR_DATABASE_URL_FILE`, `DATABASE_URL_FILE`" in row for row in rows)
    for name in model.plain_fields():
        assert sum(row.startswith(f"| `{model.variable(name)}` |") for row in rows) == 1
    for name in UserService.model_fields:
        assert any(row.startswith(f"| `{name}` |") for row in rows)


def test_every_row_of_the_reference_has_the_columns_of_its_table() -> None:
    columns = 0
    for row in reference.section().splitlines():
        if row.startswith("|"):
            columns = columns or row.count("|")
            assert len(re.findall(r"(?<!\\)\|", row)) == columns, row
        else:
            columns = 0


def test_a_document_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="are not in it"):
        reference.put_into("# no marks\n")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_of_ours_that_is_named_is_real(path: Path) -> None:
    real = {model.variable(name) for name in Settings.model_fields} | model.NOT_SETTINGS
    real |= {f"{model.variable(name)}_FILE" for name in model.plain_fields()}
    for file in (REPOSITORY / "examples").glob("*/Dockerfile"):
        real |= set(re.findall(r"^ARG (SUPERVISOR_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bSUPERVISOR_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8")))
    assert named - real == set()


# Links and files.


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def test_the_guides_list_of_contents_is_its_headings() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(.+)\]\(#.+\)$", text[: text.index("\n## ")], re.MULTILINE)
    assert listed == re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_script_that_is_named_is_there(path: Path) -> None:
    named = set(re.findall(r"\bscripts/([a-z][a-z-]*)", path.read_text(encoding="utf-8")))
    assert {name for name in named if not (REPOSITORY / "scripts" / name).is_file()} == set()


def test_every_script_is_in_the_guide() -> None:
    for script in (REPOSITORY / "scripts").iterdir():
        assert f"`scripts/{script.name}`" in section("Working on it")


def test_every_room_is_in_the_guide() -> None:
    for room in (REPOSITORY / "supervisor").iterdir():
        if (room / "__init__.py").is_file():
            assert f"`supervisor/{room.name}`" in section("Architecture")


# The command line and the control API.


def commands() -> set[str]:
    """The names of the commands there are."""
    group = typer.main.get_command(command_line)
    assert hasattr(group, "commands")
    return set(group.commands)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_shown_exists(path: Path) -> None:
    shown: set[str] = set()
    for snippet in snippets(path):
        shown |= set(re.findall(r"(?:^|[\s\"(])supervisor (-{0,2}[a-z]+)\b", snippet.split(" #")[0]))
    assert shown - commands() - {"--version"} == set()
    assert path is CHANGELOG or shown


def test_every_command_is_in_the_guide() -> None:
    table = section("Command line and exit codes")
    assert {name for name in commands() if f"| `supervisor {name}" not in table} == set()


def test_every_option_of_run_that_is_shown_exists() -> None:
    known = {option for action in parser()._actions for option in action.option_strings}
    shown: set[str] = set()
    for snippet in snippets(GUIDE):
        line = snippet.split(" #")[0]
        if "supervisor run" in line and "docker" not in line:
            ours = line.partition("supervisor run")[2].split(" -- ")[0]
            shown |= set(re.findall(r"(?<!\S)--[a-z][a-z-]*", ours))
    assert shown >= {"--no-services", "--port"}
    assert shown <= known


def test_every_setting_given_by_set_in_an_example_is_real() -> None:
    given = [name for path in DOCUMENTS for s in snippets(path) for name in re.findall(r"--set ([a-z_]+)=", s)]
    assert given
    assert set(given) <= Settings.model_fields.keys()


def test_every_exit_code_is_in_the_guide() -> None:
    table = section("Command line and exit codes")
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert rows == {int(code) for code in ExitCode}


def routes() -> list[re.Pattern[str]]:
    """The paths of the control API, as patterns."""
    texts = [
        (REPOSITORY / "supervisor/triggers" / name).read_text() for name in ("control.py", "keeping.py", "releases.py")
    ]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    paths = {node.value for node in nodes if isinstance(node.value, str)}
    return [re.compile(re.sub(r"\{\w+(:path)?\}", r"[\\w-]+", path)) for path in paths if path.startswith("/v1/")]


def test_every_path_of_the_control_api_that_is_shown_exists() -> None:
    shown = {path for line in snippets(GUIDE) for path in re.findall(r"/v1/[\w/-]+", line)}
    assert {path for path in shown if not any(route.fullmatch(path) for route in routes())} == set()


def test_every_path_of_the_control_api_is_in_the_guide() -> None:
    shown = {path for line in snippets(GUIDE) for path in re.findall(r"/v1/[\w/-]+", line)}
    assert [route.pattern for route in routes() if not any(route.fullmatch(path) for path in shown)] == []


# Troubleshooting.


def texts() -> list[str]:
    """Every text in the code, with `…` where a value stands."""
    found: list[str] = []
    for path in (REPOSITORY / "supervisor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_the_headings_of_the_troubleshooting_are_words_of_the_code() -> None:
    headings = re.findall(r"^#### `(.+)`$", section("Troubleshooting"), re.MULTILINE)
    assert len(headings) >= 20
    assert len(set(headings)) == len(headings)
    everything = texts()
    for heading in headings:
        pieces = [re.escape(piece) for piece in heading.split("…")]
        pattern = re.compile(".*?".join(pieces), re.DOTALL)
        assert any(pattern.search(text) for text in everything), f"no text in the code reads {heading!r}"


def test_every_heading_of_the_troubleshooting_has_an_answer() -> None:
    for part in re.split(r"^#### ", section("Troubleshooting"), flags=re.MULTILINE)[1:]:
        heading, _, answer = part.partition("\n")
        assert answer.split("\n###")[0].strip(), heading


def test_the_readme_warns_of_the_package_with_our_import_name() -> None:
    assert "Never install it together with the PyPI package `supervisor`" in README.read_text(encoding="utf-8")


def test_the_changelog_knows_this_version() -> None:
    from supervisor import __version__

    assert f"## [{__version__}] - " in CHANGELOG.read_text(encoding="utf-8")
