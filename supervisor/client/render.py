"""What people see: the status document, events, log lines and outcomes as text. Pure, but for rich's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_STYLES = {
    "running": "green",
    "serving": "green",
    "healthy": "green",
    "ok": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "initializing": "yellow",
    "waiting": "yellow",
    "backoff": "yellow",
    "warning": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "error": "red",
}
_PLAIN_WIDTH = 240  # without a terminal nothing is wrapped or cut at 80 columns
_HIDDEN_KEYS = frozenset({"promises", "n", "at", "event", "report"})


def console(*, stderr: bool = False) -> Console:
    """Standard output; colours and the terminal's width only where there is a terminal."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH, no_color=True)


def span(seconds: float) -> str:
    """A duration in its two largest units: `3 d 4 h`, `2 min 5 s`, `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def status(document: Mapping[str, Any]) -> RenderableType:
    """The status document."""
    parts: list[RenderableType] = [_headline(document)]
    if document.get("reason"):
        parts.append(Text(f"  {document['reason']}"))
    parts += ["", _table(document), "", _boot_line(document)]
    if reload := document.get("last_reload"):
        parts.append(_reload_line(reload, document["reloads"]))
    parts += [_release_line(row) for row in document.get("apps", []) if row.get("release")]
    if due := document.get("migrations", {}).get("due"):
        parts.append(Text(f"contract migrations due: {', '.join(due)} (supervisor release contract)"))
    parts += [line for row in document.get("apps", []) if row.get("front") for line in _front_lines(row)]
    parts += [Text(f"{name}: {address}") for name, address in document.get("addresses", {}).items()]
    for hook in document.get("hooks", []):
        parts.append(
            Text.assemble(f"hook {hook['hook']}: ", _word("ok" if hook.get("ok") else "failed"), _detail(hook))
        )
    for warning in document.get("warnings", []):
        parts.append(Text.assemble(_word("warning"), f": {_message(warning)}"))
    return Group(*parts)


def _headline(document: Mapping[str, Any]) -> Text:
    facts = [f"mode {document.get('mode') or 'unknown'}", f"pid {document.get('pid')}"]
    facts.append(f"up {span(document.get('uptime_seconds', 0))}")
    if document.get("reaping") == "none":
        facts.append("cannot reap orphans")
    return Text.assemble(f"supervisor {document.get('version')}: ", _word(document["state"]), f" ({', '.join(facts)})")


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("NAME", "STATE", "HEALTH", "PID", "RESTARTS", "FOR", "NOTE"):
        table.add_column(title, no_wrap=title != "NOTE", justify="right" if title in ("PID", "RESTARTS") else "left")
    for row in [*document.get("apps", []), *document.get("services", [])]:
        table.add_row(
            row.get("app") or row.get("service"),
            _word(row["state"]),
            _word(row["health"]),
            str(row.get("pid") or "-"),
            str(row["restarts"]),
            span(row["for_seconds"]),
            Text(_note(row)),
        )
    return table


def _note(row: Mapping[str, Any]) -> str:
    notes = [f"generation {row['generation']}"] if row.get("generation") else []
    if row.get("held"):
        notes.append("held")
    if route := row.get("route"):
        notes.append(f"route {route.get('health', 'unknown')}{': ' + route['error'] if route.get('error') else ''}")
    words = [row.get("reason", ""), row.get("error", "")]
    return ", ".join(notes + list(dict.fromkeys(word for word in words if word)))


def _release_line(row: Mapping[str, Any]) -> Text:
    """What an app runs from."""
    release = row["release"]
    if release["release"] == "baked":
        return Text(f"release of {row['app']}: the image's own")
    notes = [f"signed by {release['signed_by'] or 'nobody'}"]
    if release["trial"]:
        notes.append(f"on trial, {release['good']} is the good one")
    return Text(f"release of {row['app']}: {release['release']} ({', '.join(notes)})")


def _front_lines(row: Mapping[str, Any]) -> Iterator[Text]:
    """How requests reach an app, and what that keeps."""
    front = row["front"]
    lossy = f": {front['lossy']}" if front["lossy"] else ""
    yield Text(f"front of {row['app']}: {front['kind']}, as {front['reason']}{lossy}")
    for words, promise in front["promises"].items():
        yield Text(f"  {words}: {promise}", style="dim")


def _boot_line(document: Mapping[str, Any]) -> Text:
    boot = document.get("boot", {})
    phases = [
        f"{phase['phase']} {phase['elapsed_seconds']:.2f} s"
        + ("" if phase["state"] == "done" else f" {phase['state']}")
        for phase in boot.get("phases", [])
    ]
    return Text(f"boot: {boot.get('elapsed_seconds', 0):.2f} s" + (f" ({', '.join(phases)})" if phases else ""))


def _reload_line(reload: Mapping[str, Any], counts: Mapping[str, int]) -> Text:
    reason = f": {reload['reason']}" if reload.get("reason") else ""
    tail = f" in {reload.get('elapsed_seconds', 0):.2f} s, asked by {reload.get('source')}{reason}"
    return Text.assemble(
        "last reload: ",
        _word(str(reload.get("result"))),
        f"{tail} ({counts['ok']} ok, {counts['failed']} failed so far)",
    )


def _detail(row: Mapping[str, Any]) -> str:
    return f" in {row.get('elapsed_seconds', 0):.2f} s" + (f": {row['detail']}" if row.get("detail") else "")


def _message(event: Mapping[str, Any]) -> str:
    if "message" in event:
        return f"{event['message']}{': ' + event['detail'] if event.get('detail') else ''}"
    return f"{event['event']} {_pairs(event)}"


def _word(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def event(values: Mapping[str, Any]) -> Text:
    """One event on one line; its report, if it has one, is left to the log."""
    at = str(values.get("at", ""))[11:23]
    return Text.assemble((at, "dim"), f"{' ' if at else ''}{values['event']} ", _pairs(values))


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in values.items() if key not in _HIDDEN_KEYS)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return f'"{shown}"' if " " in shown or not shown else shown


def log_line(values: Mapping[str, Any], *, with_source: bool) -> str:
    """A child's line as the child wrote it, behind its source where several are shown."""
    return f"[{values['source']}] {values['text']}" if with_source else str(values["text"])


