"""The holding answer's words: one page, JSON and plain text that say what is going on. Pure; `holder` sends them."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from string import Template
from textwrap import dedent

from supervisor.app.front.model import Holding


class Form(StrEnum):
    """What an answer is written in; the value is its Content-Type."""

    HTML = "text/html; charset=utf-8"
    JSON = "application/json"
    TEXT = "text/plain; charset=utf-8"


_MEDIA_TYPES = {
    "text/html": Form.HTML,
    "application/xhtml+xml": Form.HTML,
    "application/json": Form.JSON,
    "text/plain": Form.TEXT,
}


@dataclass(frozen=True)
class _Phase:
    """A phase in words: `state` follows the app's name, `note` tells what a visitor can expect."""

    state: str
    headline: str
    note: str
    retry_after_seconds: int = 2


_COMES_BY_ITSELF = "It opens here by itself, as soon as it is ready."
_PHASES = {
    "starting": _Phase("is starting", "Starting up", _COMES_BY_ITSELF),
    "restarting": _Phase("is restarting", "Restarting", _COMES_BY_ITSELF),
    "stopping": _Phase("is stopping", "Stopping", ""),
    # Looked at less often: who copies the reason loses the selection with every refresh.
    "failed": _Phase("is not running", "Not running", "It opens here by itself, once the cause is mended.", 10),
}
_PRECEDENCE = (Form.HTML, Form.JSON, Form.TEXT)  # of what a client likes equally
# What a terminal takes for commands: escape sequences (colours, titles), and other control characters.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def choose_form(accept: str) -> Form:
    """The best form that an Accept header names; plain text where it names none of ours (curl's `*/*`)."""
    liked: dict[Form, float] = {}
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        form = Form.JSON if media_type.endswith("+json") else _MEDIA_TYPES.get(media_type)
        if form is not None:
            liked[form] = max(liked.get(form, 0.0), _quality(parameters))
    best = max(_PRECEDENCE, key=lambda form: liked.get(form, 0.0))
    return best if liked.get(best, 0.0) > 0 else Form.TEXT


def _quality(parameters: list[str]) -> float:
    """The `q` of a media range, see RFC 9110 section 12.4.2; one that cannot be read counts as 1."""
    for parameter in parameters:
        if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", parameter):
            return float(parameter[2:])
    return 1.0


def retry_after_seconds(holding: Holding) -> int:
    """When it is worth asking again: soon while it starts, later where somebody must mend it first."""
    return _words(holding.phase).retry_after_seconds


def render(app: str, holding: Holding, form: Form, *, retry_after_seconds: int) -> bytes:
    """The body. The page refreshes itself every `retry_after_seconds`; secrets must be out of `holding` already."""
    clean = Holding(holding.phase, _CONTROL.sub("", holding.reason).strip(), holding.waiting, holding.done)
    match form:
        case Form.HTML:
            text = _page(app, clean, retry_after_seconds)
        case Form.JSON:
            text = _json(app, clean, retry_after_seconds)
        case Form.TEXT:
            text = _text(app, clean, retry_after_seconds)
    # The reason may hold what was no UTF-8 in the app's output.
    return text.encode(errors="replace")


def _words(phase: str) -> _Phase:
    return _PHASES.get(phase) or _Phase(f"is {phase}", phase.capitalize(), _COMES_BY_ITSELF)


def _json(app: str, holding: Holding, seconds: int) -> str:
    answer = {
        "app": app,
        "state": holding.phase,
        "reason": holding.reason,
        "waiting": holding.waiting,
        "done": holding.done,
        "retry_after_seconds": seconds,
    }
    return json.dumps(answer) + "\n"


def _text(app: str, holding: Holding, seconds: int) -> str:
    lines = [
        f"{app} {_words(holding.phase).state}{': ' if holding.reason else ''}{holding.reason}",
        f"done: {', '.join(holding.done)}" if holding.done else "",
        f"waiting for: {', '.join(holding.waiting)}" if holding.waiting else "",
        f"try again in {seconds} s",
    ]
    return "".join(f"{line}\n" for line in lines if line)


def _page(app: str, holding: Holding, seconds: int) -> str:
    words = _words(holding.phase)
    name = html.escape(app)
    return _PAGE.substitute(
        app=name,
        phase="failed" if holding.phase == "failed" else "moving",
        seconds=seconds,
        interval="second" if seconds == 1 else f"{seconds} seconds",
        title=f"{name} {html.escape(words.state)}",
        headline=html.escape(words.headline),
        note=f"<p>{words.note}</p>" if words.note else "",
        steps=_steps(holding),
        reason=_reason(holding.reason),
        style=_STYLE,
    )


