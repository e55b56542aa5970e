"""Reads what settings are made of: the environment, secret files, `supervisor.toml`. The only reader of os.environ."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.core import settings as model
from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import Loaded

CONFIG_VARIABLE = "SUPERVISOR_CONFIG"
SYSTEM_CONFIG = Path("/etc/supervisor/supervisor.toml")
_IMAGE_APP_DIR = Path("/app")
_MAX_SECRET_BYTES = 64 * 1024


def load(
    arguments: Mapping[str, Any], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """The settings from all sources; raises ConfigurationError listing every mistake.

    The file is `config`, else SUPERVISOR_CONFIG, else `supervisor.toml` in the app's folder, else
    /etc/supervisor/supervisor.toml; one that was named must be there.
    """
    environ = os.environ if environ is None else environ
    path = find_config(arguments, config, environ)
    toml = read_toml(path) if path is not None else {}
    if path is not None:
        _resolve_app_dir(toml, path.parent)
    secret_files, mistakes = _read_secrets(model.secret_file_variables(environ))
    return model.build(
        arguments=arguments,
        environ=environ,
        secret_files=secret_files,
        toml=toml,
        toml_name=str(path or "supervisor.toml"),
        defaults={"app_dir": default_app_dir(path, config)},
        earlier=mistakes,
    )


def find_config(arguments: Mapping[str, Any], config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Which file to read, or None."""
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
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


def default_app_dir(path: Path | None, config: Path | None) -> Path:
    """Where the app is when nobody says: beside the file named by --config, else /app, else the working folder."""
    if path is not None and config is not None:
        return path.parent
    return _IMAGE_APP_DIR if _IMAGE_APP_DIR.is_dir() else Path.cwd()


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; a mistake in it is an error with its line and column."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error}; mend that place") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: it is not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}; make it readable") from error


def _resolve_app_dir(toml: dict[str, Any], folder: Path) -> None:
    """`app_dir` in the file, and an app's `dir`, are meant from the file's own folder."""
    apps = toml.get("apps")
    tables = [table for table in apps.values() if isinstance(table, dict)] if isinstance(apps, dict) else []
    for table, key in ((toml, "app_dir"), *((table, "dir") for table in tables)):
        if isinstance(table.get(key), str):
            table[key] = str((folder / table[key]).resolve())


def _read_secrets(files: Mapping[str, tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """The texts by setting, and a sentence for each file that cannot be used."""
    texts: dict[str, str] = {}
    mistakes: list[str] = []
    for setting, (name, path) in files.items():
        try:
            with Path(path).open(encoding="utf-8") as file:
                texts[setting] = file.read(_MAX_SECRET_BYTES)
            why = "" if texts[setting].strip() else "it is empty; write the secret into it"
        except UnicodeDecodeError:
            why = "it is not UTF-8 text; save it as such"
        except OSError as error:
            why = f"{error.strerror}; check its path and mode"
        if why:
            mistakes.append(f"{name} names {path!r}: {why}")
    return texts, mistakes
