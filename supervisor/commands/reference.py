"""The settings reference in CONTAINERIZATION.md, from the settings model: `python -m supervisor.commands.reference`.

Without an argument it is printed; with `--write` it is put between its marks in the checkout's file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from supervisor.core import settings as model
from supervisor.core.errors import ExitCode
from supervisor.core.settings import Settings, UserService
from supervisor.store.files import write_atomic

GUIDE = Path(__file__).resolve().parents[2] / "CONTAINERIZATION.md"
BEGIN = "<!-- settings: made by scripts/docs from supervisor/core/settings.py; changes here are overwritten -->"
END = "<!-- end of settings -->"
_USAGE = "usage: python -m supervisor.commands.reference [--write]\n"

GROUPS: dict[str, tuple[str, ...]] = {
    "The supervisor": (
        "mode",
        "stack",
        "state_dir",
        "runtime_dir",
        "socket",
        "log_format",
        "log_level",
        "boot_seconds",
        "stop_seconds",
    ),
    "The app": (
        "app_command",
        "app_dir",
        "app_user",
        "app_host",
        "port",
        "trigger_file",
        "env_file",
        "app_stop_signal",
        "app_stop_seconds",
    ),
    "Front and reload": (
        "front",
        "overlap",
        "app_protocol",
        "app_ports",
        "app_ready",
        "app_min_uptime_seconds",
        "bake_seconds",
        "bake_errors",
        "drain_seconds",
        "stream_seconds",
        "hold_seconds",
        "trusted_proxies",
        "front_connections",
        "front_head_seconds",
        "front_keep_alive_seconds",
        "front_idle_seconds",
        "front_tunnel_seconds",
        "haproxy_binary",
    ),
    "Releases": (
        "release_keys",
        "release_threshold",
        "release_unsigned",
        "release_bake_seconds",
        "release_probation_seconds",
        "release_snapshot_seconds",
        "release_mount",
        "release_keep",
        "on_image_change",
    ),
    "Health of the app": (
        "app_health",
        "app_health_path",
        "app_start_seconds",
        "app_health_interval_seconds",
        "app_health_timeout_seconds",
        "app_health_retries",
        "on_unhealthy",
    ),
    "Restarts": (
        "app_restart",
        "on_app_failure",
        "restart_limit",
        "restart_window_seconds",
        "restart_base_seconds",
        "restart_cap_seconds",
    ),
    "Database, cache and migrations": (
        "database_url",
        "redis_url",
        "migrate_command",
        "migrate_dir",
        "migrate_seconds",
    ),
    "Services": (
        "services",
        "optional_services",
        "essential_services",
        "postgres_bin_dir",
        "postgres_port",
        "postgres_start_seconds",
        "postgres_recovery_seconds",
        "redis_binary",
        "redis_port",
        "redis_start_seconds",
        "redis_recovery_seconds",
        "traefik_binary",
        "traefik_start_seconds",
        "watch_interval_seconds",
        "watch_timeout_seconds",
        "watch_retries",
    ),
    "Traefik": (
        "http_port",
        "https_port",
        "traefik_dir",
        "traefik_dashboard",
        "acme_email",
        "tls_cert_file",
        "tls_key_file",
    ),
    "After the start": ("post_start_hooks", "hook_seconds", "webhook_url"),
    "The engine": (
        "docker_host",
        "docker_context",
        "docker_tls_verify",
        "docker_cert_path",
        "container_id",
        "network_alias",
        "adopt",
        "postgres_image",
        "redis_image",
        "traefik_image",
        "images_dir",
        "postgres_memory_mib",
        "redis_memory_mib",
    ),
    "Swarm": (
        "swarm_init",
        "swarm_address_pool",
        "swarm_listen_address",
        "swarm_advertise_address",
        "swarm_data_path_port",
    ),
    "Our own engine (dind)": (
        "docker_data_root",
        "docker_config",
        "docker_iptables",
        "allow_layer_data",
    ),
}
_KINDS: tuple[tuple[object, str], ...] = (
    (model.SecretStr, "text, secret"),
    (model.Argv, "command"),
    (model.Words, "list of words"),
    (model.ServiceWords, "list of words"),
    (model.Lines, "list of lines"),
    (model.Port, "port, 1 to 65535"),
    (model.FreePort, "port, 0 to 65535"),
    (model.Seconds, "seconds, above 0 to 86400"),
    (model.Name, "name: 1 to 63 of a-z 0-9 _ . -"),
    (bool, "`true` or `false`"),
    (Path, "path"),
    (IPv4Address, "IPv4 address"),
    (IPv4Network, "IPv4 network"),
    (str, "text"),
    (dict[str, str], "table of texts"),
)


def section() -> str:
    """The whole section: a table a group, then the one of `[services.NAME]`."""
    parts = [_group(title, fields) for title, fields in GROUPS.items()]
    parts.append(_service_table())
    return "\n".join(parts)


def _group(title: str, fields: Sequence[str]) -> str:
    hints = get_type_hints(Settings, include_extras=True)
    rows = [_row(name, hints[name]) for name in fields]
    head = ["| Variable | Also | `supervisor.toml` | What it takes | Default | Meaning |", "|---|---|---|---|---|---|"]
    return "\n".join([f"### {title}", "", *head, *rows, ""])


def _row(name: str, hint: Any) -> str:
    info = Settings.model_fields[name]
    kind = kind_of(hint)
    others = [f"`{alias}`" for alias in model.aliases(name)]
    if "secret" in kind:
        others += [f"`{variable}_FILE`" for variable in (model.variable(name), *model.aliases(name))]
    if name in model.OPTIONS:
        others.append(f"`--{name.replace('_', '-')}`")
    return _cells(f"`{model.variable(name)}`", ", ".join(others), f"`{name}`", kind, _default(info), info.description)


def _service_table() -> str:
    hints = get_type_hints(UserService, include_extras=True)
    rows = [
        _cells(f"`{name}`", kind_of(hints[name]), _default(info), info.description)
        for name, info in UserService.model_fields.items()
    ]
    head = ["| Key | What it takes | Default | Meaning |", "|---|---|---|---|"]
    return "\n".join(["### `[services.NAME]`, services of your own, in `supervisor.toml` only", "", *head, *rows, ""])


def _cells(*cells: str | None) -> str:
    return "| " + " | ".join((cell or "").replace("|", "\\|") for cell in cells) + " |"


def kind_of(hint: Any) -> str:
    """What a setting of this type takes, in words."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not NoneType)
    for known, words in _KINDS:
        if hint == known:
            return words
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is Annotated:
        return _constrained(hint)
    raise TypeError(f"no words for {hint!r}; add them to _KINDS")


def _constrained(hint: Any) -> str:
    base, *extras = get_args(hint)
    limits = [limit for extra in extras for limit in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
    upper = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    for limit in limits:
        if isinstance(limit, Ge) and upper is not None:
            return f"number, {limit.ge} to {upper}"
        if isinstance(limit, Ge):
            return f"number from {limit.ge}"
        if getattr(limit, "pattern", None):
            return f"{kind_of(base)}, like `{limit.pattern}`"
    return kind_of(base)


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "(must be given)"
    if value is None or value == () or value == {} or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(list(value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def put_into(text: str) -> str:
    """`text` with the section between its marks made anew; raises ValueError where the marks are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the marks {BEGIN!r} and {END!r} are not in it")
    return f"{before}{BEGIN}\n\n{section()}\n{END}{after}"


def main(argv: Sequence[str]) -> int:
    """Print the section, or write it."""
    if list(argv) == ["--write"]:
        write_atomic(GUIDE, put_into(GUIDE.read_text(encoding="utf-8")), mode=0o644)
    elif not argv:
        print(section())
    else:
        sys.stderr.write(_USAGE)
        return int(ExitCode.USAGE)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
