"""The typer application, and the one place where outcomes become exit codes."""

from __future__ import annotations

import difflib
import json
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn
from urllib.parse import quote

import typer
from rich.live import Live

from supervisor import __version__
from supervisor.cli.options import AsJson, Socket, client_at, end_with
from supervisor.cli.release import releases
from supervisor.cli.tenancy import tenancy
from supervisor.client import render
from supervisor.client.control import ControlClient
from supervisor.core.errors import ExitCode, SupervisorError, UnreachableError

_MAX_CANARY_SECONDS = 86400
_REDRAW_SECONDS = 1.0
_USAGE_ERROR_OF_CLICK = 2
_GOOD = frozenset({"running", "degraded"})

app = typer.Typer(
    name="supervisor",
    help="Talk to a running supervisor, or become one (run, init).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones as they come.")]
Count = Annotated[int, typer.Option("-n", min=0, max=10_000, help="How many of the last to show.")]
Name = Annotated[str, typer.Argument(help="An app or a service, by its name in `supervisor status`.")]


def main(argv: Sequence[str]) -> int:
    """Run one command; gives its exit code. click's 2 for a usage error is 64 here."""
    arguments = list(argv)
    if arguments and arguments[0] in _HANDED_OVER:
        # Their arguments are not ours to parse: `--` and all that follows it are part of what they run.
        return _HANDED_OVER[arguments[0]](arguments[1:])
    try:
        app(args=arguments, prog_name="supervisor")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(ExitCode.OK)
        return int(ExitCode.USAGE) if code == _USAGE_ERROR_OF_CLICK else code
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    return int(ExitCode.OK)


def _run(argv: list[str]) -> int:
    from supervisor.commands.run import main as run

    return run(argv)


def _init(argv: list[str]) -> int:
    from supervisor.process.init import main as init

    return init(argv)


def _health(argv: list[str]) -> int:
    from supervisor.commands.health import main as health

    return health(argv)


def _env(argv: list[str]) -> int:
    from supervisor.commands.env import main as env

    return env(argv)


def _config(argv: list[str]) -> int:
    from supervisor.commands.config import main as config

    return config(argv)


def _down(argv: list[str]) -> int:
    from supervisor.commands.down import main as down

    return down(argv)


def _state(argv: list[str]) -> int:
    from supervisor.commands.state import main as state

    return state(argv)


def _secrets(argv: list[str]) -> int:
    from supervisor.commands.secrets import main as secrets

    return secrets(argv)


_HANDED_OVER = {
    "run": _run,
    "init": _init,
    "health": _health,
    "env": _env,
    "config": _config,
    "down": _down,
    "state": _state,
    "secrets": _secrets,
}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"supervisor {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def status(
    socket: Socket = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Redraw on every change.")] = False,
) -> None:
    """Show how everything stands. Exits with 0 when running (or degraded), 3 when not, or when none answers."""
    try:
        client = client_at(socket)
        document = client.get("/v1/status").body
        if watch:
            _watch(client, as_json=as_json)
    except UnreachableError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        raise typer.Exit(ExitCode.NOT_RUNNING) from None
    if as_json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        render.console().print(render.status(document))
    raise typer.Exit(ExitCode.OK if document["state"] in _GOOD else ExitCode.NOT_RUNNING)


def _watch(client: ControlClient, *, as_json: bool) -> NoReturn:
    """The document anew after each event, until the user interrupts; raises UnreachableError when nobody answers."""
    changes: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def listen() -> None:
        with suppress(SupervisorError):
            for _ in client.lines("/v1/events?n=1"):
                changes.put(True)
        changes.put(False)

    threading.Thread(target=listen, daemon=True).start()
    console = render.console()
    if as_json or not console.is_terminal:
        while changes.get():
            document = client.get("/v1/status").body
            print(json.dumps(document, ensure_ascii=False) if as_json else "", flush=True)
            if not as_json:
                console.print(render.status(document))
    else:
        _redraw(client, changes, Live(console=console, auto_refresh=False))
    raise UnreachableError("cannot watch any longer: the supervisor is gone")


def _redraw(client: ControlClient, changes: queue.SimpleQueue[bool], live: Live) -> None:
    with live, suppress(UnreachableError):
        going_on = True
        while going_on:
            live.update(render.status(client.get("/v1/status").body), refresh=True)
            with suppress(queue.Empty):  # then only the durations moved
                going_on = changes.get(timeout=_REDRAW_SECONDS)


