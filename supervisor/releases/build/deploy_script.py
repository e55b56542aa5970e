"""The script that brings a release to a container from a host that has nothing but Docker's command line."""

from __future__ import annotations

from importlib import resources


def deploy_script() -> str:
    """Its text: POSIX sh, the same for every release."""
    return resources.files(__package__).joinpath("deploy-tarball.sh").read_text(encoding="utf-8")
