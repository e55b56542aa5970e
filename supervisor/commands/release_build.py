"""`supervisor release build DIR`: an app's folder becomes an archive, a manifest and a script. Needs no supervisor."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from supervisor.commands.arguments import Arguments
from supervisor.core.errors import ExitCode, SupervisorError
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.releases.build import options as release_options
from supervisor.releases.build.build import Built, Order, build
from supervisor.releases.build.git import GitFacts, read_git
from supervisor.releases.build.identity import EPOCH, Moment, choose_app, choose_moment, choose_version, read_source
from supervisor.releases.build.ignore import OUTPUT
from supervisor.releases.manifest import Git
from supervisor.releases.model import Compression
from supervisor.services.backend import run_and_quote

_GIT_SECONDS = 20.0
_SHOWN_SECRETS = 20
_PROGRAM = "supervisor release build"
_TEXTS = {
    "app": "name of the app; default: that of package.json or pyproject.toml, else the folder's",
    "command": "what starts it; default: as the container's settings have it",
    "min_supervisor": "the lowest version of the supervisor that may apply it",
    "expires": "when it may no longer be applied, like 2030-01-31T00:00:00Z",
    "platform.os": "what it runs on, like linux",
    "platform.arch": "amd64, arm64 or any",
    "platform.libc": "glibc, musl or any",
    "health.path": "where the app says that it is well",
    "migrations.folder": "where its migrations are, in DIR",
}
_LISTS = {
    "replace": "a folder that comes whole from the archive",
    "merge": "a folder whose missing parts come from the image",
    "shared": "a folder that all releases have in common",
    "keep_assets": "hashed files that pages of older releases still ask for",
    "environment": "a variable that it needs",
}
_NUMBERS: dict[str, tuple[type[int] | type[float], str]] = {
    "health.timeout_seconds": (float, "how long one answer may take"),
    "health.start_seconds": (float, "how long its start may take"),
    "front.drain_seconds": (float, "how long requests in hand may take when it is replaced"),
    "schema.level": (int, "the database's schema after its migrations"),
    "schema.min_supported": (int, "the lowest level of code that can live on that schema"),
}
_SWITCHES = {
    "link": "missing parts come by links, not by copies",
    "front.overlap": "two generations may serve at once",
    "migrations.snapshot": "the database is saved before its migrations",
}
_RUNTIME = "platform.runtime"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Arguments(
        prog=_PROGRAM,
        description="Make a release of the app in DIR: an archive, its manifest, and a script that deploys it.",
        epilog=f"What a release says of its app can stand in DIR/{release_options.FILE} too, below [release]; the "
        f"command line comes first. {EPOCH} sets the time of the build.",
        allow_abbrev=False,
    )
    made.add_argument("folder", type=Path, metavar="DIR", help="the app's folder, built and ready to run")
    made.add_argument("--output", type=Path, metavar="DIR", help=f"where it is written; default: {OUTPUT} in DIR")
    made.add_argument("--version", metavar="X", help="default: that of package.json or pyproject.toml, and the commit")
    made.add_argument("--sequence", type=int, metavar="N", help="must rise with each release; default: Unix time")
    made.add_argument("--compression", choices=[each.value for each in Compression], default=Compression.ZSTD.value)
    made.add_argument("--key", type=Path, metavar="FILE", help="sign the manifest with this minisign secret key")
    made.add_argument("--key-password-file", type=Path, metavar="FILE", help="holds the password of that key")
    made.add_argument("--json", action="store_true", help="print JSON")
    said = made.add_argument_group("what the release says of its app")
    for key, text in _TEXTS.items():
        _add(said, key, text, metavar="X")
    for key, text in _LISTS.items():
        _add(said, key, f"{text}; may be given more than once", action="append", metavar="X")
    for key, (kind, text) in _NUMBERS.items():
        _add(said, key, text, type=kind, metavar="N")
    for key, text in _SWITCHES.items():
        _add(said, key, text, action=argparse.BooleanOptionalAction)
    _add(said, _RUNTIME, "like node=>=20,<23; may be given more than once", action="append", metavar="NAME=RANGE")
    return made


def _add(group: Any, key: str, text: str, **words: Any) -> None:
    group.add_argument(release_options.option_of(key), dest=key, default=None, help=text, **words)


def given_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the app, by the keys of the table. Raises ValueError."""
    known = (*_TEXTS, *_LISTS, *_NUMBERS, *_SWITCHES)
    given = {key: getattr(parsed, key) for key in known if getattr(parsed, key) is not None}
    for pair in getattr(parsed, _RUNTIME) or ():
        name, separator, versions = pair.partition("=")
        if not name or not separator:
            raise ValueError(f"{release_options.option_of(_RUNTIME)} {pair!r}: it reads NAME=RANGE")
        given.setdefault(_RUNTIME, {})[name] = versions
    return given


