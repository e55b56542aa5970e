"""The order in which a variable's value is looked up, what is missing or wrong, and the one message about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.secret import Secret
from supervisor.core.settings import SECRET, AppEnv, AppVariable, why_unusable
from supervisor.environment.bindings import WELL_KNOWN, Facts, filled
from supervisor.environment.resolve import Origin, Resolved, Wanted, complaint, resolve

FACTS = Facts(
    stage="production",
    port=3000,
    public_url="https://api.example",
    origins=("https://web.example",),
    database_url=Secret("postgresql://api@x/y"),
)


def wanted(**changes: object) -> Wanted:
    base = Wanted(app="api", declared=AppEnv(), facts=FACTS, bindings={}, external={}, given={})
    return replace(base, **changes)  # type: ignore[arg-type]


def found(one: Wanted) -> Resolved:
    return resolve(one, lambda name: Secret(f"random {name}"))


def value_of(resolved: Resolved, name: str) -> tuple[str, Origin]:
    return resolved.values[name].secret.reveal(), resolved.values[name].origin


EVERYTHING = wanted(
    declared=AppEnv(optional={"X": "default"}, vars={"X": AppVariable(generate=True)}),
    bindings={"X": "{port}"},
    external={"X": "external"},
    given={"X": Secret("given")},
)


@pytest.mark.parametrize(
    ("without", "value", "origin"),
    [
        ({}, "external", Origin.EXTERNAL),
        ({"external": {}}, "3000", Origin.COMPUTED),
        ({"external": {}, "bindings": {}}, "given", Origin.GIVEN),
        ({"external": {}, "bindings": {}, "given": {}}, "random X", Origin.GENERATED),
        (
            {"external": {}, "bindings": {}, "given": {}, "declared": AppEnv(optional={"X": "default"})},
            "default",
            Origin.DEFAULT,
        ),
    ],
)
def test_value_is_the_first_one_there_is(without: dict[str, object], value: str, origin: Origin) -> None:
    assert value_of(found(replace(EVERYTHING, **without)), "X") == (value, origin)  # type: ignore[arg-type]


def test_empty_variable_of_ours_counts_as_none() -> None:
    assert value_of(found(replace(EVERYTHING, external={"X": ""})), "X") == ("3000", Origin.COMPUTED)


def test_well_known_names_need_no_declaration() -> None:
    resolved = found(wanted(bindings=WELL_KNOWN))
    assert {name: value_of(resolved, name)[0] for name in resolved.values} == {
        "PORT": "3000",
        "NODE_ENV": "production",
        "DATABASE_URL": "postgresql://api@x/y",
        "PUBLIC_URL": "https://api.example",
        "TRUSTED_ORIGINS": "https://api.example,https://web.example",
        "BETTER_AUTH_URL": "https://api.example",
        "BETTER_AUTH_SECRET": "random BETTER_AUTH_SECRET",
        "BETTER_AUTH_TRUSTED_ORIGINS": "https://api.example,https://web.example",
        "MASTER_KEY": "random MASTER_KEY",
    }, "there is no Redis, so no REDIS_URL"
    assert resolved.missing == ()


def test_what_is_required_and_has_no_value_is_missing() -> None:
    declared = AppEnv(required=("A", "REDIS_URL"), optional={"B": "b"}, vars={"C": AppVariable(kind="url")})
    resolved = found(wanted(declared=declared, bindings=WELL_KNOWN))
    assert resolved.missing == ("A", "REDIS_URL", "C")


def test_names_that_are_declared_bound_or_set_for_the_app_are_looked_up_and_no_others() -> None:
    resolved = found(wanted(external={"OTHER": "1", "BOTH": "3"}, given={"MORE": Secret("2"), "BOTH": Secret("4")}))
    assert {name: value_of(resolved, name) for name in resolved.values} == {
        "MORE": ("2", Origin.GIVEN),
        "BOTH": ("3", Origin.EXTERNAL),
    }


@pytest.mark.parametrize(
    ("rule", "good", "bad", "why"),
    [
        ({"kind": "url"}, "smtps://u:p@h:465", "h:465", "is not a URL with scheme and host"),
        ({"kind": "url"}, "http://h", "http://[", "is not a URL with scheme and host"),
        ({"kind": "port"}, "65535", "65536", "is not a port, 1 to 65535"),
        ({"kind": "port"}, "1", "0x10", "is not a port, 1 to 65535"),
        ({"kind": "int"}, "-7", "7.5", "is not a whole number"),
        ({"kind": "bool"}, "Yes", "maybe", "is not one of 0, 1, false, no, off, on, true, yes"),
        ({"kind": "email"}, "a@b", "a b@c", "is not an e-mail address"),
        ({"min_length": 4}, "1234", "123", "has 3 characters; it must have 4 or more"),
        ({"pattern": "^sk_"}, "sk_1", "pk_1", "does not match '^sk_'"),
    ],
)
def test_value_must_be_what_is_declared(rule: dict[str, object], good: str, bad: str, why: str) -> None:
    declared = AppEnv(vars={"X": AppVariable.model_validate(rule)})
    assert found(wanted(declared=declared, external={"X": good})).wrong == {}
    assert found(wanted(declared=declared, external={"X": bad})).wrong == {"X": why}


def test_one_message_names_every_app_and_variable_and_the_commands() -> None:
    api = found(
        wanted(declared=AppEnv(required=("KEY",), vars={"N": AppVariable(kind="int")}), external={"N": "s3cret"})
    )
    web = replace(found(wanted(declared=AppEnv(required=("OTHER",)))), app="web")
    assert complaint([api, found(wanted()), web]) == (
        "cannot start the apps: variables that they need are missing or wrong\n"
        "  - app 'api': KEY is missing\n"
        "  - app 'api': N is not a whole number\n"
        "  - app 'web': OTHER is missing\n"
        "  set them (each value is asked for), or give them in the container's environment, then start again:\n"
        "    supervisor secrets set api KEY N\n"
        "    supervisor secrets set web OTHER"
    )
    assert complaint([found(wanted())]) == ""


def test_values_do_not_print_themselves() -> None:
    one = replace(EVERYTHING, external={"X": "s3cret-value"})
    assert "s3cret-value" not in repr(one) + repr(found(one))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{public_url}/callback", ""),
        (SECRET, ""),
        ("plain", ""),
        ("{publicurl}", "there is no {publicurl}; there are {stage}, {node_env}, {port}"),
        ("x{secret}", "{secret} stands alone"),
    ],
)
def test_binding_is_made_of_known_facts(template: str, why: str) -> None:
    assert why_unusable(template).startswith(why)
    assert bool(why_unusable(template)) is bool(why)


def test_template_is_filled_with_facts_or_not_at_all() -> None:
    assert filled("{public_url}/x:{port}", FACTS) == "https://api.example/x:3000"
    assert filled("{redis_url}", FACTS) is None
    assert filled("{port}{port}", replace(FACTS, database_url=Secret("{port}"))) == "30003000"