def _steps(holding: Holding) -> str:
    steps = [(name, "done") for name in holding.done] + [(name, "waiting") for name in holding.waiting]
    if not steps:
        return ""
    items = "\n".join(
        f'<li class="{state}"><span>{html.escape(name)}</span><span>{state}</span></li>' for name, state in steps
    )
    return f"<ul>\n{items}\n</ul>"


def _reason(reason: str) -> str:
    """Its first line as a sentence, and what follows, such as the last lines of output, as it was written."""
    first, _, rest = reason.partition("\n")
    if not first:
        return ""
    # The newline after <pre> belongs to the tag, so that one of the text's own is not lost.
    block = f'\n<pre tabindex="0">\n{html.escape(dedent(rest).rstrip())}</pre>' if rest.strip() else ""
    return f'<section>\n<p class="why">{html.escape(first)}</p>{block}\n</section>'


# A breath ends as it begins and takes one refresh's time, and nothing fades in: a refresh is not to be seen.
_STYLE = """
:root { color-scheme: light dark; --ground: #f6f6f3; --card: #fff; --line: #e3e3dd; --text: #1d1f23; --soft: #62656d;
  --tone: #3a63c8; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #121417; --card: #1a1d21; --line: #2b2f35; --text: #e9eaed; --soft: #9da2ac; --tone: #8fb0ff; }
}
.failed { --tone: #b3472f; }
.failed main { max-width: 38rem; }
@media (prefers-color-scheme: dark) { .failed { --tone: #ff9c86; } }
* { box-sizing: border-box; margin: 0; }
body { min-height: 100vh; min-height: 100svh; display: grid; place-items: center; padding: 2rem 1.25rem;
  background: var(--ground); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
main { width: 100%; max-width: 30rem; text-align: center; overflow-wrap: anywhere; }
.mark { width: 3.5rem; height: 3.5rem; margin: 0 auto 1.5rem; border-radius: 50%; display: grid; place-items: center;
  border: 2px solid var(--line); }
.mark::before { content: ""; width: .9rem; height: .9rem; border-radius: 50%; background: var(--tone); }
.app { color: var(--soft); font-weight: 600; }
h1 { font-size: 1.9rem; line-height: 1.25; letter-spacing: -.015em; font-weight: 650; margin: .15rem 0 .6rem; }
main > p, small { color: var(--soft); }
small { display: block; margin-top: 1.75rem; font-size: .85rem; }
ul, section { margin-top: 1.75rem; padding: .35rem 1.1rem; list-style: none; text-align: left;
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem; }
ul + section { margin-top: .9rem; }
section { padding: .9rem 1.1rem; }
li { display: flex; align-items: center; gap: .75rem; padding: .6rem 0; }
li + li { border-top: 1px solid var(--line); }
li::before { content: ""; flex: none; width: .6rem; height: .6rem; border-radius: 50%; border: 2px solid var(--tone); }
li.done::before { border: solid var(--tone); border-width: 0 2px 2px 0; border-radius: 0; width: .4rem; height: .75rem;
  margin: -.2rem .13rem 0 .2rem; transform: rotate(45deg); }
li span:last-child { margin-left: auto; color: var(--soft); font-size: .85rem; }
li.waiting { font-weight: 600; }
li.waiting span:last-child { font-weight: 400; }
pre { margin-top: .75rem; padding-top: .75rem; border-top: 1px solid var(--line); max-height: 45vh; overflow: auto;
  white-space: pre-wrap; font: .8rem/1.6 ui-monospace, monospace; color: var(--soft); }
@keyframes breath { 50% { opacity: .35; transform: scale(.8); } }
@media (prefers-reduced-motion: no-preference) {
  .moving .mark::before, .moving .waiting::before { animation: breath 2s ease-in-out infinite; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
"""To be sent with the page. A frame may show it: the app may be one that is framed, and there is nothing to click."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<meta http-equiv="refresh" content="$seconds">
<title>$title</title>
<style>$style</style>
</head>
<body class="$phase">
<main aria-live="polite">
<div class="mark"></div>
<div class="app">$app</div>
<h1>$headline</h1>
$note
$steps
$reason
<small>Looks again every $interval.</small>
</main>
</body>
</html>
""")