def main(argv: Sequence[str]) -> int:
    """Build and print; gives the exit code: 0, 1 for a folder that cannot be released, 64 and 78 for what was asked."""
    made = parser()
    try:
        parsed = made.parse_args(list(argv))
        given = given_options(parsed)
    except ValueError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return int(ExitCode.USAGE)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.USAGE)
    try:
        git = anyio.run(_ask_git, parsed.folder, os.environ)
        order = _order(parsed, given, git, os.environ)
        built = build(order)
    except SupervisorError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return int(error.exit_code)
    if parsed.json:
        print(json.dumps(as_dict(built), indent=2))
    else:
        print(as_text(built, order.moment, git))
    return int(ExitCode.OK)


def _order(parsed: argparse.Namespace, given: Mapping[str, Any], git: GitFacts, environ: Mapping[str, str]) -> Order:
    """Raises ReleaseError."""
    folder: Path = parsed.folder
    options = release_options.read_options(folder, given)
    source = read_source(folder)
    moment = choose_moment(environ.get(EPOCH), git, datetime.now(UTC))
    return Order(
        folder=folder,
        output=parsed.output if parsed.output is not None else folder / OUTPUT,
        options=options,
        app=choose_app(options.app, source, folder),
        version=choose_version(parsed.version, source, git, moment),
        moment=moment,
        sequence=parsed.sequence,
        git=Git(commit=git.commit, branch=git.branch, dirty=git.dirty),
        compression=Compression(parsed.compression),
        key=parsed.key,
        key_password=parsed.key_password_file,
    )


async def _ask_git(folder: Path, environ: Mapping[str, str]) -> GitFacts:
    async with anyio.create_task_group() as group:
        reaper = Reaper()
        await group.start(reaper.run)

        async def run(command: Command) -> tuple[int, str]:
            return await run_and_quote(reaper, command, Ring(command.name), limit_seconds=_GIT_SECONDS)

        facts = await read_git(folder, run, environ)
        group.cancel_scope.cancel()
    return facts


def as_dict(built: Built) -> dict[str, Any]:
    """JSON-ready."""
    manifest = built.manifest
    return {
        "release": built.release,
        "app": manifest.app,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "written": [str(file) for file in built.files],
        "file_count": built.file_count,
        "archive": manifest.archive.model_dump(mode="json"),
        "tree": manifest.tree.model_dump(mode="json"),
        "git": manifest.git.model_dump(mode="json"),
        "key_id": built.key_id or None,
        "left_out": built.left_out,
        "secrets_left_out": list(built.secrets),
        "warnings": list(built.warnings),
    }


def as_text(built: Built, moment: Moment, git: GitFacts) -> str:
    """For people; the last line is the next step."""
    manifest, archive, tree = built.manifest, built.manifest.archive, built.manifest.tree
    why = f", {moment.why}" if manifest.sequence == moment.sequence else ""
    signed = f"signed by key {built.key_id}" if built.key_id else "not signed (--key FILE signs it)"
    packed = f"{100 * archive.size / tree.bytes:.0f} % of " if tree.bytes else ""
    lines = [
        f"release   {manifest.app} {manifest.version} (sequence {manifest.sequence}{why})",
        f"archive   {built.archive}: {_size(archive.size)}, {packed}{_size(tree.bytes)} in {built.file_count} files",
        f"tree      {tree.digest}",
        f"manifest  {signed}",
        f"left out  {_left_out(built)}",
    ]
    warnings = [*built.warnings, *([f"the release does not name its commit: {git.why}"] if git.why else [])]
    lines += [f"warning   {warning}" for warning in warnings]
    return "\n".join([*lines, f"next      {built.script} CONTAINER {built.archive}"])


def _left_out(built: Built) -> str:
    if not built.secrets:
        return str(built.left_out)
    names = ", ".join(map(repr, built.secrets[:_SHOWN_SECRETS]))
    more = len(built.secrets) - _SHOWN_SECRETS
    names += f" and {more} more" if more > 0 else ""
    return f"{built.left_out}, of them as likely secrets: {names} (`!NAME` in .releaseignore takes one in)"


def _size(count: int) -> str:
    size, unit = float(count), "bytes"
    for bigger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, bigger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
