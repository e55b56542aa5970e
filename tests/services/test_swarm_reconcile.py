"""When a stored service is left alone, when it is updated, and what an update keeps."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.engine.labels import SPEC_HASH
from supervisor.services.swarm.reconcile import Create, Foreign, Keep, Update, differences, plan_service
from supervisor.services.swarm.spec import (
    APPLIED,
    DataService,
    HealthCheck,
    Owner,
    SecretFile,
    ServiceBody,
    service_body,
    spec_hash,
)

API = (1, 45)
WISH = DataService(
    name="notes-postgres",
    owner=Owner("install-1", "notes"),
    role="postgres",
    image="postgres@sha256:1111",
    env={"POSTGRES_USER": "notes", "POSTGRES_DB": "notes"},
    secrets=(SecretFile("notes-postgres-abc", "secret1", "postgres_password"),),
    volume="notes-postgres",
    target="/var/lib/postgresql",
    network="net1",
    node="node1",
    port=5432,
    host_port=5432,
    health=HealthCheck(command="true"),
    stop_signal="SIGINT",
    stop_seconds=60,
    memory_limit_mib=512,
    shm_mib=256,
)


def wish(**changes: Any) -> ServiceBody:
    return service_body(dataclasses.replace(WISH, **changes), api=API)


def stored(body: ServiceBody, version: int = 7) -> dict[str, Any]:
    """As an inspect shows it, with what engines add by themselves."""
    spec = copy.deepcopy(body)
    spec["TaskTemplate"] |= {"ForceUpdate": 0, "Runtime": "container"}
    spec["TaskTemplate"]["ContainerSpec"]["Isolation"] = "default"
    return {"ID": "s1", "Version": {"Index": version}, "CreatedAt": "2026-01-01T00:00:00Z", "Spec": spec}


def update(wanted: ServiceBody, there: dict[str, Any], **options: Any) -> Update:
    plan = plan_service(wanted, there, **options)
    assert isinstance(plan, Update)
    return plan


def test_missing_service_is_created() -> None:
    assert plan_service(wish(), None) == Create(wish())


def test_unchanged_wish_makes_no_call() -> None:
    assert plan_service(wish(), stored(wish())) == Keep()


def test_order_of_wishes_makes_no_call() -> None:
    turned = wish(env=dict(reversed(list(WISH.env.items()))))
    assert turned == wish()


def test_force_update_of_somebody_is_carried_over() -> None:
    there = stored(wish())
    there["Spec"]["TaskTemplate"]["ForceUpdate"] = 3
    assert plan_service(wish(), there) == Keep()
    plan = update(wish(image="postgres@sha256:2222"), there)
    assert plan.body["TaskTemplate"]["ForceUpdate"] == 3


@pytest.mark.parametrize(
    ("changes", "restarts"),
    [
        ({"image": "postgres@sha256:2222"}, True),
        ({"host_port": 15432}, True),
        ({"env": {"POSTGRES_USER": "notes", "POSTGRES_DB": "other"}}, True),
        ({"owner": Owner("install-1", "notes"), "name": "notes-postgres"}, None),
        ({"secrets": (SecretFile("notes-postgres-def", "secret2", "postgres_password"),)}, True),
        ({"health": HealthCheck(command="false")}, True),
    ],
)
def test_changed_wish_is_an_update_that_says_whether_it_restarts(
    changes: dict[str, Any], restarts: bool | None
) -> None:
    plan = plan_service(wish(**changes), stored(wish()))
    if restarts is None:
        assert plan == Keep()
        return
    assert isinstance(plan, Update)
    assert plan.restarts is restarts
    assert plan.version == 7
    assert len(plan.changes) == 1
    assert plan_service(wish(**changes), stored(plan.body)) == Keep()


def test_changed_label_restarts_nothing() -> None:
    there = stored(wish())
    del there["Spec"]["Labels"]["com.container-supervisor.service"]
    plan = update(wish(), there)
    assert not plan.restarts


def test_what_others_added_stays_and_is_told() -> None:
    there = stored(wish())
    there["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"].append("TZ=Europe/Berlin")
    there["Spec"]["EndpointSpec"]["Ports"].append({"TargetPort": 9187, "PublishedPort": 9187})
    there["Spec"]["TaskTemplate"]["Networks"].append({"Target": "net-of-theirs"})
    plan = plan_service(wish(), there)
    assert isinstance(plan, Keep)
    assert len(plan.foreign) == 3
    assert "Berlin" not in str(plan)
    changed = update(wish(image="postgres@sha256:2222"), there)
    container = changed.body["TaskTemplate"]["ContainerSpec"]
    assert "TZ=Europe/Berlin" in container["Env"]
    assert {"Target": "net-of-theirs"} in changed.body["TaskTemplate"]["Networks"]
    assert len(changed.body["EndpointSpec"]["Ports"]) == 2


def test_what_we_applied_and_want_no_more_is_taken_back() -> None:
    plan = update(wish(host_port=None, memory_limit_mib=0, env={"POSTGRES_USER": "notes"}), stored(wish()))
    assert "Ports" not in plan.body["EndpointSpec"]
    assert "Resources" not in plan.body["TaskTemplate"]
    assert plan.body["TaskTemplate"]["ContainerSpec"]["Env"] == ["POSTGRES_USER=notes"]


def test_what_we_applied_but_somebody_changed_since_is_kept() -> None:
    there = stored(wish())
    there["Spec"]["TaskTemplate"]["Resources"] = {"Limits": {"MemoryBytes": 1 << 30}}
    plan = plan_service(wish(memory_limit_mib=0), there)
    assert isinstance(plan, Update | Keep)
    if isinstance(plan, Update):
        assert plan.body["TaskTemplate"]["Resources"] == {"Limits": {"MemoryBytes": 1 << 30}}


def test_field_of_ours_that_somebody_changed_is_repaired() -> None:
    there = stored(wish())
    there["Spec"]["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = 1
    plan = update(wish(), there)
    assert plan.body["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 60_000_000_000
    assert plan.changes == ("TaskTemplate.ContainerSpec.StopGracePeriod: 1 -> 60000000000",)


@pytest.mark.parametrize("labels", [{}, {"com.container-supervisor.install": "other"}, None])
def test_service_of_somebody_else_is_never_touched(labels: dict[str, str] | None) -> None:
    there = stored(wish())
    there["Spec"]["Labels"] = labels
    plan = plan_service(wish(image="postgres@sha256:2222"), there)
    assert isinstance(plan, Foreign)
    assert plan.image == "postgres@sha256:1111"


def test_adopted_service_gets_our_labels_and_publishes_nothing_else() -> None:
    there = stored(wish())
    there["Spec"]["Labels"] = {"theirs": "1"}
    there["Spec"]["EndpointSpec"] = {"Mode": "vip", "Ports": [{"TargetPort": 5432, "PublishedPort": 5432}]}
    plan = update(wish(host_port=None), there, adopt=True)
    assert plan.body["EndpointSpec"] == {"Mode": "dnsrr"}
    assert plan.body["Labels"]["theirs"] == "1"
    assert plan_service(wish(host_port=None), stored(plan.body)) == Keep()


def test_values_of_the_environment_are_masked() -> None:
    there = stored(wish(env={"POSTGRES_PASSWORD": "swordfish", "POSTGRES_USER": "notes"}))
    plan = update(wish(), there)
    assert plan.changes
    assert "swordfish" not in str(plan.changes)


@pytest.mark.parametrize("text", ["", "not json", "[1]", "null"])
def test_unreadable_record_of_what_we_applied_drops_nothing(text: str) -> None:
    there = stored(wish())
    there["Spec"]["Labels"][APPLIED] = text
    plan = plan_service(wish(env={"POSTGRES_USER": "notes"}), there)
    assert isinstance(plan, Keep | Update)
    if isinstance(plan, Update):
        assert "POSTGRES_DB=notes" in plan.body["TaskTemplate"]["ContainerSpec"]["Env"]


ENVIRONMENTS = st.dictionaries(st.sampled_from("ABCD"), st.sampled_from("xy"))


@given(ENVIRONMENTS, ENVIRONMENTS, ENVIRONMENTS)
def test_an_update_gives_our_wish_and_keeps_theirs(
    first: dict[str, str], theirs: dict[str, str], second: dict[str, str]
) -> None:
    there = stored(wish(env=first))
    container = there["Spec"]["TaskTemplate"]["ContainerSpec"]
    foreign = {f"THEIR_{name}": value for name, value in theirs.items()}
    container["Env"] = [*container.get("Env", []), *(f"{name}={value}" for name, value in foreign.items())]
    plan = plan_service(wish(env=second), there)
    body = plan.body if isinstance(plan, Update) else there["Spec"]
    found = dict(entry.split("=") for entry in body["TaskTemplate"]["ContainerSpec"].get("Env", []))
    assert found == second | foreign
    assert isinstance(plan_service(wish(env=second), stored(body)), Keep)


def test_hash_tells_wishes_apart_and_nothing_else() -> None:
    assert spec_hash(wish()) == spec_hash(wish()) == wish()["Labels"][SPEC_HASH]
    assert spec_hash(wish()) != spec_hash(wish(image="postgres@sha256:2222"))
    assert json.loads(wish()["Labels"][APPLIED])["Name"] == WISH.name


@pytest.mark.parametrize(("api", "interval"), [((1, 41), 2), ((1, 45), 10)])
def test_first_health_check_comes_soon_whatever_the_engine_knows(api: tuple[int, int], interval: int) -> None:
    check = service_body(WISH, api=api)["TaskTemplate"]["ContainerSpec"]["Healthcheck"]
    assert check["Interval"] == interval * 1_000_000_000
    assert ("StartInterval" in check) is (api >= (1, 44))


def test_commands_are_masked_as_those_of_others_may_hold_a_password() -> None:
    before = {"TaskTemplate": {"ContainerSpec": {"Args": ["redis-server", "--requirepass", "hidden"]}}}
    after = {"TaskTemplate": {"ContainerSpec": {"Args": ["redis-server", "/run/secrets/redis.conf"]}}}
    assert differences(before, after) == ["TaskTemplate.ContainerSpec.Args: *** -> ***"]
