"""What of a stack goes, in which order, and what stays: decided on values, and done on a real engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import anyio
import pytest

from supervisor.core.errors import UnreachableError
from supervisor.services.ownership import removal
from supervisor.services.ownership.lease import lease_name
from supervisor.services.ownership.removal import Kind, Removal, RemovalPlan, Thing, live_lease, plan_removal, things_of
from tests.contracts.engine_made import engine_of, ready_swarm
from tests.engine_rig.engine import Share
from tests.services.ownership.removal_rig import LIMIT_SECONDS, holder, leased, made_stack, task_containers


def thing(kind: Kind, install: str = "us") -> Thing:
    return Thing(kind, f"{kind}-id", f"s-{kind}", install)


# Decided.


def test_things_go_in_the_order_in_which_they_use_each_other() -> None:
    for found in list(permutations(map(thing, Kind)))[::37]:
        plan = plan_removal(found, "us", volumes=True)
        assert [each.kind for each in plan.remove] == list(Kind)
        assert (plan.keep, plan.others) == ((), ())


def test_volumes_stay_unless_they_were_asked_for() -> None:
    plan = plan_removal([thing(Kind.VOLUME), thing(Kind.NETWORK)], "us", volumes=False)
    assert plan == RemovalPlan(remove=(thing(Kind.NETWORK),), keep=(thing(Kind.VOLUME),))


@pytest.mark.parametrize("other", ["them", ""])
def test_what_another_install_made_is_left(other: str) -> None:
    found = [thing(Kind.SERVICE, other), thing(Kind.VOLUME, other), thing(Kind.SECRET)]
    plan = plan_removal(found, "us", volumes=True)
    assert plan.remove == (thing(Kind.SECRET),)
    assert set(plan.others) == {thing(Kind.SERVICE, other), thing(Kind.VOLUME, other)}


def test_without_an_install_the_stack_alone_decides() -> None:
    found = [thing(Kind.SERVICE, "them"), thing(Kind.SECRET)]
    assert set(plan_removal(found, "", volumes=False).remove) == set(found)


# Done.


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_stack_goes_and_its_data_stays_until_it_is_asked_for(docker: Share) -> None:
    stack, said = docker.prefix, list[str]()
    async with made_stack(docker) as engine:
        found = await things_of(engine, stack)
        assert {each.kind for each in found} == set(Kind)
        with anyio.fail_after(LIMIT_SECONDS):
            await Removal(engine, stack, tell=said.append).run(plan_removal(found, "us", volumes=False))
        assert said == [
            f"removed service {stack}-postgres",
            f"removed container {stack}-traefik",
            f"removed secret {stack}-postgres-1",
            f"removed config {stack}-supervisor-lease",
            f"removed network {stack}-network",
        ]
        assert await task_containers(engine, stack) == []
        left = await things_of(engine, stack)
        assert [str(each) for each in left] == [f"volume {stack}-postgres"]
        await Removal(engine, stack, tell=said.append).run(plan_removal(left, "us", volumes=True))
        assert said[-1] == f"removed volume {stack}-postgres"
        assert await things_of(engine, stack) == []


@pytest.mark.engine
@pytest.mark.anyio
async def test_what_is_gone_already_is_no_error(docker: Share) -> None:
    said = list[str]()
    gone = [replace_id(thing(kind), docker.prefix) for kind in Kind if kind is not Kind.SERVICE]
    await anyio.to_thread.run_sync(ready_swarm, docker)
    async with engine_of(docker) as engine:
        with anyio.fail_after(LIMIT_SECONDS):
            await Removal(engine, docker.prefix, tell=said.append).run(RemovalPlan(tuple(gone)))
    assert said == []


def replace_id(each: Thing, prefix: str) -> Thing:
    return Thing(each.kind, f"{prefix}-{each.id}", each.name, each.install)


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_network_that_others_use_is_left_and_they_are_named(
    docker: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "LET_GO_SECONDS", 1.0)
    name = docker.network("network")
    docker.start(docker.engine.image("base"), "sleep", "600", word="guest", options=(f"--network={name}",))
    async with engine_of(docker) as engine:
        network = Thing(Kind.NETWORK, str((await engine.networks.inspect(name))["Id"]), name, "us")
        with pytest.raises(UnreachableError, match=f"in use by container {docker.name('guest')} .*stop and remove"):
            await Removal(engine, docker.prefix, tell=print).run(RemovalPlan((network,)))
        assert await engine.networks.inspect(name)


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_stopped_supervisor_can_start_again_after_its_network_went(docker: Share) -> None:
    name, said = docker.network("network"), list[str]()
    image = docker.engine.image("base")
    box = docker.start(image, "sleep", "600", word="app")
    docker.engine.run("network", "connect", "--alias", f"{docker.prefix}-app", name, box)
    docker.engine.run("kill", box)
    async with engine_of(docker) as engine:
        network = Thing(Kind.NETWORK, str((await engine.networks.inspect(name))["Id"]), name, "us")
        await Removal(engine, docker.prefix, tell=said.append).run(RemovalPlan((network,)))
    assert said == [f"disconnected container {box} from network {name}", f"removed network {name}"]
    docker.engine.run("start", box)


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_lease_is_live_while_its_container_runs(docker: Share) -> None:
    box = docker.start(docker.engine.image("base"), "sleep", "600", word="app")
    identity = docker.engine.output("inspect", "--format", "{{.Id}}", box)
    async with leased(docker, holder(identity)) as engine:
        assert f"container '{box}'" in await live_lease(engine, docker.prefix)
        assert await live_lease(engine, docker.prefix, us=identity) == ""
        docker.engine.run("kill", box)
        assert await live_lease(engine, docker.prefix) == ""
        docker.engine.run("rm", box)
        assert await live_lease(engine, docker.prefix) == ""
        await engine.configs.remove(lease_name(docker.prefix))
        assert await live_lease(engine, docker.prefix) == ""


@pytest.mark.engine
@pytest.mark.anyio
@pytest.mark.parametrize(("ago", "lives"), [(5, True), (90, False)])
async def test_a_lease_of_a_plain_process_is_live_by_its_signature(docker: Share, ago: int, lives: bool) -> None:
    async with leased(docker, holder(""), signed=datetime.now(UTC) - timedelta(seconds=ago)) as engine:
        assert ("a supervisor on 'there', which signed" in await live_lease(engine, docker.prefix)) is lives
