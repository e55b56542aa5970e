"""Finds and reads what settings are made of, and has them put together. Nobody else reads settings of os.environ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.commands.fetch_secrets import Fetch, SecretsCommand, fetch, fetch_now
from supervisor.commands.setting_files import (
    named,
    read_env_files,
    read_folder,
    read_toml,
    resolve_folders,
)
from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import Loaded, Named, aliases, build, parse_command, variable
from supervisor.core.settings.sources import FETCHED, mountable
from supervisor.process.reaper import Reaper

CONFIG_VARIABLE = "SUPERVISOR_CONFIG"
SYSTEM_CONFIG = Path("/etc/supervisor/supervisor.toml")
_IMAGE_APP_DIR = Path("/app")
_SECRETS_DIR = "/run/secrets"
_STAGE = "production"
_SECRETS_SECONDS = 30.0


def load(
    arguments: Mapping[str, Any],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    fetch: Fetch = fetch_now,
    build: bool = False,
) -> Loaded:
    """The settings from all sources; raises ConfigurationError listing every mistake.

    The file is `config`, else SUPERVISOR_CONFIG, else `supervisor.toml` in the app's folder, else
    /etc/supervisor/supervisor.toml; one that was named must be there. The secrets command is run by `fetch`. With
    `build` nothing is asked for that an image build does not have: secrets, and what only the container is given.
    """
    reading = Reading(arguments, config=config, environ=environ, build=build)
    fetched: Mapping[str, str] = {}
    if reading.command is not None:
        try:
            fetched = fetch(reading.command)
        except ConfigurationError as error:
            reading.mistakes.append(str(error))
    return reading.finish(fetched)


async def load_again(arguments: Mapping[str, Any], reaper: Reaper, *, config: Path | None = None) -> Loaded:
    """The same within a running supervisor: the secrets command is a child of `reaper`, and all goes on meanwhile."""
    reading = Reading(arguments, config=config)
    fetched: Mapping[str, str] = {}
    if reading.command is not None:
        try:
            fetched = await fetch(reading.command, reaper)
        except ConfigurationError as error:
            reading.mistakes.append(str(error))
    return reading.finish(fetched)


class Reading:
    """All sources but the secrets command, read once. Raises ConfigurationError for a broken supervisor.toml."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        *,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
        build: bool = False,
    ) -> None:
        self._arguments = arguments
        self.mistakes: list[str] = []
        """For the report."""
        environ = os.environ if environ is None else environ
        self._path = find_config(arguments, config, environ)
        self._toml = read_toml(self._path) if self._path is not None else {}
        if self._path is not None:
            resolve_folders(self._toml, self._path.parent)
        self._default_dir = default_app_dir(self._path, config)
        self._named = [named(environ, "", build=build, mistakes=self.mistakes)]
        app_dir = Path(str(self._early("app_dir") or self._default_dir))
        self._named += read_env_files([app_dir / ".env"], build=build, mistakes=self.mistakes)
        stage = str(self._early("stage") or _STAGE)
        if "/" not in stage and "\0" not in stage:
            self._named[1:1] = read_env_files([app_dir / f".env.{stage}"], build=build, mistakes=self.mistakes)
        self._folder = {}
        if not build:
            folder = Path(str(self._early("secrets_dir") or _SECRETS_DIR))
            self._folder = read_folder(folder, mountable(), self.mistakes)
        self.command = None if build else self._secrets_command(environ, app_dir)

    def finish(self, fetched: Mapping[str, str]) -> Loaded:
        """The settings, with what the secrets command printed. Raises ConfigurationError listing every mistake."""
        environment, *files = self._named
        return build(
            arguments=self._arguments,
            named=[environment, Named(values=fetched, shown=FETCHED), *files],
            mounted=self._folder,
            toml=self._toml,
            toml_name=str(self._path or "supervisor.toml"),
            defaults={"app_dir": self._default_dir},
            earlier=self.mistakes,
        )

    def _early(self, setting: str) -> Any:
        """What the sources read so far say of one setting that leads to others."""
        if setting in self._arguments:
            return self._arguments[setting]
        for source in self._named:
            if setting in source.files:
                return source.files[setting][1].strip()
            # Where the `.env` file lies is known already.
            if setting == "app_dir" and source.shown:
                continue
            for name in (variable(setting), *aliases(setting)):
                if source.values.get(name):
                    return source.values[name]
        return self._toml.get(setting)

    def _secrets_command(self, environ: Mapping[str, str], app_dir: Path) -> SecretsCommand | None:
        """None also where it is none; the report says so then."""
        try:
            argv = parse_command(self._early("secrets_command"))
            seconds = float(self._early("secrets_seconds") or _SECRETS_SECONDS)
        except (ValueError, TypeError):
            return None
        if not isinstance(argv, tuple) or not 0 < seconds <= 86400:
            return None
        values: dict[str, str] = {}
        for source in reversed(self._named):
            values |= source.values
        return SecretsCommand(argv, {**values, **environ}, str(app_dir) if os.path.isdir(app_dir) else None, seconds)


def find_config(arguments: Mapping[str, Any], config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Which file to read, or None."""
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not _is_there(named):
            given = "--config" if config else CONFIG_VARIABLE
            raise ConfigurationError(f"cannot read settings: there is no file {str(named)!r}; check {given}")
        return named.absolute()
    app_dir = arguments.get("app_dir") or environ.get("SUPERVISOR_APP_DIR") or environ.get("APP_DIR") or "/app"
    for candidate in (Path(app_dir) / "supervisor.toml", SYSTEM_CONFIG):
        if _is_there(candidate):
            return candidate.absolute()
    return None


def _is_there(path: Path) -> bool:
    """Whether it is worth reading; one we may not even look at is, as the reading has the words for that."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except OSError:  # a name too long
        return False


def default_app_dir(path: Path | None, config: Path | None) -> Path:
    """Where the app is when nobody says: beside the file named by --config, else /app, else the working folder."""
    if path is not None and config is not None:
        return path.parent
    return _IMAGE_APP_DIR if _IMAGE_APP_DIR.is_dir() else Path.cwd()
