"""`supervisor release ...`: build and sign releases, and ask the supervisor to apply them and go back."""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn

import typer

from supervisor.cli import render
from supervisor.cli.client import Answer, ControlClient, RefusedError, find
from supervisor.core.errors import ExitCode, SupervisorError

_BLOCK = 1024 * 1024
_FETCH_SECONDS = 60.0
_MANIFEST = "manifest.json"
_SIGNATURE = ".minisig"
_MAX_SMALL_BYTES = 1024 * 1024

releases = typer.Typer(
    name="release",
    help="Build, sign and apply releases, and go back to an older one.",
    no_args_is_help=True,
    add_completion=False,
)

Socket = Annotated[
    str | None, typer.Option("--socket", metavar="PATH", help="Control socket; default: SUPERVISOR_SOCKET, or found.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
App = Annotated[str, typer.Option("--app", help="Which app.")]


class UnusableError(SupervisorError):
    """What was given cannot be read, or is not there."""

    exit_code = ExitCode.USAGE


@releases.command()
def apply(
    archive: Annotated[str, typer.Argument(help="A file, an http(s) address, or `-` for the standard input.")],
    manifest: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its manifest; default: manifest.json beside it.")
    ] = None,
    signature: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A signature; default: those beside the manifest.")
    ] = None,
    allow_downgrade: Annotated[bool, typer.Option(help="Accept a release older than the newest one had.")] = False,
    app: App = "app",
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Verify a release, try it beside what serves, and switch to it. Exits with 1 when that did not hold."""
    place = manifest or _beside(archive)
    data = _read(place) if manifest or not _is_of_older_kind(archive, place) else None
    signatures = [_read(each) for each in signature or ()]
    if data is not None and not signatures:
        signatures = _signatures_beside(place)
    client = _client(socket)
    offer = {
        "manifest": None if data is None else base64.b64encode(data).decode(),
        "signatures": [base64.b64encode(each).decode() for each in signatures],
        "allow_downgrade": allow_downgrade,
        "name": archive.rpartition("/")[2],
    }
    below = f"/v1/apps/{app}/releases"
    answer = client.send("POST", below, json.dumps(offer).encode())
    if answer.status != 200:
        _end("apply", answer, as_json=as_json)
    with closing(_open(archive)) as source:
        answer = client.send("PUT", f"{below}/offers/{answer.body['offer']}", _blocks(source, archive))
    _end(f"apply {answer.body.get('detail', {}).get('release', '')}".strip(), answer, as_json=as_json)


@releases.command()
def rollback(
    release: Annotated[
        str, typer.Argument(help="Where to; default: the good one before, `baked` the image's own.")
    ] = "",
    app: App = "app",
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Go back to a release that was good before, by the same gate and switch."""
    answer = _client(socket).post(f"/v1/apps/{app}/releases/rollback?to={release}")
    _end("roll back", answer, as_json=as_json)


@releases.command()
def confirm(app: App = "app", socket: Socket = None, as_json: AsJson = False) -> None:
    """The release on trial is good: end its probation now."""
    _end("confirm", _client(socket).post(f"/v1/apps/{app}/releases/confirm"), as_json=as_json)


@releases.command(name="list")
def list_releases(app: App = "app", socket: Socket = None, as_json: AsJson = False) -> None:
    """Show the releases that are kept, the newest first."""
    rows = _get(_client(socket), f"/v1/apps/{app}/releases")["releases"]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        render.console().print(render.releases(rows))


@releases.command()
def show(release: str, app: App = "app", socket: Socket = None) -> None:
    """Show all that is known of one release, as JSON."""
    print(json.dumps(_get(_client(socket), f"/v1/apps/{app}/releases/{release}"), indent=2, ensure_ascii=False))


@releases.command()
def history(
    app: App = "app",
    socket: Socket = None,
    as_json: AsJson = False,
    verify: Annotated[bool, typer.Option("--verify", help="Also prove that no line was changed.")] = False,
) -> None:
    """Show what was applied and rolled back: when, by whom, from, to, outcome."""
    document = _get(_client(socket), f"/v1/apps/{app}/releases/history?verify={int(verify)}")
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        render.console().print(render.history(document["history"]))
        if document.get("verified") is not None:
            print(f"verified: {document['verified']} lines, each follows the one before it")
    if verify and document.get("verified") is None:
        print(f"supervisor: {document['reason']}", file=sys.stderr)
        raise typer.Exit(ExitCode.REJECTED)


@releases.command()
def prune(app: App = "app", socket: Socket = None, as_json: AsJson = False) -> None:
    """Delete releases that need not be kept (SUPERVISOR_RELEASE_KEEP)."""
    answer = _client(socket).post(f"/v1/apps/{app}/releases/prune")
    if answer.status != 200:
        raise RefusedError(answer)
    deleted = answer.body["deleted"]
    print(json.dumps(deleted) if as_json else f"deleted: {', '.join(deleted) or 'nothing'}")


@releases.command(
    name="build",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def build(context: typer.Context) -> None:
    """Make a release of a folder: archive, manifest and a script that deploys it. Options: release build --help."""
    from supervisor.commands.release_build import main

    raise typer.Exit(main(context.args))


Password = Annotated[Path | None, typer.Option("--password-file", help="File with the key's password; else asked for.")]


@releases.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="Where the secret key goes; the public one beside it, with .pub.")],
    password_file: Password = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="Whoever can read the key can sign.")] = False,
) -> None:
    """Make a key to sign releases with, in minisign's format."""
    from supervisor.commands import release_keys

    raise typer.Exit(
        release_keys.run(lambda: release_keys.keygen(key, password_file=password_file, no_password=no_password))
    )