def outcome(asked: str, values: Mapping[str, Any]) -> Text:
    """What became of a request."""
    seconds = values.get("elapsed_seconds") or 0
    phases: Iterable[tuple[str, float]] = (values.get("phases") or {}).items()
    steps = ", ".join(f"{name} {spent:.2f} s" for name, spent in phases)
    tail = f" in {seconds:.2f} s" if seconds else ""
    reason = f": {values['reason']}" if values.get("reason") else ""
    return Text.assemble(f"{asked}: ", _word(str(values.get("result"))), tail, f" ({steps})" if steps else "", reason)


def releases(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The releases of an app, the newest first."""
    table = Table("release", "sequence", "use", "state", "since", "signed by", box=None, pad_edge=False)
    for row in rows:
        state = "failed" if row["failed"] else "given up" if row["given_up"] else "good" if row["confirmed"] else ""
        signed = "" if row["release"] == "baked" else row["key"] or "nobody"
        table.add_row(row["release"], str(row["sequence"] or ""), row["use"], state, row["at"], signed)
    return table


def history(lines: Sequence[Mapping[str, Any]]) -> Table:
    """What was done with releases, the oldest first."""
    table = Table("when", "who", "what", "from", "to", "outcome", "reason", box=None, pad_edge=False)
    for line in lines:
        reason = str(line["reason"]).partition("\n")[0]
        cells = (line[name] for name in ("at", "actor", "action", "before", "release", "outcome"))
        table.add_row(*map(str, cells), reason)
    return table
