"""What the holding answer says, in each of its forms."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.app.front.model import Holding
from supervisor.app.front.page import CONTENT_SECURITY_POLICY, Form, choose_form, render, retry_after_seconds

STARTING = Holding("starting", "redis does not answer yet", waiting=("redis", "migrations"), done=("postgres",))
CRASHED = Holding("failed", "exited with 1\n  last lines of its output:\n    Error: no module\n      at main.js:1")


class Page(HTMLParser):
    """A page taken apart: its tags with attributes, and the text in each kind of tag."""

    def __init__(self, holding: Holding, *, app: str = "notes", seconds: int = 2) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.source = render(app, holding, Form.HTML, retry_after_seconds=seconds).decode()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def text(self, tag: str) -> str:
        return "".join(self.texts.get(tag, []))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.TEXT),
        ("*/*", Form.TEXT),
        ("text/plain", Form.TEXT),
        ("text/event-stream", Form.TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Form.HTML),
        ("application/json", Form.JSON),
        ("application/json, text/plain, */*", Form.JSON),
        ("application/problem+json", Form.JSON),
        ("Application/JSON; charset=utf-8", Form.JSON),
        ("application/json;q=0.5, text/html", Form.HTML),
        ("text/html;q=0.5, application/json", Form.JSON),
        ("text/html;q=0, */*", Form.TEXT),
        ("text/html;q=much", Form.HTML),
        (",;,=", Form.TEXT),
    ],
)
def test_the_form_is_the_one_the_client_likes_best(accept: str, form: Form) -> None:
    assert choose_form(accept) is form


def test_the_page_says_app_phase_reason_and_what_is_done_and_awaited() -> None:
    page = Page(STARTING)
    assert page.text("title") == "notes is starting"
    assert page.text("h1") == "Starting up"
    assert page.texts["span"] == ["postgres", "done", "redis", "waiting", "migrations", "waiting"]
    assert "redis does not answer yet" in page.text("p")
    assert ("main", {"aria-live": "polite"}) in page.tags


def test_the_page_of_a_failed_app_says_so_and_keeps_the_lines_of_its_output() -> None:
    page = Page(CRASHED)
    assert page.text("title") == "notes is not running"
    assert page.text("pre") == "\nlast lines of its output:\n  Error: no module\n    at main.js:1"
    assert "exited with 1" in page.text("p")
    assert ("body", {"class": "failed"}) in page.tags


def test_a_phase_without_words_of_its_own_is_named_as_it_is() -> None:
    page = Page(Holding("migrating", ""))
    assert page.text("title") == "notes is migrating"
    assert page.text("h1") == "Migrating"
    assert {tag for tag, _ in page.tags}.isdisjoint({"ul", "section", "pre"})


def test_the_page_refreshes_itself() -> None:
    page = Page(STARTING, seconds=7)
    assert ("meta", {"http-equiv": "refresh", "content": "7"}) in page.tags


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = Page(CRASHED)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "form", "base", "object"})
    attributes = {name for _, attributes in page.tags for name in attributes}
    assert attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "aria-live", "tabindex"}
    assert "url(" not in page.text("style")


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    digest = base64.b64encode(hashlib.sha256(Page(STARTING).text("style").encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none';")
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_nothing_given_can_become_part_of_the_page() -> None:
    evil = "</title></style></pre><script>alert(1)</script>\n\"'&$app <script>"
    plain = Page(Holding("starting", "x\ny", ("x",), ("x",)))
    page = Page(Holding(evil, evil, (evil,), (evil,)), app=evil)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "$app <script>" in page.text("pre")


@pytest.mark.parametrize("form", Form)
def test_control_characters_of_an_output_reach_no_form(form: Form) -> None:
    reason = "a\x1b[1;31mred\x1b[0m\x1b]0;title\x07 b\x00\r\x9b2J\n\tc"
    body = render("notes", Holding("failed", reason), form, retry_after_seconds=2).decode()
    shown = json.loads(body)["reason"] if form is Form.JSON else body
    assert "ared b" in shown
    assert "title\x07" not in shown
    assert not {"\x1b", "\x07", "\x00", "\r", "\x9b"} & set(shown)
    assert "\tc" in shown or "\nc" in shown  # the page takes a common indent away


def test_json_has_every_field_for_a_program() -> None:
    assert json.loads(render("notes", STARTING, Form.JSON, retry_after_seconds=3)) == {
        "app": "notes",
        "state": "starting",
        "reason": "redis does not answer yet",
        "waiting": ["redis", "migrations"],
        "done": ["postgres"],
        "retry_after_seconds": 3,
    }


def test_text_reads_well_in_a_terminal() -> None:
    assert render("notes", STARTING, Form.TEXT, retry_after_seconds=3).decode() == (
        "notes is starting: redis does not answer yet\n"
        "done: postgres\n"
        "waiting for: redis, migrations\n"
        "try again in 3 s\n"
    )
    bare = render("notes", Holding("starting", ""), Form.TEXT, retry_after_seconds=2).decode()
    assert bare == "notes is starting\ntry again in 2 s\n"


def test_a_failed_app_is_looked_at_less_often() -> None:
    assert retry_after_seconds(CRASHED) > retry_after_seconds(STARTING) > 0


@given(st.text(), st.sampled_from(Form))
@example("\udcff", Form.HTML)  # what a byte that is no UTF-8 may have become
@example("\udcff", Form.TEXT)
def test_any_text_can_be_told(text: str, form: Form) -> None:
    body = render(text, Holding(text, text, (text,), (text,)), form, retry_after_seconds=2)
    assert body.decode()