@releases.command()
def sign(
    manifest: Annotated[Path, typer.Argument(help="The manifest.json of a release.")],
    key: Annotated[Path, typer.Option("--key", help="The secret key.")],
    password_file: Password = None,
    output: Annotated[Path | None, typer.Option("--output", help="Default: beside it, with .minisig.")] = None,
) -> None:
    """Sign a release."""
    from supervisor.commands import release_keys

    raise typer.Exit(
        release_keys.run(lambda: release_keys.sign(manifest, key=key, password_file=password_file, output=output))
    )


@releases.command()
def verify(
    manifest: Annotated[Path, typer.Argument(help="The manifest.json of a release.")],
    keys: Annotated[Path, typer.Option("--keys", help="A public key, or a folder of them.")],
    threshold: Annotated[int, typer.Option(min=1, help="How many keys must have signed.")] = 1,
) -> None:
    """Check a release's signatures, and its archive where that lies beside it."""
    from supervisor.commands import release_keys

    raise typer.Exit(release_keys.run(lambda: release_keys.verify(manifest, keys=keys, threshold=threshold)))


def _client(given: str | None) -> ControlClient:
    return find(os.environ, given)


def _get(client: ControlClient, resource: str) -> dict[str, Any]:
    answer = client.get(resource)
    if answer.status != 200:
        raise RefusedError(answer)
    return answer.body


def _end(asked: str, answer: Answer, *, as_json: bool) -> NoReturn:
    if "error" in answer.body:
        raise RefusedError(answer)
    if as_json:
        print(json.dumps(answer.body, ensure_ascii=False))
    else:
        good = answer.status == 200
        render.console(stderr=not good).print(render.outcome(asked, answer.body))
    raise typer.Exit(ExitCode.OK if answer.status == 200 else ExitCode.REJECTED)


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _beside(archive: str) -> str:
    if archive == "-":
        raise UnusableError("cannot apply what comes on the standard input without its manifest; give --manifest FILE")
    folder, _, _ = archive.rpartition("/")
    return f"{folder}/{_MANIFEST}" if folder else _MANIFEST


def _is_of_older_kind(archive: str, manifest: str) -> bool:
    """A file without a manifest beside it; the supervisor says whether it accepts such."""
    return not _is_address(archive) and Path(archive).is_file() and not Path(manifest).exists()


def _signatures_beside(manifest: str) -> list[bytes]:
    if _is_address(manifest):
        try:
            return [_read(manifest + _SIGNATURE)]
        except UnusableError:
            return []
    place = Path(manifest)
    found = sorted(place.parent.glob(f"{place.name}*{_SIGNATURE}"))
    return [_read(str(path)) for path in found[:16]]


def _open(text: str) -> IO[bytes]:
    """A file, what an address gives, or the standard input."""
    if text == "-":
        return sys.stdin.buffer
    try:
        if _is_address(text):
            return urllib.request.urlopen(text, timeout=_FETCH_SECONDS)  # type: ignore[no-any-return]  # noqa: S310
        return Path(text).open("rb")
    except OSError as error:
        why = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise UnusableError(f"cannot read {text!r}: {why}; check the name") from error


def _read(text: str) -> bytes:
    with closing(_open(text)) as file:
        data = file.read(_MAX_SMALL_BYTES + 1)
    if len(data) > _MAX_SMALL_BYTES:
        raise UnusableError(f"cannot read {text!r}: it has more than {_MAX_SMALL_BYTES} bytes; is it a manifest?")
    return data


def _blocks(source: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        while block := source.read(_BLOCK):
            yield block
    except OSError as error:
        raise UnusableError(f"cannot read {name!r}: {error.strerror or error}; send it again") from error
