"""Other supervisors and inits, set up to do what ours does in a benchmark."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

Programs = Mapping[str, Sequence[str]]


def supervisord_config(home: Path, programs: Programs) -> Path:
    """A configuration with everything at its default but the paths; gives the file."""
    home.mkdir(parents=True, exist_ok=True)
    text = f"""\
[supervisord]
nodaemon=true
user=root
logfile={home}/supervisord.log
pidfile={home}/supervisord.pid
childlogdir={home}
[unix_http_server]
file={home}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/supervisor.sock
"""
    for name, argv in programs.items():
        text += f"[program:{name}]\ncommand={shlex.join(argv)}\nautorestart=true\n"
    config = home / "supervisord.conf"
    config.write_text(text)
    return config


def supervisord_argv(home: Path, programs: Programs) -> list[str]:
    """supervisord in the foreground."""
    return ["supervisord", "-n", "-c", str(supervisord_config(home, programs))]


def supervisorctl_argv(home: Path, *words: str) -> list[str]:
    """Its client."""
    return ["supervisorctl", "-c", str(home / "supervisord.conf"), *words]


def s6_argv(home: Path, programs: Programs) -> list[str]:
    """s6-svscan over a scan folder with a service a program."""
    for name, argv in programs.items():
        service = home / name
        service.mkdir(parents=True, exist_ok=True)
        run = service / "run"
        run.write_text(f"#!/bin/sh\nexec {shlex.join(argv)}\n")
        run.chmod(0o755)
    return ["s6-svscan", str(home)]
