"""What is declared, checked and turned into statements; no server."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.names import Slot, quoted, role_name, schema_name
from supervisor.services.tenancy.observed import Observed, Role, Schema, mark, marked_app
from supervisor.services.tenancy.plan import plan_tenancy
from supervisor.services.tenancy.script import describe, psql_script
from supervisor.services.tenancy.tenant import Tenant, Wish
from supervisor.services.tenancy.verifier import fits, make_verifier

EMPTY = Observed(
    admin="postgres",
    superuser=True,
    may_create_roles=True,
    owns_database=True,
    version=180000,
    schemas={"public": Schema("pg_database_owner")},
)


def wish_of(*tenants: Tenant, stack: str = "shop") -> Wish:
    logins = {(tenant.app, Slot.A): Secret("secret") for tenant in tenants}
    return Wish(stack=stack, install=stack, database=stack, tenants=tenants, logins=logins)


def test_fresh_app_gets_role_logins_schema_and_password_in_this_order() -> None:
    plan = plan_tenancy(wish_of(Tenant(app="admin-auth")), EMPTY)
    said = "\n".join(describe(plan))
    wanted = [
        'CREATE ROLE "shop_admin-auth" NOLOGIN NOSUPERUSER',
        'CREATE ROLE "shop_admin-auth_a" NOLOGIN',
        'GRANT "shop_admin-auth" TO "shop_admin-auth_a"',
        'CREATE SCHEMA "admin_auth" AUTHORIZATION "shop_admin-auth"',
        'GRANT CONNECT, CREATE, TEMPORARY ON DATABASE "shop" TO "shop_admin-auth"',
        'ALTER ROLE "shop_admin-auth_a" IN DATABASE "shop" SET search_path TO "admin_auth"',
        'ALTER ROLE "shop_admin-auth_a" LOGIN PASSWORD ***',
    ]
    places = [said.index(each) for each in wanted]
    assert places == sorted(places)
    assert "secret" not in said + repr(plan)


def test_second_login_is_there_and_locked() -> None:
    plan = plan_tenancy(wish_of(Tenant(app="auth")), EMPTY)
    opened = [each.password_of for each in plan.statements if each.password_of]
    assert opened == ["shop_auth_a"]
    both = plan_tenancy(replace(wish_of(), tenants=(), stack="shop"), EMPTY)
    assert both.statements == ()


@pytest.mark.parametrize(
    ("tenants", "why"),
    [
        ([Tenant(app="a", schema="x"), Tenant(app="b", schema="x")], "apps 'a' and 'b' both have schema 'x'"),
        ([Tenant(app="a-b"), Tenant(app="a_b")], "apps 'a-b' and 'a_b' both have schema 'a_b'"),
        ([Tenant(app="a", schema="public")], "app 'a' has schema 'public' without `public = true`"),
        ([Tenant(app="a", public=True), Tenant(app="b", public=True)], "both have schema 'public'"),
        ([Tenant(app="a", reads=("b",))], "app 'a' reads 'b', which is no app with a database"),
        ([Tenant(app="a", reads=("a",))], "app 'a' reads 'a', which is itself"),
        ([Tenant(app="a", schema="pg_mine")], "cannot have schema 'pg_mine': Postgres keeps that name"),
        ([Tenant(app="a", schema="s" * 64)], "longer than 63 bytes"),
        ([Tenant(app="a", whole=True), Tenant(app="b")], "has the whole database"),
        ([Tenant(app="x"), Tenant(app="x_a", schema="y")], "'shop_x_a' is also a role of app 'x'"),
        ([Tenant(app="a" * 60)], "longer than the 61 bytes"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(tenants: list[Tenant], why: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(why)):
        plan_tenancy(wish_of(*tenants), EMPTY)


def test_all_mistakes_are_told_together() -> None:
    with pytest.raises(ConfigurationError, match=r"reads 'x'.*reads 'y'"):
        wish_of(Tenant(app="a", reads=("x",)), Tenant(app="b", reads=("y",)))


def test_names_are_quoted_and_follow_from_the_app() -> None:
    assert role_name("shop", "admin-auth") == "shop_admin-auth"
    assert schema_name("admin-auth") == "admin_auth"
    assert quoted('a"b') == '"a""b"'
    assert marked_app("shop", mark("shop", "admin-auth")) == "admin-auth"
    assert marked_app("shop", mark("other", "api")) == ""
    assert marked_app("shop", None) == ""


def test_gone_app_is_dropped_only_when_confirmed() -> None:
    comment = mark("shop", "old")
    seen = replace(
        EMPTY,
        roles={"shop_old": Role(comment=comment), "shop_old_a": Role(comment=comment, can_login=True)},
        schemas={**EMPTY.schemas, "old": Schema("shop_old", comment)},
    )
    kept = plan_tenancy(wish_of(), seen)
    assert [each.sql for each in kept.statements] == ['ALTER ROLE "shop_old_a" NOLOGIN PASSWORD NULL']
    assert "its data stays in schema 'old'; --confirm drops" in kept.notes[0]
    dropped = [each.sql for each in plan_tenancy(wish_of(), seen, confirm=True).statements]
    assert dropped[0] == 'DROP SCHEMA "old" CASCADE'
    assert [each for each in dropped if each.startswith("DROP ROLE")] == [
        'DROP ROLE "shop_old_a"',
        'DROP ROLE "shop_old"',
    ]


def test_script_asks_for_passwords_and_has_none() -> None:
    script = psql_script(plan_tenancy(wish_of(Tenant(app="auth")), EMPTY), database="shop")
    assert script.splitlines()[:3] == [
        '-- Run it as a superuser: psql -d "shop" -f THIS_FILE',
        "\\set ON_ERROR_STOP on",
        "BEGIN;",
    ]
    assert '\\password "shop_auth_a"\nALTER ROLE "shop_auth_a" LOGIN;\n' in script
    assert script.rstrip().endswith("COMMIT;")


def test_verifier_is_the_one_of_the_standard() -> None:
    """The exchange of RFC 7677, section 3: user `user`, password `pencil`."""
    import base64
    import hashlib
    import hmac

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = make_verifier(Secret("pencil"), salt=salt, iterations=4096)
    stored, server = (base64.b64decode(part) for part in verifier.split("$")[2].split(":"))
    said = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    key = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, said, "sha256"), strict=True))
    assert hashlib.sha256(key).digest() == stored
    assert base64.b64encode(hmac.digest(server, said, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_verifier_fits_its_password_alone() -> None:
    verifier = make_verifier(Secret("one"))
    assert fits(Secret("one"), verifier)
    assert not fits(Secret("two"), verifier)
    assert not fits(Secret("one"), "md5" + "0" * 32)
    for odd in ("", "käse", "a\0b"):
        with pytest.raises(ConfigurationError, match="must be of ASCII signs"):
            make_verifier(Secret(odd))