@app.command()
def reload(
    name: Annotated[str | None, typer.Argument(metavar="APP", help="One app; default: all, in order.")] = None,
    socket: Socket = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the outcome.")] = True,
    canary: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="First give new code this part of new requests, like 5%.")
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long the canary runs, like 60s or 10m.")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="The canary in hand is good: go on now.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="The canary in hand is no good: end it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring new code into service: pending migrations first, then the app, or every app.

    Exits with 1 when it was rejected, or rolled back.
    """
    if sum((canary is not None or for_ is not None, promote, abort)) > 1:
        _fail("cannot reload: --canary with --for, --promote and --abort are three different things", ExitCode.USAGE)
    if promote or abort:
        verb = "promote" if promote else "abort"
        _ask(client_at(socket), f"{verb} the canary", f"/v1/canary/{verb}", wait=True, as_json=as_json)
    resource = "/v1/reload" if name is None else f"/v1/apps/{quote(name, safe='')}/reload"
    if (canary is None) != (for_ is None):
        _fail("cannot run a canary: --canary PERCENT and --for TIME go together; give both", ExitCode.USAGE)
    if canary is not None or for_ is not None:
        resource += f"?canary={_percent(canary)}&for={_seconds(for_)}"
    _ask(client_at(socket), f"reload {name or ''}".strip(), resource, wait=wait, as_json=as_json)


def _percent(text: str | None) -> float:
    try:
        percent = float((text or "").removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent < 100:
        _fail(f"cannot use --canary {text}: give a percentage above 0 and below 100, with --for", ExitCode.USAGE)
    return percent


def _seconds(text: str | None) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text or "", "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_CANARY_SECONDS:
        _fail(f"cannot use --for {text}: give a time like 60s, 10m or 1h, up to a day, with --canary", ExitCode.USAGE)
    return seconds


@app.command()
def restart(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Stop and start an app or a service."""
    _ask_named("restart", name, socket, as_json=as_json)


@app.command()
def stop(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Stop an app or a service; it stays stopped until it is started by hand."""
    _ask_named("stop", name, socket, as_json=as_json)


@app.command()
def start(name: Name, socket: Socket = None, as_json: AsJson = False) -> None:
    """Start an app or a service that was stopped or given up."""
    _ask_named("start", name, socket, as_json=as_json)


def _ask_named(verb: str, name: str, socket: str | None, *, as_json: bool) -> None:
    client = client_at(socket)
    document = client.get("/v1/status").body
    kind = "apps" if any(row["app"] == name for row in document["apps"]) else "services"
    known = [row["app"] for row in document["apps"]] + [row["service"] for row in document["services"]]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        text = f"cannot {verb} {name!r}: no such app or service; {hint}known: {', '.join(known) or 'none yet'}"
        _fail(text, ExitCode.USAGE)
    _ask(client, f"{verb} {name}", f"/v1/{kind}/{name}/{verb}", wait=True, as_json=as_json)


def _ask(client: ControlClient, asked: str, resource: str, *, wait: bool, as_json: bool) -> NoReturn:
    separator = "&" if "?" in resource else "?"
    answer = client.post(resource if wait else f"{resource}{separator}wait=0")
    end_with(asked, answer, as_json=as_json)


app.add_typer(releases, name="release")
app.add_typer(tenancy, name="tenancy")


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="One source; default: all.")] = "",
    socket: Socket = None,
    follow: Follow = False,
    count: Count = 100,
    as_json: AsJson = False,
) -> None:
    """Show the output of apps and services; of each the last MiB is kept."""
    client = client_at(socket)
    for line in client.lines(f"/v1/logs?source={quote(name)}&n={count}&follow={int(follow)}"):
        text = json.dumps(line, ensure_ascii=False) if as_json else render.log_line(line, with_source=not name)
        print(text, flush=follow)


@app.command()
def events(socket: Socket = None, follow: Follow = False, count: Count = 20, as_json: AsJson = False) -> None:
    """Show what happened: every change of state, every reload, every warning."""
    console = render.console()
    for event in client_at(socket).lines(f"/v1/events?n={count}&follow={int(follow)}"):
        if as_json:
            print(json.dumps(event, ensure_ascii=False), flush=follow)
        else:
            console.print(render.event(event))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check what a run needs here, each fact with its mend. Works without a supervisor."""
    from supervisor.commands.doctor import main as examine

    raise typer.Exit(examine(["--json"] if as_json else []))


@app.command(name="health")
def _health_help() -> None:
    """Ask once how it is, for HEALTHCHECK: exits with 0 or 1 within 2 seconds."""


@app.command(name="run", context_settings={"allow_extra_args": True})
def _run_help() -> None:
    """Bring the stack up and keep it up, as PID 1 or not. Options: supervisor run --help."""


@app.command(name="init", context_settings={"allow_extra_args": True})
def _init_help() -> None:
    """Be a plain init for one command: supervisor init -- CMD ARGS."""


@app.command(name="env", context_settings={"allow_extra_args": True})
def _env_help() -> None:
    """Say which mode a run would choose here, and why, or what apps read and get: supervisor env --help."""


@app.command(name="config", context_settings={"allow_extra_args": True})
def _config_help() -> None:
    """Show, check or list the settings: supervisor config --help."""


@app.command(name="secrets", context_settings={"allow_extra_args": True})
def _secrets_help() -> None:
    """List, set, show or rotate secrets: supervisor secrets --help."""


@app.command(name="down", context_settings={"allow_extra_args": True})
def _down_help() -> None:
    """Remove the stack from its engine, the data only on demand: supervisor down --help."""


@app.command(name="state", context_settings={"allow_extra_args": True})
def _state_help() -> None:
    """Carry all that is remembered to another machine, in one sealed file: supervisor state --help."""


def _fail(text: str, code: ExitCode) -> None:
    print(f"supervisor: {text}", file=sys.stderr)
    raise typer.Exit(code)
