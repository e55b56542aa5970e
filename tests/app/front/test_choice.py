"""Which kind of front an app gets."""

from __future__ import annotations

import pytest

from supervisor.app.front.choice import choose_front
from supervisor.app.front.model import FrontKind
from supervisor.core.errors import ConfigurationError

BINARY = "/usr/sbin/haproxy"


@pytest.mark.parametrize(
    ("wanted", "binary", "kind"),
    [
        ("auto", BINARY, FrontKind.PROXY),
        ("auto", None, FrontKind.RESTART),
        ("proxy", BINARY, FrontKind.PROXY),
        ("restart", BINARY, FrontKind.RESTART),
        ("restart", None, FrontKind.RESTART),
    ],
)
def test_kind_follows_the_wish_and_what_is_installed(wanted: str, binary: str | None, kind: FrontKind) -> None:
    choice = choose_front(wanted, binary)
    assert choice.kind is kind
    assert choice.binary == (BINARY if kind is FrontKind.PROXY else "")
    assert bool(choice.lossy) is (kind is FrontKind.RESTART)
    assert choice.reason


def test_proxy_by_name_without_haproxy_is_an_error_with_its_mend() -> None:
    with pytest.raises(ConfigurationError, match=r"SUPERVISOR_FRONT=proxy.*install HAProxy.*SUPERVISOR_FRONT=auto"):
        choose_front("proxy", None)


def test_missing_haproxy_is_said_with_its_mend_and_a_choice_by_name_without() -> None:
    assert "install HAProxy" in choose_front("auto", None).lossy
    assert "install" not in choose_front("restart", None).lossy
