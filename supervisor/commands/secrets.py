"""`supervisor secrets list | set | unset | get | rotate`: what is secret in this install; `rotate` asks the daemon."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from urllib.parse import quote

from supervisor.client import render
from supervisor.client.control import Answer, RefusedError, find
from supervisor.commands.load_settings import load
from supervisor.commands.secrets_arguments import parser
from supervisor.commands.secrets_asked import given_values
from supervisor.commands.secrets_kept import KeptSecret, Secrets
from supervisor.core.errors import ConfigurationError, ExitCode, SupervisorError, UnreachableError
from supervisor.core.settings import AppEnv, Settings, did_you_mean
from supervisor.environment.rules import why_wrong
from supervisor.state import Paths
from supervisor.store.app_secrets import AppSecrets
from supervisor.store.files import StateLock, make_folder


def main(argv: Sequence[str]) -> int:
    """Gives the exit code; the errors are printed."""
    try:
        parsed = parser().parse_args(argv)
        return int(_VERBS[parsed.verb](parsed))
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.OK)


def _list(parsed: argparse.Namespace) -> ExitCode:
    _, kept = _opened(parsed)
    found = [secret for secret in kept.all() if parsed.app in (None, secret.app)]
    if parsed.json:
        print(json.dumps([secret.as_dict() for secret in found], indent=2))
    elif found:
        print("\n".join(_lines(found)))
    return ExitCode.OK


def _lines(found: Sequence[KeptSecret]) -> list[str]:
    width = max(len(secret.name) for secret in found)
    return [
        f"{secret.name:{width}}  {secret.kind:8}  {secret.changed}{'  being changed' if secret.pending else ''}"
        for secret in found
    ]


def _set(parsed: argparse.Namespace) -> ExitCode:
    settings, kept = _opened(parsed)
    declared = _declared(settings, parsed.app)
    values = given_values(parsed.app, parsed.vars, sys.stdin)
    for name, value in values.items():
        AppSecrets.check(name, value)
        rule = declared.vars.get(name)
        if rule is not None and (why := why_wrong(value.reveal(), rule)):
            raise ConfigurationError(f"cannot set {name} of app {parsed.app!r}: it {why}; nothing was set")
    make_folder(kept.folder.parent, mode=0o711)
    make_folder(kept.folder)
    secrets = AppSecrets(kept.folder, parsed.app)
    for name, value in values.items():
        secrets.set(name, value)
    return _then_reload(parsed, f"set {', '.join(values)} of app {parsed.app!r}")


def _unset(parsed: argparse.Namespace) -> ExitCode:
    settings, kept = _opened(parsed)
    _declared(settings, parsed.app)
    secrets = AppSecrets(kept.folder, parsed.app)
    lacking = [name for name in parsed.vars if not secrets.unset(name)]
    if lacking:
        raise ConfigurationError(
            f"cannot unset {', '.join(lacking)} of app {parsed.app!r}: not set; see `supervisor secrets list`"
        )
    return _then_reload(parsed, f"unset {', '.join(parsed.vars)} of app {parsed.app!r}")


def _then_reload(parsed: argparse.Namespace, done: str) -> ExitCode:
    if not parsed.reload:
        print(f"{done}; in force from the next start, or `supervisor reload {parsed.app}`")
        return ExitCode.OK
    print(done)
    answer = find(os.environ, parsed.socket).post(f"/v1/apps/{quote(parsed.app, safe='')}/reload")
    return _told(f"reload {parsed.app}", answer, as_json=False)


def _get(parsed: argparse.Namespace) -> ExitCode:
    _, kept = _opened(parsed)
    value = kept.value(parsed.name)
    if not parsed.reveal:
        print("supervisor: cannot print a secret without --reveal; mind who reads along", file=sys.stderr)
        return ExitCode.USAGE
    print(value.reveal())
    return ExitCode.OK


def _rotate(parsed: argparse.Namespace) -> ExitCode:
    try:
        client = find(os.environ, parsed.socket)
    except UnreachableError as error:
        return _rotate_here(parsed, error)
    answer = client.post(f"/v1/secrets/{quote(parsed.name, safe='')}/rotate")
    return _told(f"rotate {parsed.name}", answer, as_json=parsed.json)


def _rotate_here(parsed: argparse.Namespace, unreachable: UnreachableError) -> ExitCode:
    """Nothing runs, so a made value may just be another; what servers know must be changed in them."""
    _, kept = _opened(parsed)
    secret = kept.find(parsed.name)
    if secret.app is None or secret.kind != "made":
        raise ConfigurationError(
            f"cannot rotate {parsed.name!r}: only what was made for an app (APP/VAR) is rotated without a running "
            f"supervisor, as nobody else knows it; {unreachable}"
        )
    lock = StateLock(kept.folder.parent / "lock")
    lock.take()
    AppSecrets(kept.folder, secret.app).renew(secret.path.name)
    print(f"rotate {parsed.name}: ok, in force from the next start")
    return ExitCode.OK


def _told(asked: str, answer: Answer, *, as_json: bool) -> ExitCode:
    if "error" in answer.body:
        raise RefusedError(answer)
    good = answer.status == 200
    if as_json:
        print(json.dumps(answer.body, ensure_ascii=False))
    else:
        render.console(stderr=not good).print(render.outcome(asked, answer.body))
    return ExitCode.OK if good else ExitCode.REJECTED


def _opened(parsed: argparse.Namespace) -> tuple[Settings, Secrets]:
    """Settings of which values are missing are good enough: what is set here may be what is missing."""
    settings = load({}, config=parsed.config, build=True).settings
    return settings, Secrets(Paths.of(settings, dict(os.environ)).state)


def _declared(settings: Settings, app: str) -> AppEnv:
    if app not in (known := settings.app_names):
        raise ConfigurationError(
            f"cannot set secrets of app {app!r}: no such app{did_you_mean(app, known)}; known: {', '.join(known)}"
        )
    return settings.apps[app].env if app in settings.apps else AppEnv()


_VERBS: dict[str, Callable[[argparse.Namespace], ExitCode]] = {
    "list": _list,
    "set": _set,
    "unset": _unset,
    "get": _get,
    "rotate": _rotate,
}
