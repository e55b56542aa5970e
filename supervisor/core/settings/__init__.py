"""Every setting, typed and frozen, read once.

The order is command line, environment, `X_FILE`, the secrets command, the secrets' folder, `.env.STAGE`, `.env`,
`supervisor.toml`, default.
"""

from supervisor.core.settings.app import AppDatabase, AppRedis, AppSettings
from supervisor.core.settings.app_env import AppEnv, AppVariable
from supervisor.core.settings.bindings import FIELD, SECRET, why_unusable
from supervisor.core.settings.merge import build
from supervisor.core.settings.model import ONLY_APP, Loaded, Settings, aliases, plain_fields, secret_fields
from supervisor.core.settings.names import NOT_SETTINGS, OPTIONS, PREFIX, TABLES, did_you_mean, variable
from supervisor.core.settings.placeholder import is_placeholder
from supervisor.core.settings.service import UserService
from supervisor.core.settings.sources import Named
from supervisor.core.settings.types import (
    Argv,
    FreePort,
    Lines,
    Name,
    Port,
    Seconds,
    SecretStr,
    ServiceWords,
    Words,
    parse_command,
)

__all__ = [
    "FIELD",
    "NOT_SETTINGS",
    "ONLY_APP",
    "OPTIONS",
    "PREFIX",
    "TABLES",
    "AppDatabase",
    "AppEnv",
    "AppRedis",
    "AppSettings",
    "AppVariable",
    "Argv",
    "FreePort",
    "Lines",
    "Loaded",
    "Name",
    "Port",
    "Seconds",
    "SECRET",
    "SecretStr",
    "ServiceWords",
    "Settings",
    "UserService",
    "Words",
    "aliases",
    "build",
    "did_you_mean",
    "parse_command",
    "plain_fields",
    "secret_fields",
    "is_placeholder",
    "Named",
    "variable",
    "why_unusable",
]
