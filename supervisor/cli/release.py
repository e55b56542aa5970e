"""`supervisor release ...`: build and sign releases, and ask the supervisor to apply them and go back."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from supervisor.cli import sources
from supervisor.cli.options import AsJson, Socket, client_at, end_with, got
from supervisor.cli.progress import told
from supervisor.client import render
from supervisor.client.control import RefusedError
from supervisor.core.errors import ExitCode

releases = typer.Typer(
    name="release",
    help="Build, sign and apply releases, and go back to an older one.",
    no_args_is_help=True,
    add_completion=False,
)

App = Annotated[str, typer.Option("--app", help="Which app.")]


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
    place = manifest or sources.manifest_beside(archive)
    data = sources.read(place) if manifest or not sources.is_of_older_kind(archive, place) else None
    signatures = [sources.read(each) for each in signature or ()]
    if data is not None and not signatures:
        signatures = sources.signatures_beside(place)
    client = client_at(socket)
    offer = {
        "manifest": None if data is None else base64.b64encode(data).decode(),
        "signatures": [base64.b64encode(each).decode() for each in signatures],
        "allow_downgrade": allow_downgrade,
        "name": sources.name_of(archive),
    }
    below = f"/v1/apps/{app}/releases"
    answer = client.send("POST", below, json.dumps(offer).encode())
    if answer.status != 200:
        end_with("apply", answer, as_json=as_json)
    with sources.opened(archive) as source, told(client, app, render.console(stderr=True)) as progress:
        answer = client.send("PUT", f"{below}/offers/{answer.body['offer']}", progress.sent(source))
    end_with(f"apply {answer.body.get('detail', {}).get('release', '')}".strip(), answer, as_json=as_json)


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
    answer = client_at(socket).post(f"/v1/apps/{app}/releases/rollback?to={release}")
    end_with("roll back", answer, as_json=as_json)


@releases.command()
def confirm(app: App = "app", socket: Socket = None, as_json: AsJson = False) -> None:
    """The release on trial is good: end its probation now."""
    end_with("confirm", client_at(socket).post(f"/v1/apps/{app}/releases/confirm"), as_json=as_json)


@releases.command()
def contract(
    give_up_way_back: Annotated[
        bool, typer.Option("--give-up-way-back", help="Also where a release that is kept may need the older schema.")
    ] = False,
    app: App = "app",
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Apply the contract migrations that are due: those that the code before would not live on."""
    answer = client_at(socket).post(f"/v1/apps/{app}/releases/contract?give_up={int(give_up_way_back)}")
    end_with("contract", answer, as_json=as_json)


@releases.command(name="list")
def list_releases(app: App = "app", socket: Socket = None, as_json: AsJson = False) -> None:
    """Show the releases that are kept, the newest first."""
    rows = got(client_at(socket), f"/v1/apps/{app}/releases")["releases"]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        render.console().print(render.releases(rows))


@releases.command()
def show(release: str, app: App = "app", socket: Socket = None) -> None:
    """Show all that is known of one release, as JSON, and whether its files are as they were unpacked."""
    print(json.dumps(got(client_at(socket), f"/v1/apps/{app}/releases/{release}"), indent=2, ensure_ascii=False))


@releases.command()
def history(
    app: App = "app",
    socket: Socket = None,
    as_json: AsJson = False,
    verify: Annotated[bool, typer.Option("--verify", help="Also prove that no line was changed.")] = False,
) -> None:
    """Show what was applied and rolled back: when, by whom, from, to, outcome."""
    document = got(client_at(socket), f"/v1/apps/{app}/releases/history?verify={int(verify)}")
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
def prune(
    keep: Annotated[
        int | None, typer.Option(min=0, max=9999, help="How many good ones stay; default: SUPERVISOR_RELEASE_KEEP.")
    ] = None,
    app: App = "app",
    socket: Socket = None,
    as_json: AsJson = False,
) -> None:
    """Delete releases that need not be kept; what is active, or the way back, always stays."""
    asked = "" if keep is None else f"?keep={keep}"
    answer = client_at(socket).post(f"/v1/apps/{app}/releases/prune{asked}")
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
